"""Metrics on matrices worked out by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation import metrics

CLASSES = ("a", "b", "c")
# Rows are the truth. Supports 5, 3, 2; n = 10.
#          a  b  c
CONFUSION = np.array(
    [
        [3, 1, 1],
        [1, 2, 0],
        [0, 0, 2],
    ]
)
# a: TP 3, FP 0+1+0 = 1, FN 1+1 = 2, TN 10-3-1-2 = 4
# b: TP 2, FP 1+0   = 1, FN 1+0 = 1, TN 10-2-1-1 = 6
# c: TP 2, FP 1+0   = 1, FN 0   = 0, TN 10-2-1-0 = 7
COUNTS = metrics.one_vs_rest(CONFUSION)


def samples(confusion):
    """Labels and one-hot probabilities that have this confusion matrix."""
    truth, predicted = np.nonzero(confusion)
    times = confusion[truth, predicted]
    return np.repeat(truth, times), np.eye(len(confusion))[np.repeat(predicted, times)]


def test_confusion_matrix_has_the_truth_in_rows():
    y, probabilities = samples(CONFUSION)
    matrix = metrics.confusion_matrix(y, probabilities.argmax(axis=1), 3)
    assert matrix.tolist() == CONFUSION.tolist()


def test_confusion_matrix_keeps_classes_that_never_occur():
    matrix = metrics.confusion_matrix(np.array([0, 0]), np.array([0, 1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_one_vs_rest_counts():
    assert [part.tolist() for part in COUNTS] == [[3, 2, 2], [1, 1, 1], [2, 1, 0], [4, 6, 7]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.precision, [3 / 4, 2 / 3, 2 / 3]),
        (metrics.recall, [3 / 5, 2 / 3, 2 / 2]),
        (metrics.specificity, [4 / 5, 6 / 7, 7 / 8]),
        # 2TP / (2TP + FP + FN): 6/(6+1+2), 4/(4+1+1), 4/(4+1+0)
        (metrics.f1, [6 / 9, 4 / 6, 4 / 5]),
        (metrics.ovr_accuracy, [7 / 10, 8 / 10, 9 / 10]),
    ],
)
def test_per_class_metrics(metric, expected):
    assert metric(COUNTS) == pytest.approx(expected)


def test_overall_metrics():
    assert metrics.accuracy(CONFUSION) == pytest.approx(7 / 10)
    # (3/5 + 2/3 + 1) / 3 = (9 + 10 + 15) / 45
    assert metrics.balanced_accuracy(COUNTS) == pytest.approx(34 / 45)
    # ((3/5 + 4/5)/2 + (2/3 + 6/7)/2 + (1 + 7/8)/2) / 3 = (0.7 + 16/21 + 0.9375) / 3
    assert metrics.ovr_balanced_accuracy(COUNTS) == pytest.approx((0.7 + 16 / 21 + 0.9375) / 3)


def test_f1_is_the_harmonic_mean_and_has_no_true_negatives():
    """The formula printed in the paper, with + TN, would give 6/13, 4/12, 4/12."""
    p, r = metrics.precision(COUNTS), metrics.recall(COUNTS)
    assert metrics.f1(COUNTS) == pytest.approx(2 * p * r / (p + r))


def test_a_class_that_is_never_predicted_has_precision_and_f1_zero():
    counts = metrics.one_vs_rest(np.array([[4, 0], [1, 0]]))
    assert metrics.precision(counts).tolist() == [4 / 5, 0]
    assert metrics.recall(counts).tolist() == [1, 0]
    assert metrics.f1(counts).tolist() == [8 / 9, 0]


def test_a_class_absent_from_the_labels_is_not_measured_and_not_averaged():
    #  3 of a (one taken for c), 1 of b, none of c
    confusion = np.array([[2, 0, 1], [0, 1, 0], [0, 0, 0]])
    result = metrics.evaluate(*samples(confusion), CLASSES)
    absent = result["per_class"]["c"]
    assert absent["support"] == 0
    assert all(absent[name] is None for name in ("precision", "recall", "f1", "auc"))
    # c against the rest: TN 3, FP 1
    assert absent["specificity"] == absent["accuracy"] == pytest.approx(3 / 4)
    assert (
        result["macro"]["recall"] == result["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    )
    assert result["macro"]["precision"] == pytest.approx((2 / 2 + 1 / 1) / 2)
    # sd of (2/3, 1) over two classes, not three: half their distance
    assert result["sd"]["recall"] == pytest.approx(1 / 6)
    # a: (2/3 + 1)/2 = 5/6; b: (1 + 1)/2 = 1
    assert result["ovr_balanced_accuracy"] == pytest.approx((5 / 6 + 1) / 2)


def test_one_class_alone_has_neither_specificity_nor_auc():
    result = metrics.evaluate(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]), ("a", "b"))
    assert result["per_class"]["b"]["recall"] == 0.5
    assert result["per_class"]["b"]["specificity"] is None
    assert result["macro"]["auc"] is None
    assert result["sd"]["auc"] is None
    assert result["ovr_balanced_accuracy"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_auc_counts_a_tie_one_half():
    # Scores for class 1: positives .8 and .5, negatives .5 and .2. Of the four pairs, .8 > .5,
    # .8 > .2 and .5 > .2 are won, .5 = .5 is a tie: (3 + 1/2) / 4.
    y = np.array([1, 1, 0, 0])
    score = np.array([0.8, 0.5, 0.5, 0.2])
    area = metrics.auc(y, np.column_stack([1 - score, score]))
    assert area == pytest.approx([0.875, 0.875])


def test_average_precision_by_hand():
    # Class 1: .9 right, .7 wrong, .6 right, .2 wrong: 1/2 * 1 + 1/2 * 2/3. Class 0, whose scores
    # are the rest: .8 right, .4 wrong, .3 right, .1 wrong, the same.
    y = np.array([1, 0, 1, 0])
    score = np.array([0.9, 0.7, 0.6, 0.2])
    areas = metrics.average_precision(y, np.column_stack([1 - score, score]))
    assert areas == pytest.approx([5 / 6, 5 / 6])


def test_average_precision_takes_equal_scores_as_one_step():
    # Whatever their order in the file, two of three are right above the only threshold.
    for y in ([1, 1, 0], [0, 1, 1], [1, 0, 1]):
        areas = metrics.average_precision(np.array(y), np.full((3, 2), 0.5))
        assert areas == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_and_auc_agree_with_sklearn(seed):
    from sklearn.metrics import average_precision_score, roc_auc_score

    random = np.random.default_rng(seed)
    y = random.integers(4, size=60)
    probabilities = random.multinomial(10, [1 / 4] * 4, size=60) / 10  # with many ties
    areas, under_roc = metrics.average_precision(y, probabilities), metrics.auc(y, probabilities)
    for c in range(4):
        expected = average_precision_score(y == c, probabilities[:, c])
        assert areas[c] == pytest.approx(expected, abs=1e-12)
        expected = roc_auc_score(y == c, probabilities[:, c])
        assert under_roc[c] == pytest.approx(expected, abs=1e-12)


def test_a_class_without_a_sample_has_no_average_precision():
    areas = metrics.average_precision(np.array([0, 0]), np.array([[0.9, 0.1], [0.4, 0.6]]))
    assert areas[0] == 1
    assert np.isnan(areas[1])


def test_ranked_counts_go_down_the_scores():
    positive = np.array([True, False, True, False])
    tp, fp = metrics.ranked_counts(positive, np.array([0.2, 0.5, 0.5, 0.1]))
    assert (tp.tolist(), fp.tolist()) == ([1, 2, 2], [1, 1, 2])


def test_auc_is_one_vs_rest():
    # Class 0: positive .6, negatives .3, .7     -> 1 of 2 pairs
    # Class 1: positive .5, negatives .3, .2     -> 2 of 2
    # Class 2: positive .1, negatives .1, .2     -> a tie and a loss of 2
    probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.7, 0.2, 0.1]])
    assert metrics.auc(np.array([0, 1, 2]), probabilities) == pytest.approx([0.5, 1, 0.25])


def test_ece():
    # 15 bins are 1/15 = .0667 wide. Top probabilities: .9 and .92 share (.8667, .9333]; one of the
    # two is right: |1/2 - .91| = .41. .6 lies in (.5333, .6] and is right: |1 - .6| = .4;
    # .7 in (.6667, .7333] and is wrong: |0 - .7| = .7.
    # (2 * .41 + .4 + .7) / 4 = .48
    top = np.array([0.9, 0.92, 0.6, 0.7])
    probabilities = np.column_stack([top, 1 - top])
    assert metrics.ece(np.array([0, 1, 0, 1]), probabilities) == pytest.approx(0.48)


def test_ece_of_one_bin_lets_errors_cancel():
    # mean confidence (.9 + .92 + .6 + .7) / 4 = .78, accuracy 2/4
    top = np.array([0.9, 0.92, 0.6, 0.7])
    probabilities = np.column_stack([top, 1 - top])
    assert metrics.ece(np.array([0, 1, 0, 1]), probabilities, n_bins=1) == pytest.approx(0.28)


def test_brier_sums_over_classes_and_averages_over_samples():
    # (.7 - 1)^2 + .2^2 + .1^2 = .09 + .04 + .01 = .14
    # .5^2 + (.3 - 1)^2 + .2^2 = .25 + .49 + .04 = .78
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    assert metrics.brier(np.array([0, 1]), probabilities) == pytest.approx((0.14 + 0.78) / 2)


def test_macro_and_sd_skip_what_was_not_measured():
    # mean 2, deviations 1 and 1: sqrt(2 / 2) = 1 (the sample formula would give sqrt(2 / 1))
    values = np.array([1, np.nan, 3])
    assert metrics.macro(values) == 2
    assert metrics.sd(values) == 1


def test_weighted_is_the_mean_over_samples_of_their_class_value():
    # Supports 5, 3, 2 of 10
    result = metrics.evaluate(*samples(CONFUSION), CLASSES)["weighted"]
    # (5 * 3/4 + 3 * 2/3 + 2 * 2/3) / 10 = (45 + 24 + 16) / 120
    assert result["precision"] == pytest.approx(85 / 120)
    # (5 * 3/5 + 3 * 2/3 + 2 * 1) / 10: the accuracy, 7 right of 10
    assert result["recall"] == pytest.approx(7 / 10)
    # (5 * 4/5 + 3 * 6/7 + 2 * 7/8) / 10 = (4 + 18/7 + 7/4) / 10
    assert result["specificity"] == pytest.approx((4 + 18 / 7 + 7 / 4) / 10)
    # (5 * 2/3 + 3 * 2/3 + 2 * 4/5) / 10 = (50 + 30 + 24) / 150
    assert result["f1"] == pytest.approx(104 / 150)
    # (5 * 7 + 3 * 8 + 2 * 9) / 100
    assert result["accuracy"] == pytest.approx(77 / 100)


def test_weighted_skips_what_was_not_measured():
    # (1 * 2 + 4 * 1) / (2 + 1)
    assert metrics.weighted(np.array([1, np.nan, 4]), np.array([2, 7, 1])) == 2
    assert np.isnan(metrics.weighted(np.array([np.nan, np.nan]), np.array([2, 7])))
    # b alone has samples, and no specificity; that of a, which has none, weighs nothing
    alone = metrics.evaluate(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]), ("a", "b"))
    assert alone["weighted"]["specificity"] is None


def test_matrices_may_be_stacked():
    mirrored = CONFUSION[::-1, ::-1]  # a and c change places
    confusion = np.stack([[CONFUSION, mirrored]])  # (1, 2, C, C)
    counts = metrics.one_vs_rest(confusion)
    support = counts.tp + counts.fn
    assert support.tolist() == [[[5, 3, 2], [2, 3, 5]]]
    assert metrics.recall(counts)[0] == pytest.approx(
        np.array([[3 / 5, 2 / 3, 1], [1, 2 / 3, 0.6]])
    )
    assert metrics.specificity(counts)[0, 1] == pytest.approx([7 / 8, 6 / 7, 4 / 5])
    assert metrics.accuracy(confusion) == pytest.approx(np.full((1, 2), 7 / 10))
    f1 = metrics.f1(counts)
    assert metrics.macro(f1) == pytest.approx(np.full((1, 2), (2 / 3 + 2 / 3 + 4 / 5) / 3))
    assert metrics.weighted(f1, support) == pytest.approx(np.full((1, 2), 104 / 150))
    # values x, x, x + d: the sd is d * sqrt(2) / 3; 4/5 - 2/3 = 2/15
    assert metrics.sd(f1) == pytest.approx(np.full((1, 2), 2 / 15 * 2**0.5 / 3))


def test_the_perfect_predictor():
    result = metrics.evaluate(np.array([0, 1, 2, 2]), np.eye(3)[[0, 1, 2, 2]], CLASSES)
    for key in ("accuracy", "balanced_accuracy", "ovr_balanced_accuracy"):
        assert result[key] == 1
    assert result["ece"] == result["brier"] == 0
    assert set(result["macro"].values()) == {1}
    assert set(result["sd"].values()) == {0}


def test_the_constant_predictor():
    # a is right 4 times of 6; b and c are never predicted
    y = np.array([0, 0, 0, 0, 1, 2])
    result = metrics.evaluate(y, np.tile([0.5, 0.3, 0.2], (6, 1)), CLASSES)
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["balanced_accuracy"] == pytest.approx(1 / 3)  # recalls 1, 0, 0
    assert result["ovr_balanced_accuracy"] == 0.5  # (1 + 0)/2, (0 + 1)/2, (0 + 1)/2
    assert result["macro"]["auc"] == 0.5  # nothing but ties
    assert result["macro"]["precision"] == pytest.approx(4 / 6 / 3)
    assert result["ece"] == pytest.approx(4 / 6 - 0.5)


def test_evaluate_returns_plain_numbers_in_the_documented_shape():
    result = metrics.evaluate(*samples(CONFUSION), CLASSES)
    assert list(result) == [
        "n",
        "accuracy",
        "balanced_accuracy",
        "ovr_balanced_accuracy",
        "ece",
        "brier",
        "macro",
        "weighted",
        "sd",
        "per_class",
        "confusion",
    ]
    for key in ("macro", "weighted", "sd"):
        assert list(result[key]) == list(metrics.PER_CLASS)
    assert list(result["per_class"]) == list(CLASSES)
    assert list(result["per_class"]["a"]) == ["support", *metrics.PER_CLASS]
    assert [result["per_class"][name]["support"] for name in CLASSES] == [5, 3, 2]
    assert result["n"] == 10
    assert result["confusion"] == CONFUSION.tolist()
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("y", "probabilities", "message"),
    [
        ([0, 1], [[1, 0, 0]], "do not fit"),
        ([0], [[0.5, 0.5]], "do not fit"),
        ([], np.empty((0, 3)), "do not fit"),
        ([3], [[1, 0, 0]], "from 3 to 3"),
        ([-1], [[1, 0, 0]], "from -1 to -1"),
        ([0], [[np.nan, 0, 0]], "not finite"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(y, probabilities, message):
    with pytest.raises(SkinlesionError, match=message):
        metrics.evaluate(np.array(y, dtype=int), np.array(probabilities, dtype=float), CLASSES)


def test_summary_table_aligns_its_rows():
    table = metrics.summary_table(metrics.evaluate(*samples(CONFUSION), CLASSES))
    lines = table.splitlines()
    assert lines[0].split() == ["class", "support", *metrics.PER_CLASS]
    assert [line.split()[0] for line in lines] == [
        "class", lines[1], "a", "b", "c", lines[1], "macro", "sd", lines[1], "n",
    ]  # fmt: skip
    assert lines[2].split()[:5] == ["a", "5", "0.7500", "0.6000", "0.8000"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1].startswith("n 10, accuracy 0.7000, balanced accuracy 0.7556,")


def test_summary_table_has_a_dash_where_nothing_was_measured():
    result = metrics.evaluate(np.array([0, 1]), np.eye(3)[[0, 1]], CLASSES)
    row = metrics.summary_table(result).splitlines()[4]
    assert row.split() == ["c", "0", "-", "-", "1.0000", "-", "-", "1.0000"]


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys\n"
        "from skinlesion.evaluation import metrics, predictions\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
