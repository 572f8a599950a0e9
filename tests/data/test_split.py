"""Two protocols: by image as published, and by lesion without a leak; both also in folds."""

import hashlib
import itertools
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.split import Split, leak_report, split_summary
from skinlesion.errors import SkinlesionError, validated

PAPER = Split("paper", by="image", seed=0, val_fraction=0.1, test_fraction=0)
LESION = Split("lesion", by="lesion", seed=0, val_fraction=0.1, test_fraction=0.1)
BOTH = pytest.mark.parametrize("split", [PAPER, LESION], ids=["paper", "lesion"])


def table(lesions, images=2, **others):
    """So many lesions of each class, with so many images each."""
    rows = [
        (f"{dx}{lesion}", f"{dx}{lesion}_{image}", dx, 50.0)
        for dx in CLASSES
        for lesion in range(others.get(dx, lesions))
        for image in range(images)
    ]
    return pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx", "age"])


def counts(frame, part):
    found = frame.loc[frame["split"] == part, "dx"].value_counts()
    return [int(found.get(name, 0)) for name in CLASSES]


# --- the real table -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 123456789])
def test_the_papers_split_has_the_papers_counts_and_leaks(real_table, seed):
    frame = replace(PAPER, seed=seed).apply(real_table, CLASSES)
    assert counts(frame, "train") == [294, 463, 980, 103, 1000, 5994, 128]
    assert counts(frame, "val") == [33, 51, 109, 12, 111, 666, 14]
    # 42.0 % on average, 38.8-45.4 % in 200 draws
    assert 0.38 < leak_report(frame, CLASSES)["val"]["share"] < 0.46


def test_the_lesion_split_takes_tenths_of_the_lesions_and_does_not_leak(real_table):
    frame = LESION.apply(real_table, CLASSES)
    assert frame.groupby("lesion_id")["split"].nunique().max() == 1
    total = frame.groupby("dx")["lesion_id"].nunique()
    for part, found in leak_report(frame, CLASSES).items():
        assert found["leaked"] == 0
        lesions = frame[frame["split"] == part].groupby("dx")["lesion_id"].nunique()
        assert np.abs(lesions - 0.1 * total).max() <= 0.5
        assert found["images"] == pytest.approx(996, rel=0.05)


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        (PAPER, "d65cbf811d69"),
        (LESION, "bda84e9da75d"),
        (replace(PAPER, folds=5, fold=2), "75d9218ed7d7"),
        (replace(LESION, folds=5, fold=2), "581f80e41c99"),
    ],
)
def test_the_draws_are_those_of_every_release(real_table, split, digest):
    frame = split.apply(real_table, CLASSES)
    text = frame[["image_id", "lesion_id", "dx", "split"]].to_csv(index=False)
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


# --- what holds for every draw ------------------------------------------------------------------


@BOTH
def test_every_image_is_in_one_part_as_the_seed_decides(split):
    frame = table(20)
    drawn = split.apply(frame, CLASSES)
    pd.testing.assert_frame_equal(drawn.drop(columns="split"), frame)
    assert "split" not in frame
    assert set(drawn["split"]) == set(split.parts)
    pd.testing.assert_frame_equal(split.apply(frame, CLASSES), drawn)
    assert (replace(split, seed=1).apply(frame, CLASSES)["split"] != drawn["split"]).any()


@pytest.mark.parametrize("by", ["image", "lesion"])
@pytest.mark.parametrize("folds", [None, 2, 3])
def test_every_class_is_in_every_part_or_the_split_is_refused(by, folds):
    refused = []
    shares = [(0.1, 0), (0.9, 0), (0.45, 0.5), (0.6, 0.3)]
    for (val, test), size, fold in itertools.product(shares, range(1, 6), range(folds or 1)):
        split = Split("any", by, 0, val, test, folds, fold)
        try:
            frame = split.apply(table(size, images=1), CLASSES)
        except SkinlesionError:
            refused.append(size)
            continue
        assert all(min(counts(frame, part)) > 0 for part in split.parts), (size, fold)
    # Never for lack of more than a unit a part, or a unit a fold.
    assert max(refused, default=0) < max(4, folds or 0)


def test_a_class_that_cannot_be_in_every_part_is_named():
    frame = table(5, df=2, vasc=0)
    with pytest.raises(SkinlesionError, match=r"split=lesion.* 3 lesions .*: df has 2, vasc has 0"):
        LESION.apply(frame, CLASSES)
    frame.loc[frame["dx"] == "df", "age"] = np.nan  # which are left out
    with pytest.raises(SkinlesionError, match=r"split=paper.* 2 images .*: df has 0, vasc has 0"):
        PAPER.apply(frame, CLASSES)


@BOTH
@pytest.mark.parametrize(("drop", "left"), [(True, 124), (False, 140)])
def test_images_without_an_age_are_left_out_only_if_asked(split, drop, left):
    frame = table(10)
    frame.loc[::9, "age"] = np.nan
    drawn = replace(split, drop_missing_age=drop).apply(frame, CLASSES)
    assert drawn.index.tolist() == list(range(left))
    assert drawn["split"].notna().all()


@BOTH
@pytest.mark.parametrize("k", [2, 5, 10])
def test_the_folds_divide_the_reported_images_among_them_evenly(split, k):
    frame = table(10, **dict(zip(CLASSES, range(10, 31, 3), strict=True)))
    reported = []
    for fold in range(k):
        drawn = replace(split, folds=k, fold=fold).apply(frame, CLASSES)
        reported.append(drawn[drawn["split"] == split.parts[-1]])
        assert set(drawn["split"]) == set(split.parts)
        assert split.by == "image" or drawn.groupby("lesion_id")["split"].nunique().max() == 1
    assert sorted(pd.concat(reported)["image_id"]) == sorted(frame["image_id"])
    units = [fold.drop_duplicates(f"{split.by}_id")["dx"].value_counts() for fold in reported]
    by_class = pd.DataFrame(units)[list(CLASSES)]
    assert (by_class.max() - by_class.min()).max() <= 1
    assert np.ptp(by_class.sum(axis=1)) <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"by": "patient"}, "split.by=patient: expected 'image' or 'lesion'"),
        ({"seed": -1}, "split.seed=-1: expected greater than or equal to 0"),
        ({"val_fraction": 0}, "split.val_fraction=0: expected greater than 0"),
        ({"test_fraction": -0.1}, "split.test_fraction=-0.1: expected greater than or equal to 0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "expected something left to train on"),
        ({"folds": 1}, "split.folds=1: expected greater than or equal to 2"),
        ({"folds": 5, "fold": 5}, "fold=5: expected one from 0 to 4"),
        ({"flods": 5}, "split.flods: there is no such key. Did you mean split.folds"),
    ],
    ids=str,
)
def test_a_split_that_cannot_be_is_refused_in_one_line(wrong, message):
    with pytest.raises(SkinlesionError) as caught:
        validated(Split, asdict(PAPER) | wrong, "split")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the leak -----------------------------------------------------------------------------------


@pytest.fixture
def leaky():
    """By hand: of four held-out images, those of n1 and m1 have a lesion in training."""
    rows = [
        *[("n1", "nv", "train"), ("n1", "nv", "val"), ("n2", "nv", "train")],
        *[("n3", "nv", "val"), ("n3", "nv", "val"), ("m1", "mel", "train")],
        *[("m1", "mel", "val"), ("d1", "df", "train"), ("d1", "df", "train")],
    ]
    return pd.DataFrame(rows, columns=["lesion_id", "dx", "split"])


def test_the_leak_is_counted_by_part_and_class(leaky):
    none = {"images": 0, "leaked": 0, "share": 0}
    by_class = dict.fromkeys(CLASSES, none) | {
        "nv": {"images": 3, "leaked": 1, "share": pytest.approx(1 / 3)},
        "mel": {"images": 1, "leaked": 1, "share": 1},
    }
    assert leak_report(leaky, CLASSES) == {
        "val": {"images": 4, "leaked": 2, "share": 0.5, "per_class": by_class}
    }
    # A lesion in two held-out parts is none.
    leaky["split"] = leaky["split"].replace("train", "test")
    assert leak_report(leaky, CLASSES)["val"]["leaked"] == 0


def test_a_summary_gives_the_sizes_and_the_leak(leaky):
    assert split_summary(leaky, PAPER, CLASSES) == (
        "split=paper: 9 images\n"
        "  train      5  akiec/bcc/bkl/df/mel/nv/vasc = 0/0/0/2/1/2/0\n"
        "  val        4  akiec/bcc/bkl/df/mel/nv/vasc = 0/0/0/0/1/3/0\n"
        "  leak: 2 of 4 val images (50.0 %) show a lesion that is also in training: "
        "akiec 0 %, bcc 0 %, bkl 0 %, df 0 %, mel 100 %, nv 33 %, vasc 0 %"
    )
    text = split_summary(LESION.apply(table(10), CLASSES), LESION, CLASSES)
    assert text.endswith("leak: 0 of 14 test images (0.0 %) show a lesion that is also in training")
