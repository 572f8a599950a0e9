"""Every image decoded once into one memory-mapped uint8 array at the working size.

Centre crop to a square, then bilinear without antialiasing: what the authors' `smart_resize` does.
A cache is named by what it was made from, so that a changed source or size makes another; it is
built beside and renamed, so that a crash leaves none.
"""

import hashlib
import io
import json
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from skinlesion.data.archive import READ_ERRORS, ImageArchive, in_parallel
from skinlesion.errors import SkinlesionError, listing

VERSION = 1  # of the way from file to pixels
DECODE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
ELSEWHERE = "Make room, or name another folder: machine.cache=<folder> or SKINLESION_CACHE."


@dataclass(frozen=True)
class ImageCache:
    """Decoded images.

    Attributes:
        images: (N, S, S, 3) uint8, RGB, mapped from disk; row i is the i-th image id asked for.
        digest: SHA-256 of the files' content, the same for zips and folders.
    """

    images: np.ndarray
    digest: str


def cache_path(folder: Path, archive: ImageArchive, image_ids: Sequence[str], size: int) -> Path:
    """Return where the cache of these images at this size is, or will be."""
    return folder / f"{size}-v{VERSION}-{archive.fingerprint(image_ids)[:16]}"


def open_cache(
    folder: Path, archive: ImageArchive, image_ids: Sequence[str], size: int
) -> ImageCache:
    """Open the cache of these images, building it at the first use.

    Args:
        folder: where caches are kept; created if need be.
        archive: the images.
        image_ids: which images, in the order of the cache's rows.
        size: height and width of a cached image, in pixels.

    Raises:
        SkinlesionError: if images cannot be decoded (all of them are named), or the cache cannot
            be written.
    """
    path = cache_path(folder, archive, image_ids, size)
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A second process waits here and then finds the cache; a crash frees the lock.
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _build(path, archive, image_ids, size)
        except OSError as error:
            raise SkinlesionError(
                f"the image cache cannot be written in {folder} ({error}). {ELSEWHERE}"
            ) from error
    meta = json.loads((path / "meta.json").read_text())
    return ImageCache(np.load(path / "images.npy", mmap_mode="r"), meta["digest"])


def decode(data: bytes, size: int) -> np.ndarray:
    """Return a JPEG or PNG as (size, size, 3) uint8: centre crop to a square, then bilinear.

    Raises:
        DECODE_ERRORS: if the file is damaged, or a PNG of 16 bits a channel and one channel.
    """
    return to_square(np.asarray(as_rgb(data)), size)


def as_rgb(data: bytes) -> Image.Image:
    """Return a JPEG or PNG as a picture in RGB; transparency is ignored.

    Raises:
        DECODE_ERRORS: see `decode`.
    """
    image = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
    if image.mode.startswith("I"):  # Pillow would cut its values off at 255
        raise ValueError(f"a PNG of mode {image.mode}: expected 8 bits a channel")
    return image.convert("RGB")


def to_square(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 as (size, size, 3): centre crop, then bilinear."""
    import torch

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(image[top : top + side, left : left + side].copy())
    resized = torch.nn.functional.interpolate(
        square.permute(2, 0, 1)[None].float(), size=(size, size), mode="bilinear"
    )  # (1, 3, size, size)
    return resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def _build(path: Path, archive: ImageArchive, image_ids: Sequence[str], size: int) -> None:
    shape = (len(image_ids), size, size, 3)
    building = path.with_name(f"{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # what a killed process left
    _check_space(path.parent, math.prod(shape))
    building.mkdir()
    try:
        images = np.lib.format.open_memmap(
            building / "images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        if hasattr(os, "posix_fallocate"):
            # A disk that fills up is then an error here and not a signal while decoding.
            with (building / "images.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, images.nbytes)
        checksums, broken = _decode_all(images, archive, image_ids, size)
        if broken:
            raise SkinlesionError(
                f"{archive.root}: {len(broken)} of {len(image_ids)} images cannot be decoded: "
                f"{listing(broken)}. Fetch them again (make data) or take their rows out of the "
                "metadata table."
            )
        images.flush()
        meta = {"digest": checksums, "images": len(image_ids), "size": size}
        (building / "meta.json").write_text(json.dumps(meta))
        os.replace(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _decode_all(
    images: np.ndarray, archive: ImageArchive, image_ids: Sequence[str], size: int
) -> tuple[str, list[str]]:
    """Fill the rows in parallel; return the content's digest and the images that are broken."""

    def one(row: int) -> int | str:
        try:
            data = archive.read(image_ids[row])
            images[row] = decode(data, size)
        except (*READ_ERRORS, *DECODE_ERRORS) as error:
            return f"{image_ids[row]} ({error})"
        return zlib.crc32(data)

    digest, broken = hashlib.sha256(), []
    found = in_parallel(one, range(len(image_ids)), f"decoding at {size} px")
    for image_id, result in zip(image_ids, found, strict=True):
        if isinstance(result, str):
            broken.append(result)
        else:
            digest.update(f"{image_id} {result}\n".encode())
    return digest.hexdigest(), broken


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SkinlesionError(
            f"the image cache needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB "
            f"are free. {ELSEWHERE}"
        )
