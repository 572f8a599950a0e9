"""The table is the same whatever file it came from, and everything wrong with it is named."""

import csv
import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.archive import ImageArchive
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table, subset, table_digest
from skinlesion.errors import SkinlesionError

COLUMNS = ["lesion_id", "image_id", "dx", "age", "sex", "localization"]
FORMS = {
    "Dataverse": {"metadata": "HAM10000_metadata", "sep": "\t", "quoting": csv.QUOTE_NONNUMERIC},
    "tab": {"metadata": "HAM10000_metadata.tab", "sep": "\t"},
    "tsv": {"metadata": "HAM10000_metadata.tsv", "sep": "\t"},
}
CHANGES = {
    "columns in another order": lambda table: table[table.columns[::-1]],
    "rows in another order": lambda table: table.sample(frac=1, random_state=0),
    "only the columns that are read": lambda table: table.drop(columns=["dataset", "dx_type"]),
    "another column": lambda table: table.assign(comment="a, b"),
    "decimal ages": lambda table: table.assign(age=[a and f"{a}.0" for a in table["age"]]),
    "unknown ages": lambda table: table.assign(age=[a or "Unknown" for a in table["age"]]),
    "spaces": lambda table: table.map(lambda cell: f" {cell} ").rename(columns=" {} ".format),
    "capitals": lambda table: table.map(str.upper).rename(columns=str.upper),
    "files": lambda table: table.assign(image_id=table["image_id"] + ".JPG"),
    "paths": lambda table: table.assign(image_id="images/" + table["image_id"] + ".jpg"),
}


@pytest.mark.parametrize("change", [*FORMS, *CHANGES])
def test_what_does_not_matter_does_not_change_the_table(place, change):
    place.table["lesion_id"] = place.table["lesion_id"].str.upper()
    expected = (
        place.table[COLUMNS]
        .assign(age=[float(age) if age else np.nan for age in place.table["age"]])
        .sort_values("image_id", ignore_index=True)
    )
    plain, _ = place.read()
    changed = CHANGES.get(change, lambda table: table)(place.table)
    found, problems = place.read(table=changed, **FORMS.get(change, {}))
    assert problems == []
    for frame in (plain, found):
        pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
    assert table_digest(found) == table_digest(plain)


def test_the_digest_changes_with_any_cell(place):
    place.jpegs |= dict.fromkeys(("ISIC_new", "ISIC_newer"), b"")
    digests = {table_digest(place.read()[0])}
    for column in COLUMNS:
        other = {"dx": "bcc", "age": "21.5", "image_id": "ISIC_new"}.get(column, "other")
        # Both rows of the first lesion, which may not have two diagnoses.
        place.table.loc[:1, column] = [other, "ISIC_newer" if column == "image_id" else other]
        table, problems = place.read()
        assert problems == []
        digests.add(table_digest(table))
    assert len(digests) == 1 + len(COLUMNS)


def test_each_fault_is_named_with_its_rows_and_the_good_rows_are_returned(place):
    ids = place.ids
    spoiled = {
        0: {"image_id": ""},
        2: {"lesion_id": ""},
        4: {"image_id": place.ids[5]},
        6: {"lesion_id": "HAM_\x07"},
        7: {"image_id": place.ids[7] + "\x1b"},
        8: {"dx": "nevus", "lesion_id": "HAM_new"},
        16: {"age": "-1"},
        17: {"age": "121"},
        18: {"age": "about 50"},
        19: {"age": "inf"},
        24: {"dx": "nv"},  # the other image of this lesion is a bkl
    }
    for row, cells in spoiled.items():
        place.table.loc[row, list(cells)] = list(cells.values())
    for row in range(30, 47):
        del place.jpegs[ids[row]]

    found, problems = place.read()

    assert problems == [
        "rows without image_id: line 2",
        f"duplicate image ids: {ids[5]}",
        "images without lesion_id (data.columns.lesion_missing=own takes each of them for a lesion "
        f"of its own): {ids[2]}",
        rf"ids that do not print: '{ids[6]} of lesion HAM_\x07', '{ids[7]}\x1b of lesion "
        f"{place.table.loc[7, 'lesion_id']}'",
        f"dx other than akiec, bcc, bkl, df, mel, nv, vasc: {ids[8]} (nevus)",
        f"age that is no number from 0 to 120: {ids[16]} (-1), {ids[17]} (121), {ids[18]} "
        f"(about 50), {ids[19]} (inf)",
        f"lesions of two classes: {place.table.loc[24, 'lesion_id']}",
        f"images in the table that are not on disk: '{ids[7]}\\x1b', {', '.join(ids[30:34])} and "
        "13 more",
    ]
    bad = {ids[row] for row in (0, 2, 4, 5, 6, 7, 8, 16, 17, 18, 19, 24, 25, *range(30, 47))}
    assert set(found["image_id"]) == set(ids) - bad


def test_images_without_rows_do_not_matter(place):
    found, problems = place.read(table=place.table[:40])
    assert problems == []
    assert found["image_id"].tolist() == sorted(place.ids[:40])


# --- data of one's own ----------------------------------------------------------------------------

OWN = {
    "tables": ["list"],
    "classes": ["Red", "Blue"],
    "columns": {"image": "file", "lesion": "spot", "label": "kind"},
    "properties": {"place": {"values": ["Arm", "leg"]}, "size": {"range": [0, 9]}},
}
ONE_HOT = {"columns": {"image": "file", "lesion": None, "label": None}, "properties": {}}
HEAD = "file,kind,size,place,spot\n"


@pytest.fixture
def own(tmp_path):
    """A function that reads a table of the images p1 to p4, as OWN declares it."""
    (tmp_path / "pictures").mkdir()
    for name in ("p1", "p2", "p3", "p4"):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{name}.png")

    def read(text, labels="", **changes):
        (tmp_path / "list.csv").write_text(text)
        if labels:
            (tmp_path / "labels.csv").write_text(labels)
            changes["tables"] = ["labels.csv", "list"]
        return read_table(ImageArchive(tmp_path), Schema.from_config(OWN | changes))

    return read


def rows(frame):
    return frame.astype(object).fillna("missing").to_numpy().tolist()


def test_other_columns_and_names_become_ours(own):
    frame, problems = own(HEAD + "p2.png,red,3,ARM,s1\np1.PNG,Blue,,,s2\np3,BLUE,0,leg,s2\n")
    assert problems == []
    assert frame.columns.tolist() == ["lesion_id", "image_id", "dx", "place", "size"]
    assert rows(frame) == [
        ["s2", "p1", "Blue", "unknown", "missing"],
        ["s1", "p2", "Red", "Arm", 3.0],
        ["s2", "p3", "Blue", "leg", 0.0],
    ]


def test_a_number_means_a_name_that_is_the_same_number(own):
    grades = {"classes": ["1.0", "2"], "properties": {"place": {"values": ["0", "1.0"]}}}
    frame, problems = own("file,kind,place,spot\np1,1,1,a\np2,2.0,0.0,b\np3,1.0,1.0,c", **grades)
    assert problems == []
    assert frame["dx"].tolist() == ["1.0", "2", "1.0"]
    assert frame["place"].tolist() == ["1.0", "0", "1.0"]


def test_a_property_may_have_any_name(own):
    named = {"_tables": {"range": [0, 9]}, "index": {"values": ["a"]}}
    frame, problems = own("file,kind,spot,_tables,index\np1,Red,s,3,A", properties=named)
    assert (rows(frame), problems) == ([["s", "p1", "Red", 3.0, "a"]], [])


def test_without_lesions_every_image_is_one_or_those_that_have_none(own):
    text = HEAD + "p1,Red,,,s1\np2,Blue,,,\np3,Blue,,,Unknown"
    for columns, lesions in (({"lesion": None}, "p1"), ({"lesion_missing": "own"}, "s1")):
        frame, problems = own(text, columns=OWN["columns"] | columns)
        assert problems == []
        assert frame["lesion_id"].tolist() == [lesions, "p2", "p3"]
        assert frame["place"].tolist() == ["unknown"] * 3
        assert frame["size"].isna().all()


def test_values_that_are_not_declared_are_told_with_their_counts_and_kept(own, caplog):
    caplog.set_level(logging.WARNING)
    frame, problems = own(
        HEAD + "p1,Red,1,Head,a\np2,Red,1,head,b\np3,Red,1,foot,c\np4,Red,1,arm,d"
    )
    assert problems == []
    assert frame["place"].tolist() == ["head", "head", "foot", "Arm"]
    (record,) = caplog.records
    assert "data.properties.place.values does not have" in record.getMessage()
    assert record.getMessage().endswith(": head (2), foot (1)")


def test_a_column_for_each_class_is_one_label(own):
    frame, problems = own("file,Red,Blue\np1,0.0,1.0\np2,1,0", **ONE_HOT)
    assert (frame["dx"].tolist(), problems) == (["Blue", "Red"], [])
    _, problems = own("file,Red,Blue\np1,1,1\np2,0,0\np3,0.5,0.5\np4,1,", **ONE_HOT)
    assert problems == [
        "rows in which not exactly one of Red, Blue is 1 and the others are 0: p1 (1, 1), "
        "p2 (0, 0), p3 (0.5, 0.5), p4 (1, blank)"
    ]


def test_tables_are_joined_by_the_image(own):
    text = "place\tsize\tfile\tspot\nleg\t2\tp2\tb\narm\t1\tx/p1.png\ta"
    frame, problems = own(text, "kind,File\nRed,p1\nBlue,p2.png")
    assert problems == []
    assert rows(frame) == [["a", "p1", "Red", "Arm", 1], ["b", "p2", "Blue", "leg", 2]]
    text = "file,size,place,spot\np1,1,arm,a\np2,1,arm,b\np4,1,arm,d\np4,2,arm,d\n,,,"
    frame, problems = own(text, "file,kind\np1,Red\np2,Blue\np3,Red")
    assert problems == [
        "list.csv: rows without file: line 6",
        "list.csv: duplicate image ids: p4",
        "images that are not in each of labels.csv, list.csv: p3, p4",
    ]
    assert frame["image_id"].tolist() == ["p1", "p2"]


@pytest.mark.parametrize(
    ("labels", "text", "message"),
    [
        ("file,kind,size", "file,size,place,spot", r"size in more than one.* not put below"),
        ("file,kind", "name,size,place,spot", r"list\.csv: no column file, by which"),
        ("file,class", "file,size,place", r"missing: spot, kind\. Found: file, class, size"),
        ("age_approx,image", "MEL,NV", r"data=isic2019 reads age_approx, image, MEL, NV\.$"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(own, labels, text, message):
    with pytest.raises(SkinlesionError, match=message):
        own(text, labels)


def test_what_is_there_instead_of_the_table_is_named(place):
    expected = r"Expected one of HAM10000_metadata\.csv, HAM10000_metadata,(.|\n)*_part_2, "
    found = "ISIC_2019_Training_GroundTruth"
    with pytest.raises(
        SkinlesionError, match=rf"{expected}{found}\.csv\. data=isic2019 reads {found}"
    ):
        place.read(metadata=f"{found}.csv")


def test_what_is_printed_of_a_table_is_escaped(own):
    _, problems = own(HEAD + "p1,\x1b[31m,1,arm,a\np2\x07,Red,1,arm,b\np2\x07,Red,1,arm,b")
    assert len(problems) == 4
    assert all(problem.isprintable() for problem in problems)
    with pytest.raises(SkinlesionError, match=r"Found: 'fi\\x08le'\. "):
        own("fi\x08le\np1")


def test_two_files_of_one_image_are_named(own, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("L", (40, 40)).save(tmp_path / "masks" / "p1.png")
    _, problems = own(HEAD + "p1,Red,1,arm,a\np2,Blue,1,arm,b")
    assert problems == [
        "images of which there are two files that differ: p1 (masks/p1.png and pictures/p1.png)"
    ]


# --- a subset, and the real table -----------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 30, 500, 1500])
def test_a_subset_is_of_whole_lesions_and_every_class_as_its_seed_decides(images):
    rng, table = np.random.default_rng(0), []
    for lesion in range(800):  # 2,000 images; nine of ten are nevi
        dx = CLASSES[lesion % 7] if lesion % 10 == 0 else "nv"
        table += [(f"HAM_{lesion}", f"ISIC_{lesion}_{i}", dx) for i in range(rng.integers(1, 5))]
    large = pd.DataFrame(table, columns=["lesion_id", "image_id", "dx"])
    chosen = subset(large, images, seed=0)
    assert images < 500 or len(chosen) == pytest.approx(images, rel=0.15)
    whole = large[large["lesion_id"].isin(chosen["lesion_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen, whole)
    assert set(chosen.groupby("dx")["lesion_id"].nunique().loc[list(CLASSES)] >= 4) == {True}
    pd.testing.assert_frame_equal(subset(large, images, seed=0), chosen)
    assert set(subset(large, images, seed=1)["image_id"]) != set(chosen["image_id"])
    pd.testing.assert_frame_equal(subset(large, len(large), seed=0), large)


def test_the_real_table_is_ham10000s(real_table):
    assert len(real_table) == 10_015
    assert real_table["lesion_id"].nunique() == 7_470
    counts = real_table["dx"].value_counts()
    assert [counts[name] for name in CLASSES] == [327, 514, 1099, 115, 1113, 6705, 142]
    no_age = real_table.loc[real_table["age"].isna(), "dx"].value_counts()
    assert no_age.to_dict() == {"nv": 45, "bkl": 10, "mel": 2}
    # As releases since the first one have it, or every finished run would be another.
    assert table_digest(real_table).startswith("e1eb26f7bb58")
