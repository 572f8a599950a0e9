"""From a folder to samples: one error that names all that is wrong, or everything a run needs."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.archive import ImageArchive
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.pixels import decode, to_square
from skinlesion.data.split import Split
from skinlesion.errors import SkinlesionError

LESION = Split("lesion", by="lesion", seed=0, val_fraction=0.1, test_fraction=0.1)


def refusal(place: Any, *split: Split, **options: Any) -> str:
    with pytest.raises(SkinlesionError) as caught:
        place.open(place.write(**options), *split)
    return str(caught.value)


def test_each_sample_has_its_image_label_and_metadata(place: Any) -> None:
    samples = place.samples(place.write("zips"))
    rows = place.table.set_index("image_id")
    assert len(samples.frame) == 58  # two have no age
    assert samples.labels.dtype == np.int64
    for i, row in samples.frame.iterrows():
        image_id = row["image_id"]
        expected = to_square(decode(place.jpegs[image_id]), 16)
        np.testing.assert_array_equal(samples.images[samples.rows[i]], expected)
        assert CLASSES[samples.labels[i]] == rows.loc[image_id, "dx"]
        assert row["age"] == float(rows.loc[image_id, "age"])


def test_every_layout_gives_the_same_samples(place: Any, layout: str) -> None:
    expected, found = (place.samples(place.write(each)) for each in ("folders", layout))
    pd.testing.assert_frame_equal(found.frame, expected.frame)
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.digest == expected.digest
    assert found.encoder == expected.encoder


def test_the_digest_changes_with_the_table_and_with_the_images(place: Any) -> None:
    def digest(**changed: Any) -> str:
        archive = place.open(place.write(**changed))
        found = archive.load(place.cache, 16).digest
        assert archive.digest(place.cache, 16) == found
        assert archive.digest(place.cache / "nowhere", 16) is None
        return found

    older = place.table.assign(age=place.table["age"].replace("20", "80"))
    first, second = place.ids[:2]
    swapped = place.jpegs | {first: place.jpegs[second], second: place.jpegs[first]}
    assert len({digest(), digest(), digest(table=older), digest(jpegs=swapped)}) == 3


def test_the_encoder_and_the_counts_are_of_the_training_images_only(place: Any) -> None:
    archive = place.open(place.write(), LESION)
    trained = archive.frame[archive.frame["split"] == "train"]
    assert archive.encoder.properties["age"].mean == trained["age"].mean()
    assert archive.encoder.properties["age"].mean != archive.frame["age"].mean()
    assert archive.counts == [4, 4, 4, 4, 4, 6, 4]


def test_setting_up_a_split_says_its_sizes_and_its_leak(
    place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skinlesion")
    leak = place.samples(place.write()).leak["val"]["leaked"]
    assert "split=paper: 58 images" in caplog.text
    assert f"leak: {leak} of 7 val images" in caplog.text
    assert leak > 0


def test_a_limit_takes_whole_lesions_of_every_class_and_shares_the_cache_of_all_images(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, split = place.write(), replace(LESION, drop_missing_age=False)
    whole = place.samples(root, split)
    monkeypatch.setattr(ImageArchive, "read", None)
    part = place.samples(root, split, limit=40)
    # Four of the six nevi, and no fewer than four lesions of the others.
    assert part.frame["dx"].value_counts().to_dict() == dict.fromkeys(CLASSES, 8)
    assert part.frame.groupby("lesion_id").size().tolist() == [2] * 28
    assert part.digest == whole.digest
    position = whole.frame.set_index("image_id").index.get_indexer(part.frame["image_id"])
    np.testing.assert_array_equal(whole.rows[position], part.rows)


def test_everything_wrong_is_in_one_error(place: Any) -> None:
    place.table.loc[3, "image_id"] = place.ids[2]
    place.table.loc[8, "age"] = "-4"
    place.table.loc[place.table["dx"] == "df", "age"] = ""
    message = refusal(place)
    for part in (
        "3 things are wrong:\n"
        f"  - duplicate image ids: {place.ids[2]}\n"
        f"  - age that is no number from 0 to 120: {place.ids[8]} (-4)\n",
        "split=paper, which needs at least 2 images of each class: df has 0\n",
        "Mend the table or the images (HAM10000: fetch it again, make data)",
    ):
        assert part in message


def test_one_fault_is_one_line_and_an_empty_archive_one_error(place: Any) -> None:
    del place.jpegs["ISIC_0000000"]
    lines = refusal(place).splitlines()
    assert lines[0].endswith("cannot be used, 1 thing is wrong:")
    assert lines[1] == "  - images in the table that are not on disk: ISIC_0000000"
    assert "vasc has 0" in refusal(place, table=place.table[:0])
    assert "make data" in refusal(place, jpegs={})
    assert "at least 9 lesions of each class: akiec has 4" in refusal(
        place, replace(LESION, folds=9)
    )


def test_images_that_went_bad_after_the_cache_was_built_are_found(place: Any) -> None:
    root = place.write("folders")
    place.samples(root)
    path = next(root.rglob("ISIC_0000033.jpg"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SkinlesionError, match=r"cannot be decoded: ISIC_0000033 \(damaged"):
        place.samples(root)
