"""The metadata table: one row per image, validated on reading.

HAM10000: Tschandl, Rosendahl, Kittler 2018, doi:10.7910/DVN/DBW86T.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.data.archive import THREE_WAYS, ImageArchive
from skinlesion.errors import SkinlesionError, listing

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex", "localization")
FILES = tuple(f"HAM10000_metadata{suffix}" for suffix in (".csv", "", ".tab", ".tsv"))
OLDEST = 120  # years
FEWEST_LESIONS = 4  # of a class in a subset: enough for three parts


def read_table(archive: ImageArchive) -> tuple[pd.DataFrame, list[str]]:
    """Read and check the metadata table of an archive.

    Returns:
        The table, sorted by image id, with the columns lesion_id, image_id, dx, age (float, years,
        NaN where missing), sex and localization (`unknown` where missing); and what is wrong with
        it, a sentence each. The table holds only rows that nothing is wrong with.

    Raises:
        SkinlesionError: if there is no table, it cannot be read, or columns are missing.
    """
    path = _find(archive.root)
    frame = _read(path)
    if missing := [column for column in COLUMNS if column not in frame.columns]:
        raise SkinlesionError(
            f"{path}: columns missing: {', '.join(missing)}. Found: "
            f"{listing(list(frame.columns), 12)}. Expected at least: {', '.join(COLUMNS)}."
        )
    frame = frame[list(COLUMNS)].apply(lambda column: column.str.strip())
    frame = frame.replace("", np.nan)
    for column in ("dx", "sex", "localization"):
        frame[column] = frame[column].str.lower()
    written_age = frame["age"]
    frame = frame.assign(
        age=pd.to_numeric(written_age, errors="coerce").astype(float),
        sex=frame["sex"].fillna("unknown"),
        localization=frame["localization"].fillna("unknown"),
    )

    problems: list[str] = []
    bad = pd.Series(False, index=frame.index)

    def report(rows: pd.Series, what: str, named: pd.Series) -> None:
        nonlocal bad
        if rows.any():
            problems.append(f"{what}: {listing(list(dict.fromkeys(named[rows])))}")
            bad |= rows

    where = frame["image_id"].fillna("line " + (frame.index.to_series() + 2).astype(str))
    no_id = frame["image_id"].isna() | frame["lesion_id"].isna()
    report(no_id, "rows without an image_id or lesion_id", where)
    duplicated = frame["image_id"].duplicated(keep=False) & ~no_id
    report(duplicated, "duplicate image ids", where)
    unknown = ~frame["dx"].isin(CLASSES)
    report(
        unknown,
        f"diagnoses other than {', '.join(CLASSES)}",
        where + " (" + frame["dx"].fillna("none") + ")",
    )
    age = frame["age"]
    impossible = (written_age.notna() & age.isna()) | (age < 0) | (age > OLDEST)
    report(
        impossible,
        f"ages that are no number of years between 0 and {OLDEST}",
        where + " (" + written_age.fillna("none") + ")",
    )
    diagnoses = frame.groupby("lesion_id")["dx"].transform("nunique")
    report((diagnoses > 1) & ~no_id, "lesions with two diagnoses", frame["lesion_id"])
    on_disk = frame["image_id"].map(lambda image_id: image_id in archive)
    report(~on_disk.astype(bool) & ~no_id, "images in the table that are not on disk", where)
    if len(archive) == 0:
        problems.append(f"there is no JPEG in {archive.root} at all.\n{THREE_WAYS}")
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
    """Return a SHA-256 of the table's content, whatever file it came from."""
    text = frame[list(COLUMNS)].to_csv(index=False, float_format="%g", lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _find(root: Path) -> Path:
    for name in FILES:
        if (root / name).is_file():
            return root / name
    raise SkinlesionError(
        f"data.root={root}: no metadata table. Expected one of {', '.join(FILES)}; "
        f"found: {listing(sorted(path.name for path in root.iterdir())) or 'an empty folder'}.\n"
        f"{THREE_WAYS}"
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = "\t" if "\t" in file.readline() else ","
        # Without index_col, a row that is too long would shift the columns.
        frame = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig", index_col=False)
        return frame.rename(columns=str.strip)
    except (ValueError, csv.Error) as error:  # pandas' and Unicode's errors are ValueErrors
        raise SkinlesionError(f"{path} cannot be read as a table: {error}") from None
