"""The metadata table: one row per image, checked on reading, under names of our own."""

import csv
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.archive import SUFFIXES, WAYS, ImageArchive
from skinlesion.data.schema import UNKNOWN, Range, Schema, matching
from skinlesion.errors import SkinlesionError, listing

ENDINGS = (".csv", "", ".tab", ".tsv")
FEWEST_LESIONS = 4  # of a class in a subset: enough for three parts

log = logging.getLogger(__name__)


def read_table(archive: ImageArchive, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
    """Read and check the metadata of an archive.

    Values of a category that the schema does not declare are kept, with a warning: they are encoded
    like values that training has not seen.

    Returns:
        The table, sorted by image id, with the columns lesion_id, image_id, dx (one of the classes)
        and one for each property (a number is float, NaN where missing; a category is `unknown`
        where missing); and what is wrong with it, a sentence each. The table holds only rows that
        nothing is wrong with.

    Raises:
        SkinlesionError: if there is no table, it cannot be read, or columns are missing.
    """
    cells, problems = _cells(archive.root, schema)
    image_id = cells[schema.image]
    lesion_id = image_id if schema.lesion is None else cells[schema.lesion]
    if schema.lesion_missing == "own":
        lesion_id = lesion_id.fillna(image_id)
    label, written_label, not_a_label = _labels(cells, schema)
    frame = pd.DataFrame({"lesion_id": lesion_id, "image_id": image_id, "dx": label})

    where = image_id.fillna("line " + (cells.index.to_series() + 2).astype(str))
    partial = cells["_tables"] < len(schema.tables)
    bad = partial.copy()

    def showing(written: pd.Series) -> pd.Series:
        return where + " (" + written.astype(object).fillna("none") + ")"

    def report(rows: pd.Series, what: str, named: pd.Series = where) -> None:
        nonlocal bad
        # Of an image that is in one table only, not what follows from it too.
        if (rows & ~partial).any():
            problems.append(f"{what}: {listing(list(dict.fromkeys(named[rows & ~partial])))}")
            bad |= rows

    if partial.any():
        images = listing(where[partial].tolist())
        problems.append(f"images that are not in each of {', '.join(schema.tables)}: {images}")
    no_id = image_id.isna()
    report(no_id, f"rows without {schema.image}")
    report(
        lesion_id.isna() & ~no_id,
        f"images without {schema.lesion} (data.columns.lesion_missing=own takes each of them for a "
        "lesion of its own)",
    )
    no_id |= lesion_id.isna()
    report(image_id.duplicated(keep=False) & ~no_id, "duplicate image ids")
    report(label.isna(), not_a_label, showing(written_label))
    for name, declared in schema.properties.items():
        written = cells[declared.column]
        if isinstance(declared, Range):
            number = pd.to_numeric(written, errors="coerce").astype(float)
            what = f"{name} that is no number from {declared.low:g} to {declared.high:g}"
            fits = number.between(declared.low, declared.high)
            report(written.notna() & ~fits, what, showing(written))
            frame[name] = number
        else:
            meant = _meant(written, declared.values)
            frame[name] = meant.fillna(written.str.lower()).fillna(UNKNOWN)
    labels = frame.groupby("lesion_id")["dx"].transform("nunique")
    report((labels > 1) & ~no_id, "lesions of two classes", lesion_id)
    on_disk = image_id.map(lambda name: name in archive).astype(bool)
    report(~on_disk & ~no_id, "images in the table that are not on disk")
    report(
        image_id.isin(archive.ambiguous),
        "images of which there are two files that differ",
        showing(image_id.map(archive.ambiguous)),
    )
    if len(archive) == 0:
        problems.append(f"there is no JPEG or PNG in {archive.root} at all.\n{WAYS}")
    _warn_of_undeclared(frame[~bad], schema)
    return frame[~bad].sort_values("image_id", ignore_index=True), problems


def subset(frame: pd.DataFrame, images: int, seed: int) -> pd.DataFrame:
    """Return about `images` images: whole lesions, drawn at random by class.

    Every class keeps at least four lesions, so that it can be in every part of a split.

    Raises:
        SkinlesionError: if `images` is not positive.
    """
    if not isinstance(images, int) or images < 1:
        raise SkinlesionError(f"data.limit={images}: expected a positive number of images or null.")
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


def image_name(text: str) -> str:
    """Return the name of an image without the ending of its file."""
    stem, dot, ending = text.rpartition(".")
    return stem if dot and f".{ending}".lower() in SUFFIXES else text


def find_tables(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the files of the tables.

    Raises:
        SkinlesionError: if one is missing.
    """
    found = []
    for name in names:
        whole = name.lower().endswith(tuple(filter(None, ENDINGS)))
        choices = [name] if whole else [f"{name}{ending}" for ending in ENDINGS]
        there = [root / choice for choice in choices if (root / choice).is_file()]
        if not there:
            present = listing(sorted(path.name for path in root.iterdir())) or "an empty folder"
            raise SkinlesionError(
                f"machine.data={root}: no metadata table. Expected one of {', '.join(choices)}; "
                f"found: {present}.\n{WAYS}"
            )
        found.append(there[0])
    return found


def read_cells(path: Path) -> pd.DataFrame:
    """Return a table's cells as text, without spaces around them; an empty one is NaN.

    Raises:
        SkinlesionError: if the file is no table.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = "\t" if "\t" in file.readline() else ","
        # Without index_col, a row that is too long would shift the columns.
        frame = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError, csv.Error) as error:  # pandas' and Unicode's are ValueErrors
        raise SkinlesionError(f"{path} cannot be read as a table: {error}") from None
    return frame.rename(columns=str.strip).apply(lambda c: c.str.strip()).replace("", np.nan)


def join_tables(
    paths: Sequence[Path], image: str, wanted: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return columns of tables that are joined by the image column, and what is wrong, as text.

    The first table's rows come first, whatever is wrong with them. A column `_tables` holds in how
    many of the tables an image is.

    Args:
        paths: of the tables.
        image: the image column, which each of them has.
        wanted: the other columns, each in one of them.

    Raises:
        SkinlesionError: if a file is no table, a column is missing, or in two of them.
    """
    tables = {path: read_cells(path) for path in paths}
    every, expected = ", ".join(map(str, paths)), list(dict.fromkeys((*wanted, image)))
    found = list(dict.fromkeys(name for frame in tables.values() for name in frame.columns))
    if missing := [name for name in expected if name not in found]:
        raise SkinlesionError(
            f"{every}: columns missing: {', '.join(missing)}. Found: {listing(found, 12)}. "
            f"Expected at least: {', '.join(expected)}; data.classes, data.columns and "
            "data.properties say what they are called."
        )
    problems: list[str] = []
    joined: pd.DataFrame | None = None
    for path, frame in tables.items():
        if image not in frame.columns:
            raise SkinlesionError(
                f"{path}: no column {image}, by which the tables are joined. Found: "
                f"{listing(list(frame.columns), 12)}."
            )
        own = frame[[name for name in expected if name in frame.columns]]
        names: Any = {image: own[image].map(image_name, na_action="ignore")}
        own = own.assign(**names, _tables=1)
        if joined is None:
            joined = own
            continue
        if twice := [name for name in joined if name in own and name not in (image, "_tables")]:
            raise SkinlesionError(
                f"{every}: {', '.join(map(str, twice))} in more than one table. Tables are joined "
                f"by the column {image} and not put below each other: expected each column in one "
                "of them."
            )
        if unnamed := (np.flatnonzero(own[image].isna()) + 2).tolist():
            problems.append(f"{path.name}: rows without {image}: line {listing(unnamed)}")
        own = own.dropna(subset=[image])
        if (again := own[image][own[image].duplicated()].unique()).size:
            problems.append(f"{path.name}: duplicate image ids: {listing(again.tolist())}")
        own = own.drop_duplicates(image)
        both = joined.merge(own, how="left", on=image, suffixes=("", "_own"))
        both["_tables"] += both.pop("_tables_own").fillna(0)
        joined = pd.concat([both, own[~own[image].isin(both[image])]], ignore_index=True)
    assert joined is not None  # a schema has at least one table
    return joined, problems


def _cells(root: Path, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns of the schema, as text, and what is wrong with the tables."""
    lesion = [] if schema.lesion is None else [schema.lesion]
    label = schema.classes if schema.label is None else [schema.label]
    properties = [declared.column for declared in schema.properties.values()]
    wanted = [*lesion, schema.image, *label, *properties]
    return join_tables(find_tables(root, schema.tables), schema.image, wanted)


def _labels(cells: pd.DataFrame, schema: Schema) -> tuple[pd.Series, pd.Series, str]:
    """Return each row's class, what is written there, and what is wrong with rows of none."""
    classes = list(schema.classes)
    if schema.label is not None:
        written = cells[schema.label]
        what = f"{schema.label} other than {', '.join(classes)}"
        return _meant(written, classes), written, what
    marks = cells[classes].apply(pd.to_numeric, errors="coerce")
    one = marks.isin([0, 1]).all(axis=1) & (marks.sum(axis=1) == 1)
    label = marks.eq(1).idxmax(axis=1).where(one)
    written = pd.Series(np.nan, index=cells.index, dtype=object)
    for i in cells.index[~one]:
        found = cells.loc[i, classes][marks.loc[i].ne(0)].fillna("blank")
        written[i] = ", ".join(f"{name} is {mark}" for name, mark in found.items()) or np.nan
    what = f"rows in which not exactly one of {', '.join(classes)} is 1 and the others are 0"
    return label, written, what


def _meant(written: pd.Series, names: Sequence[str]) -> pd.Series:
    """Return which of the names each cell means; NaN for none."""
    meant = {text: matching(text, names) for text in written.dropna().unique()}
    return written.map({text: name for text, name in meant.items() if name}).astype(object)


def _warn_of_undeclared(frame: pd.DataFrame, schema: Schema) -> None:
    for name, declared in schema.properties.items():
        if isinstance(declared, Range):
            continue
        counts = frame.loc[~frame[name].isin(declared.values), name].value_counts()
        if counts.size:
            found = [f"{value} ({count:,})" for value, count in counts.items()]
            log.warning(
                "data.properties.%s.values does not have what these images have, which is encoded "
                "like a value that training has not seen: %s",
                *(name, listing(found, 12)),
            )
