"""What a browser sends: what is let in, and a file in a private folder, read once and deleted."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion.data.pixels import read_image
from skinlesion.errors import SkinlesionError

LARGEST = 30 * 2**20  # bytes of an upload; read_image's limit in the units of Gradio's message
MOST = 8 * LARGEST  # bytes of all uploads, those on the disk and those under way
LEFT = 600  # seconds until an upload that was not read is deleted
AROUND = 2**16  # bytes of a request that are not the file
HEADERS = (
    # Gradio's page needs scripts and styles of its own text; what it does not need is other hosts.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
UPLOAD = "POST /gradio_api/upload"
# All that the page asks for: Gradio also offers files, other servers, and ways around the queue.
ASKED = re.compile(
    f"{UPLOAD}|POST /gradio_api/queue/join|(GET|HEAD) /("
    "|config|theme\\.css|favicon\\.ico|manifest\\.json|robots\\.txt|(assets|static|svelte)/.+"
    "|gradio_api/(app_id|startup-events|upload_progress|queue/data|heartbeat/[^/]+))"
)


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a folder that nobody else may enter (mode 0700) and that is deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="skinlesion-") as name:
        yield Path(name)


class Gate:
    """Lets through what the page asks for, from the page itself, and not too many bytes.

    It stands before Gradio, so that it holds whatever Gradio offers besides. A refusal says nothing
    but that it is one: Gradio's own may repeat what was sent, or name a path.

    Args:
        app: the ASGI application behind it.
        uploads: the folder that it writes uploads into.
    """

    def __init__(self, app: Any, uploads: Path) -> None:
        self.app = app
        self.uploads = uploads
        self.under_way = 0  # bytes announced

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        asked = f"{scope['method']} {scope['path']}"
        headers = dict(scope["headers"])
        length = int(headers.get(b"content-length", 0)) if asked == UPLOAD else 0
        refused = False

        async def send_quietly(message: Any) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = True
                await _refuse(message["status"], send)
            elif message["type"] == "http.response.start":
                await send(message | {"headers": [*message.get("headers", []), *HEADERS]})
            elif not refused:
                await send(message)

        if status := self._refusal(asked, headers, length):
            # A browser that is answered before it has sent all sees a broken connection instead.
            while (await receive()).get("more_body"):
                pass
            await _refuse(status, send)
            return
        self.under_way += length
        try:
            await self.app(scope, receive, send_quietly)
        finally:
            self.under_way -= length
            if length and not self.under_way:
                self._delete_broken_off()

    def _refusal(self, asked: str, headers: dict[bytes, bytes], length: int) -> int:
        """Return the status with which a request is refused, 0 for none."""
        origin = headers.get(b"origin")  # a browser says it wherever another site may have asked
        if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
            return 403
        if not ASKED.fullmatch(asked):
            return 404
        if asked == UPLOAD:
            if not length or b"transfer-encoding" in headers:  # which would overrule the length
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

    def _delete_broken_off(self) -> None:
        """Delete the uploads that did not end; those that did have a folder of their own."""
        for path in self.uploads.iterdir():
            if path.is_file():
                path.unlink(missing_ok=True)


async def _refuse(status: int, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"Refused."})


def read_upload(file: Any, uploads: Path) -> np.ndarray:
    """Return the image (H, W, 3) of an uploaded file, and delete the file.

    Args:
        file: what the browser says about it: `path`.
        uploads: the folder in which it must have a folder of its own.

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
