"""One function from a file's bytes to pixels: for training, prediction, the page and exports alike.

What each kind of file becomes is said in docs/own-data.md. Nothing is guessed: what that page does
not name is refused, in one line.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from skinlesion.errors import SkinlesionError

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MOST_BYTES = 30_000_000
MOST_PIXELS = 100_000_000  # a larger picture may be small as a file and fill the memory
TOO_MANY = f"more than {MOST_PIXELS:,} pixels"
# Pillow warns of many pixels, where there is one limit here, and of notes that it cannot read.
warnings.filterwarnings("ignore", module=r"PIL\.")

AnyImage = str | Path | bytes | np.ndarray | Image.Image


def decode(data: bytes) -> np.ndarray:
    """Return the bytes of a JPEG, PNG or WebP file as (H, W, 3) uint8, RGB, upright.

    Raises:
        SkinlesionError: saying why they are no picture; which file it is, the caller knows.
    """
    check_size(len(data))
    try:
        return _upright_rgb(Image.open(io.BytesIO(data), formats=FORMATS))
    except SkinlesionError:
        raise
    except UnidentifiedImageError:
        iphone = " but HEIC or AVIF: export it as JPEG" if data[4:8] == b"ftyp" else ""
        raise SkinlesionError(f"no JPEG, PNG or WebP{iphone}") from None
    except Image.DecompressionBombError:  # Pillow's own limit is higher
        raise SkinlesionError(TOO_MANY) from None
    except Exception as error:  # Pillow raises whatever its parsers meet
        raise SkinlesionError(f"damaged: {error}") from None


def to_square(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 as (size, size, 3): centre crop, then bilinear.

    Without antialiasing, as the authors' `smart_resize` does.
    """
    import torch

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(image[top : top + side, left : left + side].copy())
    resized = torch.nn.functional.interpolate(
        square.permute(2, 0, 1)[None].float(), size=(size, size), mode="bilinear"
    )  # (1, 3, size, size)
    return resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def read_image(source: AnyImage) -> np.ndarray:
    """Return whatever a person hands over as (H, W, 3) uint8, RGB, upright.

    That is a path, the bytes of a JPEG, PNG or WebP file, a Pillow image, or an array (H, W, 3)
    uint8, RGB; a SkinlesionError names the file, and why it cannot be read.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise SkinlesionError(
                f"an array (H, W, 3) of uint8, RGB, is expected, found {source.dtype} "
                f"{source.shape}: pass the image as it was decoded."
            )
        return source
    name = str(source) if isinstance(source, str | Path) else "the image"
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        return decode(source if isinstance(source, bytes) else read_file(Path(source)))
    except SkinlesionError as error:
        raise SkinlesionError(f"{name}: {error}") from None


def check_size(size: int) -> None:
    """Refuse a file of too many bytes, where that is known before it is read."""
    if size > MOST_BYTES:
        raise SkinlesionError(f"{size / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f} are read")


def read_file(path: Path) -> bytes:
    """Return what a file holds, or say why it cannot be had."""
    try:
        check_size(path.stat().st_size)
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)  # of a device, which says that it holds nothing
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise SkinlesionError(f"cannot be read: {getattr(error, 'strerror', error)}") from None


def _upright_rgb(image: Any) -> np.ndarray:
    if image.width * image.height > MOST_PIXELS:
        raise SkinlesionError(TOO_MANY)
    # Pillow would cut the values off at 255, or take their upper half where there is an alpha.
    if image.mode[0] in "IF" or any("LA;16B" in tile for tile in getattr(image, "tile", ())):
        raise SkinlesionError(
            "more than 8 bits of grey, and nothing says which value is white: save it with 8 bits"
        )
    if "transparency" in image.info:  # or Pillow warns; the colours are the same
        image = image.convert("RGBA")
    image = image.convert("RGB")
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:  # whatever stands there, the pixels are whole
        orientation = 1
    # A phone keeps a picture as the sensor lay and notes beside it how to hold it.
    pixels = np.asarray(image)
    pixels = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return np.ascontiguousarray(pixels)
