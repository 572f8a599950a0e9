"""What a browser sends: what is let in, and a file in a private folder, read once and deleted."""

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from starlette.datastructures import Headers
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from skinlesion.data.pixels import read_image
from skinlesion.errors import SkinlesionError

LARGEST = 30 * 2**20  # bytes of an upload; read_image's limit in the units of Gradio's message
MOST = 8 * LARGEST  # bytes of all uploads, those on the disk and those under way
LEFT = 600  # seconds until an upload that was not read is deleted
AROUND = 2**16  # bytes of a request that are not the file
HEADERS = {
    # Gradio's page needs scripts and styles of its own text; what it does not need is other hosts.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
UPLOAD = "POST /gradio_api/upload"
# All that the page asks for: Gradio also offers files, other servers, and ways around the queue.
ASKED = re.compile(
    f"{UPLOAD}|POST /gradio_api/queue/join|(GET|HEAD) /("
    "|config|theme\\.css|favicon\\.ico|manifest\\.json|robots\\.txt|(assets|static|svelte)/.+"
    "|gradio_api/(app_id|startup-events|upload_progress|queue/data|heartbeat/[^/]+))"
)


class Gate(BaseHTTPMiddleware):
    """Lets through what the page asks for, from the page itself, and not too many bytes.

    It stands before Gradio, so that it holds whatever Gradio offers besides. A refusal says nothing
    but that it is one: Gradio's own may repeat what was sent, or name a path. The application
    behind it writes into the folder `uploads`.
    """

    def __init__(self, app: Any, uploads: Path) -> None:
        super().__init__(app)
        self.uploads = uploads
        self.under_way = 0  # bytes announced

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass over what is no request: the page opens no socket."""
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """Answer a request, or pass it on."""
        asked = f"{request.method} {request.scope['path']}"
        length = int(request.headers.get("content-length", 0)) if asked == UPLOAD else 0
        if status := self._refusal(asked, request.headers, length):
            # A browser that is answered before it has sent all sees a broken connection instead.
            async for _ in request.stream():
                pass
            return PlainTextResponse("Refused.", status, HEADERS)
        self.under_way += length
        try:
            response = await call_next(request)
        finally:
            self.under_way -= length
            if length and not self.under_way:  # uploads that did end have a folder of their own
                for path in self.uploads.iterdir():
                    if path.is_file():
                        path.unlink(missing_ok=True)
        if response.status_code >= 400:
            return PlainTextResponse("Refused.", response.status_code, HEADERS)
        response.headers.update(HEADERS)
        return response

    def _refusal(self, asked: str, headers: Headers, length: int) -> int:
        """Return the status with which a request is refused, 0 for none."""
        origin = headers.get("origin")  # a browser says it wherever another site may have asked
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return 403
        if not ASKED.fullmatch(asked):
            return 404
        if asked == UPLOAD:
            if not length or "transfer-encoding" in headers:  # which would overrule the length
                return 411
            if length > LARGEST + AROUND:
                return 413
            if self._held() + self.under_way + length > MOST:
                return 503
        return 0

    def _held(self) -> int:
        """Return the bytes on the disk, those under way among them, and delete what is old.

        Gradio deletes it too, on a schedule, but ends that with the first file it cannot delete.
        """
        held = 0
        for folder, _, names in os.walk(self.uploads):
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):  # read and deleted by now
                    found = path.stat()
                    if found.st_mtime < time.time() - LEFT:
                        path.unlink()
                    else:  # an empty file counts too, or there would be no end to them
                        held += max(found.st_size, AROUND)
        return held


def read_upload(file: Any, uploads: Path) -> np.ndarray:
    """Return the image (H, W, 3) of an uploaded file, and delete the file.

    What the browser says is its path must be in a folder of its own in `uploads`.

    Raises:
        SkinlesionError: if it is no image, or not there.
    """
    path = Path(str(file.get("path") if isinstance(file, dict) else "")).resolve()
    # The path comes from outside: no other file is read, and none deleted.
    if not path.is_file() or path.parent.parent != uploads.resolve():
        raise SkinlesionError("The file did not arrive: choose it again.")
    try:
        return read_image(path)
    except SkinlesionError as error:
        raise SkinlesionError(str(error).replace(str(path), "The file")) from None
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
