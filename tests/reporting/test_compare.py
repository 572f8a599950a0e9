"""Two runs on the same images: what differs, how sure that is, and what cannot be compared."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import write_predictions
from skinlesion.reporting.compare import METRICS, compare, table
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


def row_of(comparison, metric):
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
    assert [row.metric for row in comparison.rows] == list(METRICS)
    assert len(comparison.rows) == 8
    # Recalls: A 1, 0, 1; B 0, 1, 1
    values = {row.metric: (row.a, row.b) for row in comparison.rows}
    assert values["accuracy"] == (2 / 4, 3 / 4)
    assert values["balanced accuracy"] == pytest.approx((2 / 3, 2 / 3))
    assert values["melanoma recall"] == (0, 1)
    assert values["sd of recall over classes"] == pytest.approx((2**0.5 / 3, 2**0.5 / 3))
    # F1: A 2/(2+1) for akiec, 0, 2/(2+1) for nv; B 0, 1, 2/(2+1)
    assert values["macro F1"] == pytest.approx((4 / 9, 5 / 9))
    assert values["sd of F1 over classes"][0] == pytest.approx(2 / 3 * 2**0.5 / 3)
    # One bin of confidence .8: |2/4 - .8| and |3/4 - .8|
    assert values["ECE"] == pytest.approx((0.3, 0.05))
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


def test_a_draw_without_melanoma_does_not_count_for_its_recall(small):
    row = row_of(compare(*small, draws=400), "melanoma recall")
    # Wherever the one melanoma is drawn, B finds it and A does not.
    assert (row.difference, row.low, row.high, row.p) == (1, 1, 1, 1 / 400)


def test_a_run_and_itself_do_not_differ(tmp_path):
    frame = random_frame(0, 0.7)
    a = run_of(tmp_path / "a", frame)
    b = run_of(tmp_path / "b", frame.sample(frac=1, random_state=0))
    for row in compare(a, b, draws=100).rows:
        assert row.a == pytest.approx(row.b, abs=1e-15)
        assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_seeds_whose_differences_cancel_do_not_differ(tmp_path):
    # Thirds of accuracies do not add up exactly; their difference is 0 all the same.
    frames = [random_frame(seed, accuracy) for seed, accuracy in ((0, 0.6), (1, 0.7), (2, 0.9))]
    for seed in range(3):
        run_of(tmp_path / "a" / f"seed{seed}", frames[seed])
        run_of(tmp_path / "b" / f"seed{seed}", frames[(seed + 1) % 3])
    for row in compare(tmp_path / "a", tmp_path / "b", draws=100).rows:
        assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_a_planted_difference_is_found(tmp_path):
    a = run_of(tmp_path / "a", random_frame(0, 0.6))
    b = run_of(tmp_path / "b", random_frame(1, 0.9))
    comparison = compare(a, b, draws=500)
    for metric in ("accuracy", "balanced accuracy", "macro F1", "macro AUC"):
        row = row_of(comparison, metric)
        assert row.low > 0.1
        assert row.p == 1 / 500
    backwards = compare(b, a, draws=500)
    row, back = row_of(comparison, "accuracy"), row_of(backwards, "accuracy")
    assert (back.difference, back.p) == (-row.difference, row.p)
    assert (back.low, back.high) == pytest.approx((-row.high, -row.low))


def test_p_is_seldom_small_where_there_is_no_difference(tmp_path):
    small_p = 0
    for seed in range(0, 60, 2):
        a = run_of(tmp_path / f"{seed}a", random_frame(seed, 0.7))
        b = run_of(tmp_path / f"{seed}b", random_frame(seed + 1, 0.7))
        small_p += row_of(compare(a, b, draws=200), "accuracy").p < 0.05
    assert small_p <= 5  # Binomial(30, 0.05): 97 % are at most 4, 99.7 % at most 5


def test_pairing_makes_a_difference_surer(tmp_path):
    # B is A with 12 errors mended: always at least as good, though each accuracy is unsure by 4 %.
    worse = random_frame(0, 0.7)
    better = worse.copy()
    wrong = worse[CLASSES].to_numpy().argmax(axis=1) != pd.Categorical(worse["label"]).codes
    mended = np.flatnonzero(wrong)[:12]
    truth = np.eye(3)[pd.Categorical(worse["label"]).codes[mended]]
    better.loc[mended, CLASSES] = 0.1 + 0.7 * truth
    row = row_of(compare(run_of(tmp_path / "a", worse), run_of(tmp_path / "b", better)), "accuracy")
    assert row.difference == pytest.approx(12 / 120)
    assert 0 < row.low < 0.1 < row.high < 0.2
    assert row.p == 1 / 2000


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


def test_seeds_may_hold_out_different_images(tmp_path):
    def other_images(seed, accuracy):
        frame = random_frame(seed, accuracy)
        return frame.assign(image_id="other" + frame["image_id"])

    a, b = tmp_path / "a", tmp_path / "b"
    run_of(a / "seed0", random_frame(0, 0.6))
    run_of(b / "seed0", random_frame(1, 0.8))
    run_of(a / "seed1", other_images(2, 0.6))
    run_of(b / "seed1", other_images(3, 0.8))
    comparison = compare(a, b, draws=100)
    assert comparison.images == 240
    assert comparison.lesions == random_frame(0, 1)["lesion_id"].nunique()


def test_the_test_part_is_compared_where_there_is_one(tmp_path):
    both = [random_frame(0, 0.7, split) for split in ("val", "test")]
    a, b = run_of(tmp_path / "a", *both), run_of(tmp_path / "b", *both)
    assert compare(a, b, draws=10).part == "test"
    assert compare(a, b, part="val", draws=10).part == "val"
    only_val = run_of(tmp_path / "c", both[0])
    assert compare(a, only_val, draws=10).part == "val"
    with pytest.raises(SkinlesionError, match=r"c/predictions\.csv: no predictions for split 'te"):
        compare(a, only_val, part="test")


def test_other_images_are_refused(tmp_path):
    frame = random_frame(0, 0.7)
    a = run_of(tmp_path / "a", frame)
    with pytest.raises(SkinlesionError, match="of 120 and 90 images 90 are common; the split or"):
        compare(a, run_of(tmp_path / "b", frame.head(90)))
    with pytest.raises(SkinlesionError, match="of 120 and 120 images 0 are common"):
        compare(a, run_of(tmp_path / "c", frame.assign(image_id="x" + frame["image_id"])))


def test_other_labels_lesions_or_classes_are_refused(small, tmp_path):
    a, _ = small
    same = frame_of([0, 0, 2, 2], [0, 1, 1, 2], [7, 8, 8, 9])
    for wrong, message in (
        (same.assign(label=["akiec", "mel", "mel", "mel"]), "the label of test003 differs"),
        (same.assign(lesion_id="x"), "the lesion_id of test000, test001, .* differs"),
        (same.assign(bcc=0.0), "the classes are akiec, mel, nv and akiec, mel, nv, bcc"),
    ):
        with pytest.raises(SkinlesionError, match=message):
            compare(a, run_of(tmp_path / "wrong", wrong))


def test_what_is_no_run_is_refused(small, tmp_path):
    a, b = small
    with pytest.raises(SkinlesionError, match=r"neither predictions\.csv nor seed\*/predictions"):
        compare(a, tmp_path)
    (b.parent / "seed0").rename(b.parent / "seed5")
    with pytest.raises(SkinlesionError, match=r"has seed0 and .* has seed5: no seed is in both"):
        compare(a.parent, b.parent)
    # Named one by one, they are compared whatever their seeds.
    assert compare(a, b.parent / "seed5", draws=10).seeds == ("seed0 with seed5",)


def test_the_table_says_what_it_rests_on(small):
    a, b = small
    text = table(compare(a, b, draws=2000))
    lines = text.splitlines()
    assert lines[:2] == [f"A  {a}", f"B  {b}"]
    assert lines[3].split() == ["metric", "A", "B", "B", "-", "A", "95", "%", "interval", "p"]
    assert len({len(line) for line in lines[3:14]}) == 1
    assert lines[5].split()[:4] == ["accuracy", "0.5000", "0.7500", "+0.2500"]
    assert lines[11].split() == [
        *("melanoma", "recall", "0.0000", "1.0000", "+1.0000", "[+1.0000,", "+1.0000]", "0.0005"),
    ]  # fmt: skip
    assert lines[14:] == [
        "test: 4 images of 3 lesions, 2,000 draws of lesions,",
        "1 seed (seed0).",
        "Intervals and p cover which lesions were held out, not training noise, and the",
        "8 comparisons are not corrected for multiplicity.",
        "Lower is better for ECE and for the sd over classes (more balanced).",
    ]


def test_the_table_of_a_validation_part_says_that_it_selected(tmp_path):
    for name in ("a", "b"):
        for seed in range(2):
            run_of(tmp_path / name / f"seed{seed}", random_frame(seed, 0.7, "val"))
    run_of(tmp_path / "a" / "seed2", random_frame(2, 0.7, "val"))
    lines = table(compare(tmp_path / "a", tmp_path / "b", draws=10)).splitlines()
    assert lines[14].startswith("val, which selected the checkpoints: 120 images of ")
    assert lines[15] == "2 seeds (seed0, seed1; not in both: seed2)."


def test_the_table_has_a_dash_where_nothing_is_measured(tmp_path):
    # One class alone: no melanoma, no AUC.
    for name in ("a", "b"):
        run_of(tmp_path / name, frame_of([0, 1], [0, 0], [0, 1]))
    lines = table(compare(tmp_path / "a", tmp_path / "b", draws=10)).splitlines()
    assert lines[8].split() == ["macro", "AUC", "-", "-", "-", "[-,", "-]", "-"]
    assert lines[11].split() == ["melanoma", "recall", "-", "-", "-", "[-,", "-]", "-"]
