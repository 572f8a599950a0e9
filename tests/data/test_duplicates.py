"""The same picture under two lesions, and a split that keeps it in one part."""

import pandas as pd
import pytest

from skinlesion.data.duplicates import as_text, find_duplicates, near_copies
from skinlesion.data.split import Split, leak_report
from skinlesion.errors import SkinlesionError


def test_a_copy_is_found_whatever_its_lesion_and_folder(place, ham10000):
    one, other, same = (place.table["image_id"][row] for row in (0, 3, 1))
    place.jpegs[other] = place.jpegs[same] = place.jpegs[one]
    root = place.write()
    pairs = find_duplicates(root, ham10000)
    # Rows 0 and 1 are of one lesion, which is no finding; row 3 is of another.
    assert {frozenset(pair) for pair in pairs[["image_a", "image_b"]].to_numpy()} == {
        frozenset({one, other}),
        frozenset({same, other}),
    }
    assert pairs["correlation"].tolist() == pytest.approx([1, 1])
    assert one in as_text(pairs)
    assert len(find_duplicates(place.write(jpegs={**place.jpegs}), ham10000, 0.97, root)) > 60


def test_held_out_copies_of_another_lesion_in_training_are_counted(place):
    split = place.samples(place.write()).frame
    lesion = split.set_index("image_id")["lesion_id"]
    trained, held = (split.loc[split["split"] == part, "image_id"] for part in ("train", "val"))
    place.jpegs[held.iloc[0]] = place.jpegs[
        next(i for i in trained if lesion[i] != lesion[held.iloc[0]])
    ]
    samples = place.samples(place.write())
    assert near_copies(samples)["val"] >= 1


def test_a_threshold_that_is_none_is_said(place, ham10000):
    with pytest.raises(SkinlesionError, match="threshold=1: expected"):
        find_duplicates(place.folder, ham10000, 1)


def test_joined_lesions_are_in_one_part():
    rows = [(f"HAM_{n}", f"ISIC_{n}", ("mel", "nv")[n % 2]) for n in range(60)]
    frame = pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])
    classes = ("mel", "nv")
    options = {"by": "lesion", "val_fraction": 0.2, "test_fraction": 0.2}
    pairs = [(f"ISIC_{n}", f"ISIC_{n + 2}") for n in range(0, 56, 4)]
    split = Split("lesion", seed=0, join=pairs, **options).apply(frame, classes)
    part = split.set_index("image_id")["split"]
    assert all(part[one] == part[other] for one, other in pairs)
    apart = Split("lesion", seed=0, **options).apply(frame, classes).set_index("image_id")["split"]
    assert not all(apart[one] == apart[other] for one, other in pairs)
    assert leak_report(split, classes)["test"]["leaked"] == 0
    with pytest.raises(SkinlesionError, match=r"split\.join: no image ISIC_77"):
        Split("lesion", seed=0, join=[("ISIC_1", "ISIC_77")], **options).apply(frame, classes)
