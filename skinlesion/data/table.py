"""The metadata table: one row per image, checked on reading, under names of our own."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.archive import OF_MASK, WAYS, ImageArchive, image_name
from skinlesion.data.encoding import UNKNOWN, Number, matching
from skinlesion.data.schema import Schema
from skinlesion.errors import SkinlesionError, listing
from skinlesion.files import read_rows

ENDINGS = (".csv", "", ".tab", ".tsv", ".zip")
FEWEST_LESIONS = 4  # of a class in a subset: enough for three parts

log = logging.getLogger(__name__)


def read_table(archive: ImageArchive, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
    """Read and check the metadata of an archive.

    Returns:
        The rows that nothing is wrong with, sorted by image id, with the columns lesion_id,
        image_id, dx (one of the classes) and one for each property (a number is float, NaN where
        missing; a category is text, `unknown` where missing); and what is wrong, a sentence each.

    Raises:
        SkinlesionError: if there is no table, it cannot be read, or columns are missing.
    """
    columns = schema.columns
    paths = find_tables(archive.root, schema.tables)
    cells, repeated, problems = join_tables(paths, columns.image, schema.wanted)
    image_id = cells[columns.image]
    lesion_id = image_id if columns.lesion is None else known_lesions(cells[columns.lesion])
    if columns.lesion_missing == "own":
        lesion_id = lesion_id.fillna(image_id)
    label, written_label, not_a_label = _labels(cells, schema)
    frame = pd.DataFrame({"lesion_id": lesion_id, "image_id": image_id, "dx": label})
    bad = image_id.isin(repeated)

    def showing(written: pd.Series) -> pd.Series:
        return image_id + " (" + written.astype(object).fillna("none") + ")"

    def fault(rows: pd.Series, what: str, named: pd.Series = image_id) -> None:
        nonlocal bad
        if rows.any():
            problems.append(f"{what}: {_printed(named[rows])}")
            bad |= rows

    fault(
        lesion_id.isna(),
        f"images without {columns.lesion} (data.columns.lesion_missing=own takes each of them for "
        "a lesion of its own)",
    )
    ids = image_id + " of lesion " + lesion_id.fillna("none")
    fault(~ids.map(str.isprintable).astype(bool), "ids that do not print", ids)
    fault(label.isna(), not_a_label, showing(written_label))
    for name, known in schema.untrained.items():
        written = cells[schema.properties[name].column or name]
        meaning: dict[str, Any] = {}
        for text in written.dropna().unique():
            with suppress(SkinlesionError):
                meaning[text] = known.read(name, text)
        meant = written.map(meaning).astype(object)
        unclear = written.notna() & ~written.isin([*meaning])
        if isinstance(known, Number):
            what = f"{name} that is no number from {known.low:g} to {known.high:g}"
            fault(unclear, what, showing(written))
            frame[name] = meant.astype(float)
        else:
            frame[name] = meant.fillna(written.str.lower()).fillna(UNKNOWN)
            counts = written[unclear].str.lower().value_counts()
            if counts.size:
                log.warning(
                    "data.properties.%s.values does not have what these images have, which is "
                    "encoded like a value that training has not seen: %s",
                    *(name, _printed([f"{value} ({n:,})" for value, n in counts.items()], 12)),
                )
    labels = frame.groupby("lesion_id")["dx"].transform("nunique")
    fault(labels > 1, "lesions of two classes", lesion_id)
    on_disk = image_id.isin([*archive.ids])
    fault(~on_disk, "images in the table that are not on disk")
    files = image_id.map(archive.ambiguous)
    fault(files.notna(), "images of which there are two files that differ", showing(files))
    if archive.region:
        masked = image_id.map(OF_MASK.format).isin([*archive.ids])
        what = "images without a mask (<image>_segmentation.png; make data ARGS=--masks)"
        fault(on_disk & ~masked, what)
    if not archive.ids:
        problems.append(f"there is no JPEG, PNG or WebP in {archive.root} at all.\n{WAYS}")
    return frame[~bad].sort_values("image_id", ignore_index=True), problems


def subset(frame: pd.DataFrame, images: int, seed: int) -> pd.DataFrame:
    """Return about `images` images: whole lesions, drawn at random by class.

    Every class keeps at least four lesions, so that it can be in every part of a split.
    """
    if images >= len(frame):
        return frame
    rng = np.random.default_rng(seed)
    kept: list[str] = []
    for _, rows in frame.groupby("dx", sort=True):
        lesions = rows["lesion_id"].unique()
        wanted = max(FEWEST_LESIONS, round(len(lesions) * images / len(frame)))
        kept.extend(rng.permutation(lesions)[:wanted])
    return frame[frame["lesion_id"].isin(kept)].reset_index(drop=True)


def table_digest(frame: pd.DataFrame) -> str:
    """Return a SHA-256 of the content of a table of `read_table`, whatever file it came from."""
    text = frame.to_csv(index=False, float_format="%g", lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def find_tables(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the files of the tables; a SkinlesionError names one that is missing."""
    found = []
    for name in names:
        whole = name.lower().endswith(tuple(filter(None, ENDINGS)))
        choices = [name] if whole else [f"{name}{ending}" for ending in ENDINGS]
        there = [root / choice for choice in choices if (root / choice).is_file()]
        if not there:
            from skinlesion.data.describe import named_elsewhere

            present = sorted(root.iterdir())
            raise SkinlesionError(
                f"{root}: no metadata table. Expected one of {', '.join(choices)}; "
                f"found: {listing([path.name for path in present]) or 'an empty folder'}."
                f"{named_elsewhere([path.stem for path in present], names)}\n{WAYS}"
            )
        found.append(there[0])
    return found


def join_tables(
    paths: Sequence[Path], image: str, wanted: Sequence[str]
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Read tables and join them by the column `image`, which each has.

    Each of the other columns `wanted` is in one of the tables; capitals do not count.

    Returns:
        The columns asked for, a row for each image that is in every table, as text, NaN where a
        cell is empty; the images that are in one of them twice; and what is wrong, a sentence each.

    Raises:
        SkinlesionError: if a file is no table, a column is missing, or in two of them.
    """
    every, expected = ", ".join(map(str, paths)), [*dict.fromkeys((*wanted, image))]
    folded = {name.casefold(): name for name in expected}
    tables = [
        read_cells(path).rename(columns=lambda name: folded.get(name.casefold(), name))
        for path in paths
    ]
    found = [*dict.fromkeys(str(name) for cells in tables for name in cells)]
    if missing := [name for name in expected if name not in found]:
        from skinlesion.data.describe import named_elsewhere

        raise SkinlesionError(
            f"{every}: columns missing: {', '.join(missing)}. Found: {_printed(found, 12)}. "
            f"Expected at least: {', '.join(expected)}; data.classes, data.columns and "
            f"data.properties say what they are called.{named_elsewhere(found, expected)}"
        )
    problems: list[str] = []
    parts: list[pd.DataFrame] = []
    repeated: list[Any] = []
    for path, cells in zip(paths, tables, strict=True):
        if image not in cells:
            raise SkinlesionError(
                f"{path}: no column {image}, by which the tables are joined. Found: "
                f"{_printed(map(str, cells), 12)}."
            )
        where = f"{path.name}: " if len(paths) > 1 else ""
        if (unnamed := cells.index[cells[image].isna()]).size:
            problems.append(f"{where}rows without {image}: line {listing(list(unnamed))}")
        cells = cells[cells[image].notna()]
        own = cells[[name for name in expected if name in cells and name != image]]
        own = own.set_index(cells[image].map(image_name))
        if again := [*own.index[own.index.duplicated()]]:
            problems.append(f"{where}duplicate image ids: {_printed(again)}")
            repeated += again
        parts.append(own[~own.index.duplicated()])
    columns = Counter(name for own in parts for name in own.columns)
    if shared := [name for name, count in columns.items() if count > 1]:
        raise SkinlesionError(
            f"{every}: {', '.join(shared)} in more than one table. Tables are joined by the column "
            f"{image} and not put below each other: expected each column in one of them."
        )
    joined = pd.concat(parts, axis=1, join="inner")
    joined[image] = joined.index
    if partial := [name for own in parts for name in own.index if name not in joined.index]:
        names = ", ".join(path.name for path in paths)
        problems.append(f"images that are not in each of {names}: {_printed(partial)}")
    return joined.reset_index(drop=True), repeated, problems


def read_cells(path: Path) -> pd.DataFrame:
    """Return what `read_rows` does, NaN where a cell is empty; the index is each row's line."""
    names, rows = read_rows(path)
    return pd.DataFrame(
        [[np.nan if cell is None else cell for cell in row] for row in rows.values()],
        index=[*rows],
        columns=names,
        dtype=object,
    )


def known_lesions(written: pd.Series) -> pd.Series:
    """Return the lesions that a column names, NaN where it says that they are `unknown`."""
    return written.mask(written.str.casefold() == UNKNOWN)


def _printed(texts: Iterable[str], shown: int = 5) -> str:
    """Return the first few different texts, escaped where a terminal would not print them."""
    every = dict.fromkeys(text if text.isprintable() else ascii(text) for text in texts)
    return listing([*every], shown)


def _labels(cells: pd.DataFrame, schema: Schema) -> tuple[pd.Series, pd.Series, str]:
    """Return each row's class, what is written there, and what rows of none are."""
    classes = list(schema.classes)
    if schema.columns.label is not None:
        written = cells[schema.columns.label]
        meant = {text: matching(text, classes) for text in written.dropna().unique()}
        what = f"{schema.columns.label} other than {', '.join(classes)}"
        return written.map(meant).astype(object), written, what
    marks = cells[classes].apply(pd.to_numeric, errors="coerce")
    one = marks.isin([0, 1]).all(axis=1) & (marks.sum(axis=1) == 1)
    written = cells[classes].fillna("blank").agg(", ".join, axis=1)
    what = f"rows in which not exactly one of {', '.join(classes)} is 1 and the others are 0"
    return marks.eq(1).idxmax(axis=1).where(one), written, what
