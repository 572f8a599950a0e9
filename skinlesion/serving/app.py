"""``skinlesion app``: a trained model in the browser, on this machine only.

The server gives no file away: Gradio's own check of what a visitor calls a file is on, and `Gate`
lets nothing through that would serve one. It keeps no file: uploads go through a folder that nobody
else may enter and that ends with the server; the pixels stay in memory for the page that sent them.
It asks nobody else for anything, and has the browser refuse to do so.
"""

import os
import socket
import webbrowser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from skinlesion.errors import SkinlesionError
from skinlesion.serving.model import LesionModel

FONT = ("system-ui", "sans-serif")  # of the reader's machine: none is fetched
SESSIONS = 100  # pages whose image is in memory


def serve(model: LesionModel, path: Path, host: str, port: int, show: bool) -> None:
    """Show a model that was loaded from a path until Ctrl-C; `show` opens the browser.

    Raises:
        SkinlesionError: if Gradio is not installed, or the port cannot be had.
    """
    family, name = (socket.AF_INET6, f"[{host}]") if ":" in host else (socket.AF_INET, host)
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise SkinlesionError(
            f"{host}, port {port} cannot be had ({error}): choose another with --port, 0 for any."
        ) from None
    with listener, TemporaryDirectory(prefix="skinlesion-") as folder:  # nobody else may enter it
        application = build_application(model, path, Path(folder), host)
        import uvicorn

        config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1)
        address = f"http://{name}:{listener.getsockname()[1]}"
        print(f"{address}  (Ctrl-C stops it)", flush=True)
        if show:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])


def build_application(model: LesionModel, path: Path, uploads: Path, host: str) -> Any:
    """Return the application to serve, whose uploads go through a private folder.

    Where its host is of this machine only, requests by other names are refused.

    Raises:
        SkinlesionError: if Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise SkinlesionError(
            f"the application needs Gradio ({error}): pip install 'skinlesion[app]'"
        ) from None
    from fastapi import FastAPI
    from gradio import processing_utils
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from skinlesion.serving.page import STYLE, build_page
    from skinlesion.serving.uploads import LARGEST, Gate

    # Gradio would download for a visitor who sends an address in place of a file.
    processing_utils.async_ssrf_protected_download = _refuse
    page = build_page(model, path, uploads)
    page.state_session_capacity = SESSIONS
    application = FastAPI(openapi_url=None)
    application.add_middleware(Gate, uploads=uploads)
    if host in (names := ["127.0.0.1", "localhost"]):
        # Or a site could give its own name this address, and read what is here.
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    off = ("run_history", "show_error", "enable_monitoring", "ssr_mode", "pwa", "mcp_server")
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONT, font_mono=FONT)
    gr.mount_gradio_app(
        application,
        page,
        "",
        footer_links=[],
        app_kwargs={"openapi_url": None},
        max_file_size=LARGEST,
        theme=theme,
        css_paths=STYLE,
        **dict.fromkeys(off, False),
    )
    # Only then does Gradio ask of a file that a visitor names, in whatever field, whether it was
    # uploaded; and a page that is mounted never launches.
    page.has_launched = True
    return application


async def _refuse(url: str, cache_dir: str) -> str:
    raise SkinlesionError("No address is fetched: choose a file.")
