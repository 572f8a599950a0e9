"""The table is the same whatever file it came from, and everything wrong with it is named."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from skinlesion.data.archive import ImageArchive
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table, subset, table_digest
from skinlesion.errors import SkinlesionError

Write = Callable[..., Path]

CONF = Path(__file__).resolve().parents[2] / "conf"
HAM10000 = Schema.from_config(OmegaConf.load(CONF / "data" / "ham10000.yaml"))
COLUMNS = HAM10000.columns
QUOTED = csv.QUOTE_NONNUMERIC


def read(root: Path) -> tuple[pd.DataFrame, list[str]]:
    return read_table(ImageArchive(root), HAM10000)


def good(root: Path) -> pd.DataFrame:
    table, problems = read(root)
    assert problems == []
    return table


@pytest.fixture
def expected(table: pd.DataFrame) -> pd.DataFrame:
    return (
        table[list(COLUMNS)]
        .assign(age=[float(age) if age else np.nan for age in table["age"]])
        .sort_values("image_id", ignore_index=True)
    )


@pytest.mark.parametrize(
    "form",
    [
        {"metadata": "HAM10000_metadata.csv"},
        {"metadata": "HAM10000_metadata"},
        {"metadata": "HAM10000_metadata", "separator": "\t", "quoting": QUOTED},
        {"metadata": "HAM10000_metadata.tab", "separator": "\t"},
        {"metadata": "HAM10000_metadata.tsv", "separator": "\t", "quoting": QUOTED},
        {"metadata": "HAM10000_metadata.csv", "quoting": QUOTED},
        {"metadata": "HAM10000_metadata.csv", "encoding": "utf-8-sig"},
        {"encoding": "utf-8-sig", "separator": "\t", "quoting": QUOTED},
    ],
    ids=str,
)
def test_every_form_of_the_file_gives_the_same_table(
    write: Write, form: dict[str, Any], expected: pd.DataFrame
) -> None:
    found = good(write(**form))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert found["age"].dtype == float
    assert table_digest(found) == table_digest(good(write()))


def test_every_layout_gives_the_same_table(
    write: Write, layout: str, expected: pd.DataFrame
) -> None:
    pd.testing.assert_frame_equal(good(write(layout)), expected, check_dtype=False)


def columns_in_another_order(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.columns[::-1]]


def rows_in_another_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(frac=1, random_state=0)


def without_the_columns_nobody_reads(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["dataset", "dx_type"])


def with_another_column(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(comment="a, b")


def with_decimal_ages(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(age=[f"{age}.0" if age else "" for age in table["age"]])


def with_spaces(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda cell: f" {cell} ").rename(columns=lambda name: f" {name}")


def in_capitals(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        **{column: table[column].str.upper() for column in ("dx", "sex", "localization")}
    )


@pytest.mark.parametrize(
    "change",
    [
        columns_in_another_order,
        rows_in_another_order,
        without_the_columns_nobody_reads,
        with_another_column,
        with_decimal_ages,
        with_spaces,
        in_capitals,
    ],
)
def test_what_does_not_matter_does_not_change_the_table(
    write: Write,
    table: pd.DataFrame,
    expected: pd.DataFrame,
    change: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    found = good(write(table=change(table)))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert table_digest(found) == table_digest(good(write()))


@pytest.mark.parametrize("column", COLUMNS)
def test_the_digest_changes_with_any_cell(
    write: Write, table: pd.DataFrame, column: str, jpegs: dict[str, bytes]
) -> None:
    before = table_digest(good(write()))
    other = {"dx": "bcc", "age": "21.5", "image_id": "ISIC_new"}.get(column, "other")
    # Both rows of the first lesion, which may not have two diagnoses.
    table.loc[:1, column] = [other, other] if column != "image_id" else [other, "ISIC_newer"]
    jpegs |= dict.fromkeys(("ISIC_new", "ISIC_newer"), jpegs["ISIC_0000000"])
    assert table_digest(good(write(table=table, jpegs=jpegs))) != before


def test_missing_sex_and_localization_are_unknown_and_a_missing_age_stays_missing(
    write: Write, table: pd.DataFrame
) -> None:
    table.loc[0, ["age", "sex", "localization"]] = ""
    found = good(write(table=table)).set_index("image_id").loc[table.loc[0, "image_id"]]
    assert found["sex"] == found["localization"] == "unknown"
    assert np.isnan(found["age"])


def test_without_a_table_the_error_names_what_was_expected_and_found(write: Write) -> None:
    with pytest.raises(SkinlesionError) as caught:
        read(write(metadata="metadata.csv"))
    for expected in ("HAM10000_metadata.csv, HAM10000_metadata,", "found: ", "metadata.csv"):
        assert expected in str(caught.value)
    assert "make data" in str(caught.value)


def test_missing_columns_are_named_all_at_once(write: Write, table: pd.DataFrame) -> None:
    root = write(table=table.drop(columns=["age", "lesion_id"]))
    with pytest.raises(SkinlesionError, match=r"columns missing: lesion_id, age\. Found: image_id"):
        read(root)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfel\x00e\x00s\x00",
        b'lesion_id,image_id,dx,age,sex,localization\n"a,b,nv,3,male,back\n',
        b"lesion_id,image_id,dx,age,sex,localization\na,b,nv,3,m,back\na,c,nv,3,m,back,more\n",
    ],
    ids=["empty", "UTF-16", "open quote", "a row too long"],
)
def test_a_file_that_is_no_table_is_named(write: Write, content: bytes) -> None:
    path = write() / "HAM10000_metadata.csv"
    path.write_bytes(content)
    with pytest.raises(SkinlesionError, match=f"{path} cannot be read as a table"):
        read(path.parent)


def test_rows_that_end_in_a_comma_do_not_shift_the_columns(
    write: Write, expected: pd.DataFrame
) -> None:
    path = write() / "HAM10000_metadata.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(f"{row}," for row in rows)]))
    pd.testing.assert_frame_equal(good(path.parent), expected, check_dtype=False)


def spoil(table: pd.DataFrame, row: int, **cells: str) -> None:
    table.loc[row, list(cells)] = list(cells.values())


def test_each_fault_is_named_with_its_rows_and_the_good_rows_are_returned(
    write: Write, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> None:
    ids = table["image_id"].tolist()
    spoil(table, 0, image_id="")
    spoil(table, 2, lesion_id="")
    spoil(table, 4, image_id=ids[5])
    spoil(table, 8, dx="nevus", lesion_id="HAM_new")
    spoil(table, 16, age="-1")
    spoil(table, 17, age="121")
    spoil(table, 18, age="about 50")
    spoil(table, 19, age="inf")
    spoil(table, 24, dx="nv")  # the other image of this lesion is a bkl
    del jpegs[ids[30]]

    found, problems = read(write(table=table, jpegs=jpegs))

    assert problems == [
        "rows without image_id: line 2",
        "images without lesion_id (data.columns.lesion_missing=own takes each of them for a lesion "
        f"of its own): {ids[2]}",
        f"duplicate image ids: {ids[5]}",
        f"dx other than akiec, bcc, bkl, df, mel, nv, vasc: {ids[8]} (nevus)",
        f"age that is no number from 0 to 120: {ids[16]} (-1), {ids[17]} (121), {ids[18]} "
        f"(about 50), {ids[19]} (inf)",
        f"lesions of two classes: {table.loc[24, 'lesion_id']}",
        f"images in the table that are not on disk: {ids[30]}",
    ]
    bad = {ids[row] for row in (0, 2, 4, 5, 8, 16, 17, 18, 19, 24, 25, 30)}
    assert set(found["image_id"]) == set(ids) - bad


@pytest.mark.parametrize("age", ["0", "120"])
def test_the_youngest_and_the_oldest_age_are_possible(
    write: Write, table: pd.DataFrame, age: str
) -> None:
    spoil(table, 0, age=age)
    assert float(age) in good(write(table=table))["age"].tolist()


def test_a_long_list_is_cut_to_the_first_few_and_a_count(
    write: Write, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> None:
    absent = table["image_id"].tolist()[10:27]
    _, (problem,) = read(write(jpegs={i: jpeg for i, jpeg in jpegs.items() if i not in absent}))
    assert problem == (
        f"images in the table that are not on disk: {', '.join(absent[:5])} and 12 more"
    )


def test_a_table_without_any_image_names_the_ways_to_get_them(write: Write) -> None:
    table, problems = read(write(jpegs={}))
    assert table.empty
    assert "make data" in problems[-1]


def test_images_that_are_not_in_the_table_are_ignored(
    write: Write, jpegs: dict[str, bytes], expected: pd.DataFrame
) -> None:
    found = good(write(jpegs=jpegs | {"ISIC_0034525": jpegs["ISIC_0000000"]}))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


# --- a subset ---------------------------------------------------------------------------------


@pytest.fixture
def large() -> pd.DataFrame:
    """2,000 images of lesions with one to four images each; nine of ten are nevi."""
    rng = np.random.default_rng(0)
    rows = []
    for lesion in range(800):
        dx = CLASSES[lesion % 7] if lesion % 10 == 0 else "nv"
        rows += [(f"HAM_{lesion}", f"ISIC_{lesion}_{i}", dx) for i in range(rng.integers(1, 5))]
    return pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])


@pytest.mark.parametrize("images", [500, 1000, 1500])
def test_a_subset_has_about_as_many_images_as_asked_for(large: pd.DataFrame, images: int) -> None:
    assert len(subset(large, images, seed=0)) == pytest.approx(images, rel=0.15)


@pytest.mark.parametrize("images", [1, 30, 500])
def test_a_subset_is_of_whole_lesions_and_every_class(large: pd.DataFrame, images: int) -> None:
    chosen = subset(large, images, seed=0)
    whole = large[large["lesion_id"].isin(chosen["lesion_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen, whole)
    assert set(chosen.groupby("dx")["lesion_id"].nunique().loc[list(CLASSES)] >= 4) == {True}


def test_a_subset_is_decided_by_its_seed(large: pd.DataFrame) -> None:
    first, again, other = (subset(large, 200, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["lesion_id"]) != set(other["lesion_id"])


def test_a_subset_as_large_as_the_table_is_the_table(large: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(subset(large, len(large), seed=0), large)


@pytest.mark.parametrize("images", [0, -3])
def test_a_subset_of_nothing_is_an_error(large: pd.DataFrame, images: int) -> None:
    with pytest.raises(SkinlesionError, match=f"data.limit={images}: expected a positive"):
        subset(large, images, seed=0)


# --- the real table ---------------------------------------------------------------------------


def test_the_real_table_is_ham10000s(real_table: pd.DataFrame) -> None:
    assert len(real_table) == 10_015
    assert real_table["lesion_id"].nunique() == 7_470
    counts = real_table["dx"].value_counts()
    assert [counts[name] for name in CLASSES] == [327, 514, 1099, 115, 1113, 6705, 142]
    no_age = real_table.loc[real_table["age"].isna(), "dx"].value_counts()
    assert no_age.to_dict() == {"nv": 45, "bkl": 10, "mel": 2}


@pytest.mark.parametrize("images", [300, 1000])
def test_a_subset_of_the_real_table_keeps_its_proportions(
    real_table: pd.DataFrame, images: int
) -> None:
    chosen = subset(real_table, images, seed=0)
    assert len(chosen) == pytest.approx(images, rel=0.1)
    assert (chosen["dx"] == "nv").mean() == pytest.approx(6705 / 10_015, abs=0.05)
