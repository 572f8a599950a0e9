"""The images, wherever people keep them: in folders, or in the zips of HAM10000 and ISIC 2018."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize
from zipfile import ZIP_DEFLATED, ZIP_STORED

import numpy as np

from skinlesion.data.pixels import MOST_BYTES, SUFFIXES, check_size, decode, read_file
from skinlesion.errors import SkinlesionError

if TYPE_CHECKING:
    from skinlesion.data.schema import Region

ZIPS = ("HAM10000_images_part_*.zip", "ISIC2018_Task3_Test_*.zip")
MASKS, OF_MASK = "HAM10000_segmentations_lesion_tschandl.zip", "{}_segmentation"
# A RuntimeError is a zip's encryption, or a compression that Python does not know.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)

WAYS = """There are four ways to get data:
  make data                               downloads HAM10000 (3 GB) into data/ham10000
  machine.data=<folder>, HAM10000_ROOT    uses a copy that you have
  data=demo                               draws a small set, without a download
  data=<name>                             your own table and images: docs/own-data.md"""


class _Entry(NamedTuple):
    container: Path  # the zip, or the folder
    name: str
    size: int
    stamp: int  # CRC-32 in a zip, modification time in a folder

    def __str__(self) -> str:
        return f"{self.container.name}/{self.name}"


class ImageArchive:
    """JPEGs, PNGs and WebPs by image id, in zips or folders.

    Looks for images in the folder `root`, in its folders, and in its `ZIPS`; for the lesions' masks
    (`<image id>_segmentation.png`) there and in HAM10000's zip of them. The `region` is what of
    each image is shown, by its mask; None for all of it.

    Attributes:
        ids: of the images.
        ambiguous: image id → its files, where there are two that differ, as a mask and its image;
            those of one size are compared when they are read.

    Raises:
        SkinlesionError: if there is no such folder, or a zip in it is damaged.
    """

    def __init__(self, root: Path, region: "Region | None" = None) -> None:
        if not root.is_dir():
            raise SkinlesionError(f"machine.data={root}: no such folder.\n{WAYS}")
        self.root, self.region = root, region
        self._zips: dict[Path, zipfile.ZipFile] = {}
        self._entries: dict[str, list[_Entry]] = {}
        self.ids = self._entries.keys()
        self.ambiguous: dict[str, str] = {}
        patterns = (*ZIPS, MASKS) if region else ZIPS
        for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
            self._open_zip(path)
        for folder in (*sorted(path for path in root.iterdir() if path.is_dir()), root):
            with os.scandir(folder) as files:
                for file in files:
                    if is_image(file.name) and os.path.isfile(file):
                        stat = file.stat()
                        self._add(_Entry(folder, file.name, stat.st_size, stat.st_mtime_ns))

    def _open_zip(self, path: Path) -> None:
        try:
            self._zips[path] = archive = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise SkinlesionError(
                f"{path} cannot be read as a zip ({error}). If its download broke off, remove it "
                "and fetch it again (make data)."
            ) from None
        for info in archive.infolist():
            if is_image(info.filename):
                self._add(_Entry(path, info.filename, info.file_size, info.CRC))

    def _add(self, entry: _Entry) -> None:
        image_id = image_name(entry.name)
        copies = self._entries.setdefault(image_id, [])
        for other in copies:
            zipped = {other.container, entry.container} <= self._zips.keys()
            if other.size != entry.size or (zipped and other.stamp != entry.stamp):
                self.ambiguous[image_id] = f"{other} and {entry}"
        copies.append(entry)

    def borrow(self, other: "ImageArchive", image_ids: Iterable[str]) -> None:
        """Read these images from another archive."""
        self._zips |= other._zips
        self._entries |= {name: other._entries[name] for name in image_ids}

    @property
    def channels(self) -> int:
        """C of `pixels`: red, green, blue, and perhaps the mask."""
        return 4 if self.region == "fourth_channel" else 3

    def read(self, image_id: str) -> bytes:
        """Return the bytes of an image; safe to call from several threads.

        A SkinlesionError says why they cannot be had; of which image, the caller knows.
        """
        if image_id not in self._entries:
            raise SkinlesionError("no such image")
        *copies, entry = self._entries[image_id]
        data = self._read(entry)
        for other in copies:
            if self._read(other) != data:
                raise SkinlesionError(f"{other} and {entry} differ")
        return data

    def pixels(self, image_id: str) -> tuple[np.ndarray, int]:
        """Return what is shown of an image, (H, W, C) uint8, and its files' CRC-32; as `read`."""
        data = self.read(image_id)
        image, checksum = decode(data), zlib.crc32(data)
        if self.region is None:
            return image, checksum
        from skinlesion.data.region import keep_region

        data = self.read(OF_MASK.format(image_id))
        mask = decode(data)[..., 0] > 127
        return keep_region(image, mask, self.region), zlib.crc32(data, checksum)

    def _read(self, entry: _Entry) -> bytes:
        if (archive := self._zips.get(entry.container)) is None:
            return read_file(entry.container / entry.name)
        check_size(entry.size)
        try:
            # What zipfile gives of others at a time has no limit.
            if archive.getinfo(entry.name).compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                raise SkinlesionError("cannot be read: compressed, and not by Deflate")
            with archive.open(entry.name) as file:
                # All at once, a member that says it is small could fill the memory.
                return file.read(MOST_BYTES + 1)
        except UNREADABLE as error:
            raise SkinlesionError(f"cannot be read: {error}") from None

    def fingerprint(self, image_ids: Iterable[str]) -> str:
        """Return a digest that changes when one of these files does, without reading them.

        Where a part of the images is shown, it is the digest of that part and of the masks too.
        """
        digest = hashlib.sha256((self.region or "").encode())
        if self.region:
            image_ids = [name for one in image_ids for name in (one, OF_MASK.format(one))]
        for image_id in image_ids:
            entry = self._entries[image_id][-1]
            digest.update(f"{image_id} {entry.size} {entry.stamp}\n".encode())
        return digest.hexdigest()


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name; a Mac leaves a `._x.jpg` beside each."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def image_name(text: str) -> str:
    """Return the image that an id, a file's name or a path means: its name without the ending.

    A name counts the same whether its accents are characters of their own (as on a Mac) or not.
    """
    name = normalize("NFC", text).replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending}".lower() in SUFFIXES else name
