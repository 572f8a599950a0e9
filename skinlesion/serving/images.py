"""An image as a network takes it, from whatever a person hands over, decoded with limits."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from skinlesion.errors import SkinlesionError

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MOST_BYTES = 30_000_000
MOST_PIXELS = 100_000_000  # a larger picture may be small as a file and fill the memory

Source = str | Path | bytes | np.ndarray | Image.Image


def read_image(source: Source) -> np.ndarray:
    """Return an image as (H, W, 3) uint8, RGB, upright.

    Args:
        source: a path, the bytes of a JPEG, PNG or WebP file, a Pillow image, or an array
            (H, W, 3) uint8, RGB.

    Raises:
        SkinlesionError: if there is no such file, it is too large, damaged or of another kind.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise SkinlesionError(
                f"an array (H, W, 3) of uint8, RGB, is expected, found {source.dtype} "
                f"{source.shape}: pass the image as it was decoded."
            )
        return source
    if isinstance(source, Image.Image):
        return _upright(source)
    name = "the image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read(Path(source))
    if len(data) > MOST_BYTES:
        raise SkinlesionError(f"{name}: {len(data) / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f}.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise SkinlesionError(
                f"{name}: {image.width} x {image.height} pixels, at most {MOST_PIXELS:,} in all."
            )
        return _upright(image)
    except UnidentifiedImageError:
        raise SkinlesionError(f"{name} is no image of {', '.join(FORMATS)}.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SkinlesionError(f"{name} is damaged: {error}") from None


def images_in(paths: list[Path]) -> list[Path]:
    """Return the files named, and for a folder those images that lie in it, sorted by name.

    Raises:
        SkinlesionError: if a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES]
        if not inside:
            raise SkinlesionError(f"{path} holds no image ({', '.join(SUFFIXES)}).")
        found += sorted(inside)
    return found


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SkinlesionError(
                f"{path}: {path.stat().st_size / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f}."
            )
        return path.read_bytes()
    except OSError as error:
        raise SkinlesionError(f"{path} cannot be read: {error.strerror or error}") from None


def _upright(image: Any) -> np.ndarray:
    # A phone keeps a picture as the sensor lay and notes beside it how to turn it.
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
