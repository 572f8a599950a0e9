"""The web server around the page: what it lets in, and what it keeps.

It gives no file away: Gradio's own check of what a visitor calls a file is on, and `Gate` lets
nothing through that would serve one. It keeps no file: uploads go through a folder that nobody else
may enter and that ends with the server; the pixels stay in memory for the page that sent them. It
asks nobody else for anything, and has the browser refuse to do so.
"""

import os
import signal
import socket
import webbrowser
from pathlib import Path
from typing import Any

from skinlesion.errors import SkinlesionError
from skinlesion.serving.model import LesionModel
from skinlesion.serving.uploads import LARGEST, Gate, private_folder

LOCAL = ("127.0.0.1", "localhost")
SESSIONS = 100  # pages whose image is in memory
HEADERS = {
    # Gradio's page needs scripts and styles of its own text; what it does not need is other hosts.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(model: LesionModel, path: Path, host: str, port: int, show: bool) -> None:
    """Show a model in the browser until Ctrl-C.

    Args:
        model: what is shown.
        path: what it was loaded from.
        host: address to listen on.
        port: 0 takes a free one.
        show: open the browser.

    Raises:
        SkinlesionError: if Gradio is not installed, or the port cannot be had.
    """
    with _listening(host, port) as listener, private_folder() as folder:
        application = build_application(model, path, folder, host)
        import uvicorn

        config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1)
        address = f"http://{_bracketed(host)}:{listener.getsockname()[1]}"
        print(f"{address}  (Ctrl-C stops it)", flush=True)
        if show:
            webbrowser.open(address)
        # As Ctrl-C, so that the folder goes.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        uvicorn.Server(config).run(sockets=[listener])


def build_application(model: LesionModel, path: Path, uploads: Path, host: str) -> Any:
    """Return the application to serve.

    Args:
        model: what is shown.
        path: what it was loaded from.
        uploads: a private folder.
        host: address that it is asked for by; of this machine only, other names are refused.

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

    from skinlesion.serving.page import build_page

    # Gradio would download for a visitor who sends an address in place of a file.
    processing_utils.async_ssrf_protected_download = _refuse
    page = build_page(model, path, uploads)
    page.state_session_capacity = SESSIONS
    application = FastAPI(openapi_url=None)
    application.add_middleware(Gate, uploads=uploads)
    if host in LOCAL:  # or a site could give its own name this address, and read what is here
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))
    application.add_middleware(_Headers)
    font = ("system-ui", "sans-serif")  # of the reader's machine: none is fetched
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=font, font_mono=font).set(
        **{f"button_primary_background_fill{dark}": "*primary_700" for dark in ("", "_dark")},
        **{f"button_primary_background_fill_hover{dark}": "*primary_800" for dark in ("", "_dark")},
    )
    gr.mount_gradio_app(
        application,
        page,
        "",
        footer_links=[],
        run_history=False,
        show_error=False,
        app_kwargs={"openapi_url": None},
        max_file_size=LARGEST,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css_paths=Path(__file__).parent / "templates" / "page.css",
    )
    # Only then does Gradio ask of a file that a visitor names, in whatever field, whether it was
    # uploaded; and a page that is mounted never launches.
    page.has_launched = True
    return application


class _Headers:
    """Adds HEADERS to every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        await self.app(scope, receive, send_with)


async def _refuse(url: str, cache_dir: str) -> str:
    raise SkinlesionError("No address is fetched: choose a file.")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise SkinlesionError(
            f"{host}, port {port} cannot be had ({error}): choose another with --port, 0 for any."
        ) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
