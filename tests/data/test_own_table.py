"""Tables of other names, columns and classes are read alike, and their faults are named."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.archive import ImageArchive
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError

IMAGES = ("p1", "p2", "p3", "p4")


def schema(**changes: Any) -> Schema:
    columns = {"image": "file", "lesion": "spot", "label": "kind"} | changes.pop("columns", {})
    declared = {
        "tables": ["list"],
        "classes": ["Red", "Blue"],
        "columns": columns,
        "properties": {"place": {"values": ["Arm", "leg"]}, "size": {"range": [0, 9]}},
    }
    return Schema.from_config(declared | changes)


ONE_HOT: dict[str, Any] = {"columns": {"label": None, "lesion": None}, "properties": {}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in IMAGES:
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path


def write(root: Path, text: str, name: str = "list.csv") -> None:
    (root / name).write_text("\n".join(line.strip() for line in text.strip().splitlines()))


def read(root: Path, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
    return read_table(ImageArchive(root), schema)


def test_other_columns_and_names_become_ours(root: Path) -> None:
    write(
        root,
        """file,kind,size,place,spot
        p2.png,red,3,ARM,s1
        p1.PNG,Blue,,,s2
        p3,BLUE,0,leg,s2""",
    )
    frame, problems = read(root, schema())
    assert problems == []
    assert frame.columns.tolist() == ["lesion_id", "image_id", "dx", "place", "size"]
    assert frame.astype(object).fillna("missing").to_numpy().tolist() == [
        ["s2", "p1", "Blue", "unknown", "missing"],
        ["s1", "p2", "Red", "Arm", 3.0],
        ["s2", "p3", "Blue", "leg", 0.0],
    ]


def test_without_a_lesion_column_every_image_is_a_lesion(root: Path) -> None:
    write(root, "file,kind,size,place\np1,Red,1,arm\np2,Red,1,arm")
    frame, problems = read(root, schema(columns={"lesion": None}))
    assert problems == []
    assert frame["lesion_id"].tolist() == frame["image_id"].tolist() == ["p1", "p2"]


def test_a_property_whose_column_is_empty_is_unknown_everywhere(root: Path) -> None:
    write(root, "file,kind,size,place,spot\np1,Red,,,s1\np2,Blue,,,s2")
    frame, problems = read(root, schema())
    assert problems == []
    assert frame["place"].tolist() == ["unknown"] * 2
    assert frame["size"].isna().all()


def test_images_without_a_lesion_are_named_or_lesions_of_their_own(root: Path) -> None:
    write(root, "file,kind,size,place,spot\np1,Red,1,arm,s1\np2,Red,1,arm,\np3,Blue,1,arm,")
    frame, problems = read(root, schema())
    assert problems == [
        "images without spot (data.columns.lesion_missing=own takes each of them for a lesion of "
        "its own): p2, p3"
    ]
    frame, problems = read(root, schema(columns={"lesion_missing": "own"}))
    assert problems == []
    assert frame["lesion_id"].tolist() == ["s1", "p2", "p3"]


def test_faults_are_named_in_the_tables_own_words(root: Path) -> None:
    write(
        root,
        """file,kind,size,place,spot
        p1,green,1,arm,s1
        p2,Red,12,arm,s2
        p3,Red,1,arm,s3
        p4,Blue,1,arm,s3""",
    )
    frame, problems = read(root, schema())
    assert problems == [
        "kind other than Red, Blue: p1 (green)",
        "size that is no number from 0 to 9: p2 (12)",
        "lesions of two classes: s3",
    ]
    assert frame.empty


def test_values_that_are_not_declared_are_told_once_with_their_counts_and_kept(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        root,
        """file,kind,size,place,spot
        p1,Red,1,Head,s1
        p2,Red,1,head,s2
        p3,Red,1,foot,s3
        p4,Red,1,arm,s4""",
    )
    with caplog.at_level(logging.WARNING):
        frame, problems = read(root, schema())
    assert problems == []
    assert frame["place"].tolist() == ["head", "head", "foot", "Arm"]
    (record,) = caplog.records
    assert "data.properties.place.values does not have" in record.getMessage()
    assert record.getMessage().endswith(": head (2), foot (1)")


def test_a_column_for_each_class_is_one_label(root: Path) -> None:
    write(root, "file,Red,Blue\np1,0.0,1.0\np2,1,0")
    frame, problems = read(root, schema(**ONE_HOT))
    assert problems == []
    assert frame["dx"].tolist() == ["Blue", "Red"]


def test_rows_without_exactly_one_class_are_named(root: Path) -> None:
    write(root, "file,Red,Blue\np1,1,1\np2,0,0\np3,0.5,0.5\np4,1,")
    _, problems = read(root, schema(**ONE_HOT))
    assert problems == [
        "rows in which not exactly one of Red, Blue is 1 and the others are 0: p1 (Red is 1, Blue "
        "is 1), p2 (none), p3 (Red is 0.5, Blue is 0.5), p4 (Red is 1, Blue is blank)"
    ]


TWO = {"tables": ["labels.csv", "list"]}


def test_tables_are_joined_by_the_image(root: Path) -> None:
    write(root, "kind,file\nRed,p1\nBlue,p2.png", "labels.csv")
    write(root, "place\tsize\tfile\tspot\nleg\t2\tp2\ts2\narm\t1\tp1.png\ts1", "list.tsv")
    frame, problems = read(root, schema(**TWO))
    assert problems == []
    assert frame.to_numpy().tolist() == [
        ["s1", "p1", "Red", "Arm", 1.0],
        ["s2", "p2", "Blue", "leg", 2.0],
    ]


def test_an_image_that_is_in_one_table_only_is_named_once(root: Path) -> None:
    write(root, "file,kind\np1,Red\np2,Blue\np3,Red", "labels.csv")
    write(root, "file,size,place,spot\np1,1,arm,s1\np2,1,arm,s2\np4,1,arm,s4\np4,2,arm,s4\n,,,")
    frame, problems = read(root, schema(**TWO))
    assert problems == [
        "list.csv: rows without file: line 6",
        "list.csv: duplicate image ids: p4",
        "images that are not in each of labels.csv, list: p3, p4",
    ]
    assert frame["image_id"].tolist() == ["p1", "p2"]


def test_tables_that_cannot_be_joined_are_refused(root: Path) -> None:
    write(root, "file,kind,size\np1,Red,1", "labels.csv")
    write(root, "file,size,place,spot\np1,1,arm,s1")
    with pytest.raises(SkinlesionError, match=r"size in more than one table.* not put below"):
        read(root, schema(**TWO))
    write(root, "name,size,place,spot\np1,1,arm,s1")
    write(root, "file,kind\np1,Red", "labels.csv")
    with pytest.raises(SkinlesionError, match=r"list\.csv: no column file, by which"):
        read(root, schema(**TWO))


def test_missing_columns_and_tables_are_named(root: Path) -> None:
    write(root, "file,class,size,place\np1,Red,1,arm")
    with pytest.raises(SkinlesionError, match=r"columns missing: spot, kind\. Found: file, class"):
        read(root, schema())
    with pytest.raises(SkinlesionError, match=r"Expected one of other\.csv; found: list\.csv, pic"):
        read(root, schema(tables=["other.csv"]))


def test_an_image_of_two_files_that_differ_is_named(root: Path) -> None:
    (root / "masks").mkdir()
    Image.new("L", (40, 40)).save(root / "masks" / "p1.png")
    write(root, "file,kind,size,place,spot\np1,Red,1,arm,s1\np2,Blue,1,arm,s2")
    _, problems = read(root, schema())
    assert problems == [
        "images of which there are two files that differ: p1 (masks/p1.png and pictures/p1.png)"
    ]
