"""The images, wherever people keep them: in folders, or in HAM10000's two zips."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tqdm import tqdm

from skinlesion.errors import SkinlesionError

PARTS = "HAM10000_images_part_"
SUFFIXES = (".jpg", ".jpeg", ".png")
# A RuntimeError is a zip's encryption, or a compression that Python does not know.
READ_ERRORS = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
ENDS = (  # first and last bytes of a JPEG and of a PNG
    (b"\xff\xd8", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"),
)

T = TypeVar("T")
R = TypeVar("R")

WAYS = """There are four ways to get data:
  make data                               downloads HAM10000 (3 GB) into data/ham10000
  machine.data=<folder>, or HAM10000_ROOT    uses a copy that you have
  data=demo                               draws a small set, without a download
  data=<name>                             your own table and images: docs/own-data.md"""


@dataclass(frozen=True)
class _Entry:
    container: Path  # the zip, or the folder
    name: str
    size: int
    stamp: int  # CRC-32 in a zip, modification time in a folder


class ImageArchive:
    """JPEGs and PNGs by image id, in zips or folders.

    Looks for images in `root`, in its folders, and in its `HAM10000_images_part_*.zip`.

    Args:
        root: folder of the archive.

    Attributes:
        ambiguous: image id → its files, where there are two that differ, as a mask and its image.

    Raises:
        SkinlesionError: if there is no such folder, or a zip in it is damaged.
    """

    def __init__(self, root: Path) -> None:
        """List the images; nothing is decoded."""
        if not root.is_dir():
            raise SkinlesionError(f"machine.data={root}: no such folder.\n{WAYS}")
        self.root = root
        self._zips: dict[Path, zipfile.ZipFile] = {}
        self._entries: dict[str, _Entry] = {}
        self.ambiguous: dict[str, str] = {}
        for path in sorted(root.glob(f"{PARTS}*.zip")):
            self._add_zip(path)
        for folder in (*sorted(path for path in root.iterdir() if path.is_dir()), root):
            self._add_folder(folder)

    def _add_zip(self, path: Path) -> None:
        try:
            self._zips[path] = archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise SkinlesionError(
                f"{path} cannot be read as a zip ({error}); its download probably broke off. "
                "Remove it and fetch it again (make data)."
            ) from None
        for info in archive.infolist():
            self._add(path, info.filename, info.file_size, info.CRC)

    def _add_folder(self, folder: Path) -> None:
        with os.scandir(folder) as files:
            for file in files:
                if file.name.lower().endswith(SUFFIXES) and file.is_file():
                    stat = file.stat()
                    self._add(folder, file.name, stat.st_size, stat.st_mtime_ns)

    def _add(self, container: Path, name: str, size: int, stamp: int) -> None:
        path = PurePosixPath(name)
        # A Mac leaves `._ISIC_0024306.jpg` beside each image.
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            entry = _Entry(container, name, size, stamp)
            before = self._entries.setdefault(path.stem, entry)
            if before.size != size:
                files = [Path(e.container.name, e.name) for e in (before, entry)]
                self.ambiguous[path.stem] = " and ".join(map(str, files))
            self._entries[path.stem] = entry

    def __contains__(self, image_id: object) -> bool:
        """Return whether there is an image of this id."""
        return image_id in self._entries

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._entries)

    def read(self, image_id: str) -> bytes:
        """Return the bytes of an image; safe to call from several threads.

        Raises:
            READ_ERRORS: if the file cannot be read or fails its zip's checksum.
        """
        entry = self._entries[image_id]
        if archive := self._zips.get(entry.container):
            return archive.read(entry.name)
        return (entry.container / entry.name).read_bytes()

    def fingerprint(self, image_ids: Iterable[str]) -> str:
        """Return a digest that changes when one of these files does, without reading them."""
        digest = hashlib.sha256()
        for image_id in image_ids:
            entry = self._entries[image_id]
            digest.update(f"{image_id} {entry.size} {entry.stamp}\n".encode())
        return digest.hexdigest()

    def broken(self, image_ids: Sequence[str]) -> list[str]:
        """Return the images that are no whole JPEG or PNG, judged by their first and last bytes."""

        def whole(image_id: str) -> bool:
            try:
                data = self.read(image_id)
            except READ_ERRORS:
                return False
            return any(data.startswith(start) and end in data[-1024:] for start, end in ENDS)

        checked = in_parallel(whole, image_ids, "checking images")
        return [image_id for image_id, ok in zip(image_ids, checked, strict=True) if not ok]


def in_parallel(function: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R]:
    """Yield the function's results in order, from a thread a core, with a progress bar."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield from tqdm(pool.map(function, items), what, len(items), unit="img", disable=None)
    finally:
        pool.shutdown(cancel_futures=True)
