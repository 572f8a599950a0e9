"""Every image decoded once, into one memory-mapped uint8 array at the working size.

A cache is named by what it was made from, so that a changed source or size makes another; it is
built beside and renamed, so that a crash leaves none.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock
from tqdm.contrib.concurrent import thread_map

from skinlesion.data.archive import ImageArchive
from skinlesion.data.pixels import to_square
from skinlesion.errors import SkinlesionError, listing

T = TypeVar("T")
R = TypeVar("R")
VERSION = 2  # of the way from file to pixels
NAMED = 20  # images that cannot be decoded, before the rest is only counted
ELSEWHERE = "Make room, or name another folder: machine.cache=<folder> or SKINLESION_CACHE."


class ImageCache(NamedTuple):
    """Decoded images (N, S, S, C) uint8, mapped from disk: the i-th is the i-th asked for.

    `digest` is the SHA-256 of the files' content, the same for zips and folders.
    """

    images: np.ndarray
    digest: str


def cache_path(folder: Path, archive: ImageArchive, image_ids: Iterable[str], size: int) -> Path:
    """Return where the cache of these images at this size is, or will be."""
    return folder / f"{size}-v{VERSION}-{archive.fingerprint(image_ids)[:16]}"


def open_cache(
    folder: Path, archive: ImageArchive, image_ids: Sequence[str], size: int
) -> ImageCache:
    """Open the cache of these images at `size` pixels square, building it at the first use.

    A SkinlesionError if images cannot be decoded, or the cache cannot be written.
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


def in_threads(
    work: Callable[[T], R], items: Sequence[T], what: str, unit: str, bar: bool = True
) -> list[R]:
    """Return what `work` makes of each item; Ctrl-C leaves what waits undone."""
    shown: Any = {"desc": what, "unit": unit, "disable": not bar or None}
    return thread_map(work, items, max_workers=os.cpu_count(), **shown)


def _build(path: Path, archive: ImageArchive, image_ids: Sequence[str], size: int) -> None:
    shape = (len(image_ids), size, size, archive.channels)
    building = path.with_name(f"{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # what a killed process left
    needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
    if free < needed:
        raise SkinlesionError(
            f"the image cache needs {needed / 1e9:.1f} GB in {path.parent}, where "
            f"{free / 1e9:.1f} GB are free. {ELSEWHERE}"
        )
    building.mkdir()
    try:
        images = np.lib.format.open_memmap(
            building / "images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        if hasattr(os, "posix_fallocate"):
            # A disk that fills up is then an error here and not a signal while decoding.
            with (building / "images.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, images.nbytes)
        digest = _decode_all(images, archive, image_ids, size)
        images.flush()
        meta = {"digest": digest, "images": len(image_ids), "size": size}
        (building / "meta.json").write_text(json.dumps(meta))
        os.replace(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _decode_all(
    images: np.ndarray, archive: ImageArchive, image_ids: Sequence[str], size: int
) -> str:
    """Fill the rows in parallel; return the digest of the files' content."""

    def one(row: int) -> int | str:
        try:
            image, checksum = archive.pixels(image_ids[row])
            images[row] = to_square(image, size)
        except SkinlesionError as error:
            return f"{image_ids[row]} ({error})"
        return checksum

    found = in_threads(one, range(len(image_ids)), f"decoding at {size} px", "img")
    if broken := [result for result in found if isinstance(result, str)]:
        raise SkinlesionError(
            f"{archive.root}: {len(broken)} of {len(found)} images cannot be decoded: "
            f"{listing(broken, NAMED)}. Fetch them again (make data) or take their rows out of "
            "the metadata table."
        )
    digest = hashlib.sha256()
    for image_id, checksum in zip(image_ids, found, strict=True):
        digest.update(f"{image_id} {checksum}\n".encode())
    return digest.hexdigest()
