"""What a browser sends: a file in a private folder, read once and deleted."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion.errors import SkinlesionError
from skinlesion.serving.images import read_image


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a folder that nobody else may enter (mode 0700) and that is deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="skinlesion-") as name:
        yield Path(name)


def read_upload(file: Any, uploads: Path) -> tuple[np.ndarray, str]:
    """Return the image (H, W, 3) and the name of an uploaded file, and delete the file.

    Args:
        file: what the browser says about it: `path` and `orig_name`.
        uploads: the folder in which it must have a folder of its own.

    Raises:
        SkinlesionError: if it is no image, or not there.
    """
    path = Path(str(file.get("path") if isinstance(file, dict) else "")).resolve()
    # The path comes from outside: no other file is read, and none deleted.
    if not path.is_file() or path.parent.parent != uploads.resolve():
        raise SkinlesionError("The file did not arrive: choose it again.")
    name = str(file.get("orig_name") or path.name)
    try:
        return read_image(path), name
    except SkinlesionError as error:
        raise SkinlesionError(str(error).replace(str(path), name)) from None
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
