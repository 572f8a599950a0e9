"""Files are written whole or not at all, and tables have one reader."""

import csv
import io
import logging
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize
from zipfile import BadZipFile, ZipFile

from skinlesion.errors import SkinlesionError, listing

TEMPORARY = ".tmp"  # how the names of files end that are being written
ABANDONED = 3600  # seconds after which a folder beside was left by a process that was killed
SEPARATORS = ",;\t"
EMPTY = {  # a cell that says nothing, as pandas reads it
    *("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "#N/A N/A", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}
PANDAS_INDEX = re.compile(r"|Unnamed: [\d.]+")

log = logging.getLogger(__name__)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move it there once the block has succeeded.

    A reader sees the old file or the new one, never a half-written one, also after a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a full disk does not say of which file
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, ours: set[str]) -> Iterator[Path]:
    """Yield a folder beside, and put it in the place of this one once the block has succeeded.

    What lies in the old one, other than `ours`, is kept. Whatever happens, nothing is left beside.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        for path in folder.iterdir() if folder.exists() else ():
            if path.name not in ours:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise


def read_rows(path: Path) -> tuple[list[str], dict[int, list[str | None]]]:
    """Return a table's names of columns, and by the line in the file each row's cells.

    Cells are separated by comma, semicolon or tab. The text is UTF-8, UTF-16 or, with a warning,
    Windows-1252. Spaces around cells and names do not count, nor does the index that pandas writes
    as a column. A cell that is EMPTY is None. A `.zip` is the CSV in it.

    Raises:
        SkinlesionError: if the file is no table, names of columns repeat, or a row would be lost or
            shifted.
    """
    try:
        text = _text(path)
        first = next(iter(text.lstrip("\r\n").splitlines()), "")
        widths = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in SEPARATORS}
        (_, names), *rows = _records(text, max(SEPARATORS, key=lambda mark: widths[mark]))
    except (OSError, ValueError, RuntimeError, csv.Error, BadZipFile) as error:  # Unicode's, zip's
        raise SkinlesionError(f"{path} cannot be read as a table: {error}") from None
    kept = [i for i, name in enumerate(names) if not PANDAS_INDEX.fullmatch(name)]
    cells = {line: [None if row[i] in EMPTY else row[i] for i in kept] for line, row in rows}
    return [names[i] for i in kept], cells


def distinct(names: list[str]) -> list[str]:
    """Return names that differ, and not in capitals alone; a ValueError says which do not."""
    counts = Counter(name.casefold() for name in names)
    if twice := [name for name in dict.fromkeys(names) if counts[name.casefold()] > 1]:
        expected = "expected names that differ, and not in capitals alone"
        raise ValueError(f"{listing(twice)} more than once; {expected}")
    return names


def _text(path: Path) -> str:
    data = _unzipped(path) if path.suffix.lower() == ".zip" else path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16")
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("cp1252")
            log.warning("%s is no UTF-8 and is read as Windows-1252", path)
    if "\0" in text:
        raise ValueError("it holds NUL characters: expected text, such as a spreadsheet's CSV")
    return normalize("NFC", text.lstrip("\ufeff"))


def _unzipped(path: Path) -> bytes:
    with ZipFile(path) as file:
        names = [name for name in file.namelist() if name.endswith(".csv") and "/." not in name]
        if len(names) != 1:
            raise ValueError(f"it holds {listing(names) or 'no CSV'}, expected one CSV")
        return file.read(names[0])


def _records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Return the header and the rows, of as many cells each, with the line that each begins at."""
    lines = [*io.StringIO(text, newline="")]
    reader = csv.reader(lines, delimiter=separator, strict=True)
    found: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            width = len(found[0][1]) if found else len(cells)
            if any(cells[width:]):
                raise ValueError(f"{len(cells)} cells under a header of {width}")
            # A note may have several lines, but not when the first and another could be rows.
            first, *further = (each.count(separator) for each in lines[line - 1 : reader.line_num])
            if further and not found:
                raise ValueError("a column's name goes on below: a stray quote, or a line break")
            if further and min(first, max(further)) >= width - 1:
                raise ValueError(f"a stray quote makes one cell of it up to {reader.line_num}")
            if len(cells) > 1 or any(cells):  # no blank line
                found.append((line, (cells + [""] * width)[:width]))
            line = reader.line_num + 1
    except (csv.Error, ValueError) as error:
        raise ValueError(f"line {line}: {error}") from None
    if not found or not distinct([name for name in found[0][1] if name]):
        raise ValueError("it is empty")
    return found
