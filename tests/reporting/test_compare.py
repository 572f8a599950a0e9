"""Two runs on the same images: what differs, how sure that is, and what cannot be compared."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.reporting.compare import compare, table
from skinlesion.runs.predictions import write_predictions
from tests.evaluation.draws import lesion_weights

CLASSES = ["akiec", "mel", "nv"]


def frame_of(predicted, labels, lesions, split="test", confidence=0.8):
    """Predictions of these classes, each with this confidence."""
    rest = (1 - confidence) / 2
    probabilities = rest + (confidence - rest) * np.eye(3)[predicted]
    frame = pd.DataFrame(
        {
            "image_id": [f"{split}{i:03d}" for i in range(len(labels))],
            "lesion_id": [f"lesion{lesion}" for lesion in lesions],
            "split": split,
            "label": np.array(CLASSES)[labels],
        }
    )
    return pd.concat([frame, pd.DataFrame(probabilities, columns=CLASSES)], axis=1)


def run_of(folder, *frames):
    write_predictions(pd.concat(frames), folder / "predictions.csv")
    return folder


def row_of(comparison, metric="accuracy"):
    return next(row for row in comparison.rows if row.metric == metric)


def random_frame(seed, accuracy, split="test", images=120, lesions=80):
    """A classifier right on this share of images; labels and lesions are those of every seed."""
    random = np.random.default_rng(99)
    lesion = random.integers(lesions, size=images)
    labels = random.integers(3, size=lesions)[lesion]
    random = np.random.default_rng(seed)
    wrong = random.random(images) >= accuracy
    return frame_of((labels + wrong) % 3, labels, lesion, split)


@pytest.fixture
def small(tmp_path):
    """Four images of three lesions; A has the first and last right, B all but the first."""
    labels, lesions = [0, 1, 1, 2], [7, 8, 8, 9]
    a = run_of(tmp_path / "a" / "seed0", frame_of([0, 0, 2, 2], labels, lesions))
    b = run_of(tmp_path / "b" / "seed0", frame_of([2, 1, 1, 2], labels, lesions))
    return a, b


def test_values_and_differences(small):
    comparison = compare(*small, draws=200)
    # Recalls: A 1, 0, 1; B 0, 1, 1
    expected = {
        "accuracy": (2 / 4, 3 / 4),
        "balanced accuracy": (2 / 3, 2 / 3),
        # One bin of confidence .8: |2/4 - .8| and |3/4 - .8|
        "ECE": (0.3, 0.05),
        "sd of recall": (2**0.5 / 3, 2**0.5 / 3),
        "mel recall": (0, 1),
        # F1: A 2/(2+1) for akiec, 0, 2/(2+1) for nv; B 0, 1, 2/(2+1)
        "macro F1": (4 / 9, 5 / 9),
    }
    found = {row.metric: (row.a, row.b) for row in comparison.rows}
    assert [*found] == [*expected, "sd of F1", "macro AUC"]
    for name, values in expected.items():
        assert found[name] == pytest.approx(values)
    for row in comparison.rows:
        assert row.difference == pytest.approx(row.b - row.a, abs=1e-12)
        assert row.low <= row.high
    assert row_of(comparison, "balanced accuracy").difference == 0


def test_interval_and_p_come_from_the_draws_of_lesions(small):
    row = row_of(compare(*small, draws=400, seed=3), "accuracy")
    # Of x, y and z draws of the lesions 7, 8 and 9, A has x + z of x + 2y + z images right, B has
    # 2y + z: the difference is (2y - x) / (x + 2y + z).
    x, y, z = lesion_weights(["7", "8", "9"], draws=400, seed=3).T
    differences = (2 * y - x) / (x + 2 * y + z)
    assert (row.low, row.high) == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist())
    assert row.p == pytest.approx(2 * min((differences <= 0).mean(), (differences >= 0).mean()))


def test_folders_are_paired_by_seed(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for seed in (2, 10, 3):
        run_of(a / f"seed{seed}", random_frame(seed, 0.6))
    for seed in (10, 2, 4):
        run_of(b / f"seed{seed}", random_frame(seed + 20, 0.8))
    (b / "seed3").mkdir()  # begun, not done
    comparison = compare(a, b, draws=100)
    assert comparison.seeds == ("seed2", "seed10")
    assert comparison.unpaired == ("seed3", "seed4")
    singles = [compare(a / name, b / name, draws=100) for name in comparison.seeds]
    for mean, one, two in zip(comparison.rows, singles[0].rows, singles[1].rows, strict=True):
        assert mean.a == pytest.approx((one.a + two.a) / 2)
        assert mean.difference == pytest.approx((one.difference + two.difference) / 2)
    # The same lesions are drawn for both seeds, and their differences averaged on each draw.
    assert row_of(comparison, "accuracy").low > min(row_of(s, "accuracy").low for s in singles)
    assert (comparison.images, comparison.lesions) == (singles[0].images, singles[0].lesions)


def test_equals_do_not_differ_even_by_rounding(tmp_path):
    # Thirds of accuracies do not add up exactly; their difference is 0 all the same.
    frames = [random_frame(seed, accuracy) for seed, accuracy in ((0, 0.6), (1, 0.7), (2, 0.9))]
    for seed in range(3):
        run_of(tmp_path / "a" / f"seed{seed}", frames[seed])
        other = frames[(seed + 1) % 3].sample(frac=1, random_state=0)  # nor does their order count
        run_of(tmp_path / "b" / f"seed{seed}", other)
    for row in compare(tmp_path / "a", tmp_path / "b", draws=100).rows:
        assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_the_test_part_is_compared_where_there_is_one(tmp_path):
    both = [random_frame(0, 0.7, split) for split in ("val", "test")]
    a, b = run_of(tmp_path / "a", *both), run_of(tmp_path / "b", *both)
    assert compare(a, b, draws=10).part == "test"
    assert compare(a, b, part="val", draws=10).part == "val"
    only_val = run_of(tmp_path / "c", both[0])
    assert compare(a, only_val, draws=10).part == "val"
    with pytest.raises(SkinlesionError, match=r"c/predictions\.csv has no part test; it has val"):
        compare(a, only_val, part="test")


def test_runs_that_are_not_alike_are_refused(small, tmp_path):
    a, b = small
    same = frame_of([0, 0, 2, 2], [0, 1, 1, 2], [7, 8, 8, 9])
    for wrong, message in (
        (same.head(3), "of 4 and 3 images 3 are common; the split or the seed differs"),
        (same.assign(image_id="x" + same["image_id"]), "of 4 and 4 images 0 are common"),
        (same.assign(label=["akiec", "mel", "mel", "mel"]), "the label of test003 differs"),
        (same.assign(lesion_id="x"), "the lesion_id of test000, test001, .* differs"),
        (same.assign(bcc=0.0), "the classes are akiec, mel, nv and akiec, mel, nv, bcc"),
    ):
        with pytest.raises(SkinlesionError, match=message):
            compare(a, run_of(tmp_path / "wrong", wrong))
    with pytest.raises(SkinlesionError, match=r"neither predictions\.csv nor seed\*/predictions"):
        compare(a, tmp_path)
    (b.parent / "seed0").rename(b.parent / "seed5")
    with pytest.raises(SkinlesionError, match=r"has seed0 and .* has seed5: no seed is in both"):
        compare(a.parent, b.parent)
    # Named one by one, they are compared whatever their seeds.
    assert compare(a, b.parent / "seed5", draws=10).seeds == ("seed0 with seed5",)


def test_the_table_says_what_it_rests_on(small):
    a, b = small
    lines = table(compare(a, b, draws=2000)).splitlines()
    assert lines[:3] == [f"A  {a}", f"B  {b}", ""]
    assert lines[3].split() == ["metric", "A", "B", "B", "-", "A", "95", "%", "interval", "p"]
    assert len({len(line) for line in lines[3:14]}) == 1
    assert lines[5].split()[:4] == ["accuracy", "0.500", "0.750", "+0.250"]
    assert lines[9].split() == [
        *("mel", "recall", "0.000", "1.000", "+1.000", "[+1.000,", "+1.000]", "0.0005"),
    ]  # fmt: skip
    assert lines[14:] == [
        "test, which selected nothing: 4 images of 3 lesions; 2,000 draws of lesions;",
        "1 seed (seed0).",
        "Intervals and p cover which lesions were held out, not training noise, and the",
        "8 comparisons are not corrected for multiplicity.",
        "Lower is better for ECE and for every sd (classes more alike).",
    ]


def test_the_table_names_seeds_without_a_partner_and_has_dashes(tmp_path):
    # One class alone: no melanoma, no AUC.
    for name, seeds in (("a", 3), ("b", 2)):
        for seed in range(seeds):
            run_of(tmp_path / name / f"seed{seed}", frame_of([0, 1], [0, 0], [0, 1], "val"))
    lines = table(compare(tmp_path / "a", tmp_path / "b", draws=10)).splitlines()
    assert lines[9].split() == ["mel", "recall", "-", "-", "-", "-", "-"]
    assert lines[12].split() == ["macro", "AUC", "-", "-", "-", "-", "-"]
    assert lines[14].startswith("val, which selected the checkpoint: 2 images of 2 lesions;")
    assert lines[15] == "2 seeds (seed0, seed1; not in both: seed2)."
