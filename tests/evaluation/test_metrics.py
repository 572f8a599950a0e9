"""Metrics on matrices worked out by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation import metrics
from skinlesion.evaluation.metrics import Sample, evaluate

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


def images(confusion):
    """Labels and one-hot probabilities that have this confusion matrix."""
    truth, predicted = np.nonzero(confusion)
    times = confusion[truth, predicted]
    return np.repeat(truth, times), np.eye(len(confusion))[np.repeat(predicted, times)]


SAMPLE = Sample(*images(CONFUSION), CLASSES)


def once(metric, y, probabilities):
    """A metric of images that count once each."""
    classes = tuple(map(str, range(probabilities.shape[1])))
    return metric(Sample(np.array(y), probabilities, classes))[0]


def test_counts_of_each_class_against_the_rest():
    assert SAMPLE.confusion.tolist() == [CONFUSION.tolist()]  # the truth in rows
    counts = (SAMPLE.tp, SAMPLE.fp, SAMPLE.support - SAMPLE.tp, SAMPLE.tn)
    assert [part[0].tolist() for part in counts] == [[3, 2, 2], [1, 1, 1], [2, 1, 0], [4, 6, 7]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.precision, [3 / 4, 2 / 3, 2 / 3]),
        (metrics.recall, [3 / 5, 2 / 3, 2 / 2]),
        (metrics.specificity, [4 / 5, 6 / 7, 7 / 8]),
        # 2TP / (2TP + FP + FN): 6/(6+1+2), 4/(4+1+1), 4/(4+1+0); the formula printed in the paper,
        # with + TN, would give 6/13, 4/12, 4/12
        (metrics.f1, [6 / 9, 4 / 6, 4 / 5]),
        (metrics.ovr_accuracy, [7 / 10, 8 / 10, 9 / 10]),
    ],
)
def test_metrics_by_class(metric, expected):
    assert metric(SAMPLE)[0] == pytest.approx(expected)


def test_overall_metrics():
    assert metrics.accuracy(SAMPLE)[0] == pytest.approx(7 / 10)
    # (3/5 + 2/3 + 1) / 3 = (9 + 10 + 15) / 45
    assert metrics.balanced_accuracy(SAMPLE)[0] == pytest.approx(34 / 45)
    # ((3/5 + 4/5)/2 + (2/3 + 6/7)/2 + (1 + 7/8)/2) / 3 = (0.7 + 16/21 + 0.9375) / 3
    expected = (0.7 + 16 / 21 + 0.9375) / 3
    assert metrics.ovr_balanced_accuracy(SAMPLE)[0] == pytest.approx(expected)


def test_a_class_that_is_never_predicted_has_precision_and_f1_zero():
    result = evaluate(*images(np.array([[4, 0], [1, 0]])), ("a", "b"))["per_class"]
    assert [result[c]["precision"] for c in "ab"] == [4 / 5, 0]
    assert [result[c]["recall"] for c in "ab"] == [1, 0]
    assert [result[c]["f1"] for c in "ab"] == [8 / 9, 0]


def test_a_class_absent_from_the_labels_is_not_measured_and_not_averaged():
    #  3 of a (one taken for c), 1 of b, none of c
    confusion = np.array([[2, 0, 1], [0, 1, 0], [0, 0, 0]])
    result = evaluate(*images(confusion), CLASSES)
    absent = result["per_class"]["c"]
    assert absent["support"] == 0
    unmeasured = ("precision", "recall", "f1", "auc", "average_precision")
    assert all(absent[name] is None for name in unmeasured)
    # c against the rest: TN 3, FP 1
    assert absent["specificity"] == absent["accuracy"] == pytest.approx(3 / 4)
    recall = pytest.approx((2 / 3 + 1) / 2)
    assert result["macro"]["recall"] == result["balanced_accuracy"] == recall
    assert result["macro"]["precision"] == pytest.approx((2 / 2 + 1 / 1) / 2)
    # sd of (2/3, 1) over two classes, not three: half their distance
    assert result["sd"]["recall"] == pytest.approx(1 / 6)
    # a: (2/3 + 1)/2 = 5/6; b: (1 + 1)/2 = 1
    assert result["ovr_balanced_accuracy"] == pytest.approx((5 / 6 + 1) / 2)


def test_one_class_alone_has_neither_specificity_nor_auc():
    result = evaluate(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]), ("a", "b"))
    assert result["per_class"]["b"]["recall"] == 0.5
    unmeasured = (result["per_class"]["b"]["specificity"], result["macro"]["auc"])
    # The specificity of a, which has no image, weighs nothing.
    unmeasured += (result["sd"]["auc"], result["weighted"]["specificity"])
    assert (*unmeasured, result["ovr_balanced_accuracy"]) == (None,) * 5


def test_auc_counts_a_tie_one_half():
    # Scores for class 1: positives .8 and .5, negatives .5 and .2. Of the four pairs, .8 > .5,
    # .8 > .2 and .5 > .2 are won, .5 = .5 is a tie: (3 + 1/2) / 4.
    score = np.array([0.8, 0.5, 0.5, 0.2])
    area = once(metrics.auc, [1, 1, 0, 0], np.column_stack([1 - score, score]))
    assert area == pytest.approx([0.875, 0.875])


def test_average_precision_by_hand():
    # Class 1: .9 right, .7 wrong, .6 right, .2 wrong: 1/2 * 1 + 1/2 * 2/3. Class 0, whose scores
    # are the rest: .8 right, .4 wrong, .3 right, .1 wrong, the same.
    score = np.array([0.9, 0.7, 0.6, 0.2])
    areas = once(metrics.average_precision, [1, 0, 1, 0], np.column_stack([1 - score, score]))
    assert areas == pytest.approx([5 / 6, 5 / 6])


@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_sklearn_also_piece_by_piece(seed, monkeypatch):
    from sklearn.metrics import average_precision_score, roc_auc_score

    random = np.random.default_rng(seed)
    y = random.integers(4, size=60)
    probabilities = random.multinomial(10, [1 / 4] * 4, size=60) / 10  # with many ties
    monkeypatch.setattr(metrics, "PAIRS", 100)
    under_roc = once(metrics.auc, y, probabilities)
    areas = once(metrics.average_precision, y, probabilities)
    for c in range(4):
        expected = average_precision_score(y == c, probabilities[:, c])
        assert areas[c] == pytest.approx(expected, abs=1e-12)
        expected = roc_auc_score(y == c, probabilities[:, c])
        assert under_roc[c] == pytest.approx(expected, abs=1e-12)


def test_ece():
    # 15 bins are 1/15 = .0667 wide. Top probabilities: .9 and .92 share (.8667, .9333]; one of the
    # two is right: |1/2 - .91| = .41. .6 lies in (.5333, .6] and is right: |1 - .6| = .4;
    # .7 in (.6667, .7333] and is wrong: |0 - .7| = .7.
    # (2 * .41 + .4 + .7) / 4 = .48
    top = np.array([0.9, 0.92, 0.6, 0.7])
    probabilities = np.column_stack([top, 1 - top])
    assert once(metrics.ece, [0, 1, 0, 1], probabilities) == pytest.approx(0.48)


def test_brier_sums_over_classes_and_averages_over_images():
    # (.7 - 1)^2 + .2^2 + .1^2 = .09 + .04 + .01 = .14
    # .5^2 + (.3 - 1)^2 + .2^2 = .25 + .49 + .04 = .78
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    assert once(metrics.brier, [0, 1], probabilities) == pytest.approx((0.14 + 0.78) / 2)


def test_nll_is_the_mean_of_minus_log_p_of_the_true_class():
    # -ln .7 = .356675, -ln .3 = 1.203973, and -ln 1e-12 = 27.631021 in the place of infinity
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0, 1, 0]])
    expected = (0.356675 + 1.203973 + 27.631021) / 3
    assert once(metrics.nll, [0, 1, 2], probabilities) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("sure", "y", "area", "answered"),
    [
        # risks 0, 1/2, 1/3, 2/4; and where two are equally sure, and answered together, 1/3 twice
        ([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1], (1 / 2 + 1 / 3 + 2 / 4) / 4, 1 / 4),
        ([0.9, 0.8, 0.8, 0.6], [0, 1, 0, 1], (1 / 3 + 1 / 3 + 2 / 4) / 4, 1 / 4),
        # one wrong of 20, the first, is 5 %: H(20) = 3.597740; the second makes it 2/21
        (np.linspace(0.9, 0.6, 21), [1, *[0] * 19, 1], (3.597740 + 2 / 21) / 21, 20 / 21),
        ([0.9, 0.8], [1, 1], 1, 0),
    ],
)
def test_risk_over_coverage_and_what_can_be_answered(sure, y, area, answered):
    probabilities = np.column_stack([sure, 1 - np.array(sure)])
    assert once(metrics.aurc, y, probabilities) == pytest.approx(area, abs=1e-6)
    assert once(metrics.answered_at_5, y, probabilities) == pytest.approx(answered)


def test_means_skip_what_was_not_measured():
    # mean 2, deviations 1 and 1: sqrt(2 / 2) = 1 (the sample formula would give sqrt(2 / 1))
    values = np.array([1, np.nan, 3])
    assert metrics.macro(values) == 2
    assert metrics.sd(values) == 1
    # (1 * 2 + 4 * 1) / (2 + 1)
    assert metrics.weighted(np.array([1, np.nan, 4]), np.array([2, 7, 1])) == 2
    assert np.isnan(metrics.weighted(np.array([np.nan, np.nan]), np.array([2, 7])))


def test_weighted_is_the_mean_over_images_of_their_class_value():
    # Supports 5, 3, 2 of 10
    result = evaluate(*images(CONFUSION), CLASSES)["weighted"]
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


def test_the_perfect_and_the_constant_predictor():
    result = evaluate(np.array([0, 1, 2, 2]), np.eye(3)[[0, 1, 2, 2]], CLASSES)
    for key in ("accuracy", "balanced_accuracy", "ovr_balanced_accuracy"):
        assert result[key] == 1
    assert result["ece"] == result["brier"] == 0
    perfect = dict.fromkeys(result["macro"], 1) | {"ece": 0, "brier": 0, "nll": 0}
    assert result["macro"] == perfect
    assert set(result["sd"].values()) == {0}

    # a is right 4 times of 6; b and c are never predicted
    y = np.array([0, 0, 0, 0, 1, 2])
    result = evaluate(y, np.tile([0.5, 0.3, 0.2], (6, 1)), CLASSES)
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["balanced_accuracy"] == pytest.approx(1 / 3)  # recalls 1, 0, 0
    assert result["ovr_balanced_accuracy"] == 0.5  # (1 + 0)/2, (0 + 1)/2, (0 + 1)/2
    assert result["macro"]["auc"] == 0.5  # nothing but ties
    assert result["macro"]["precision"] == pytest.approx(4 / 6 / 3)
    assert result["ece"] == pytest.approx(4 / 6 - 0.5)


def test_how_sure_it_is_by_class_adds_up_to_how_sure_it_is():
    y = np.array([0, 0, 1, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.8, 0], [0.6, 0.2, 0.2]])
    result = evaluate(y, probabilities, CLASSES)
    a = result["per_class"]["a"]
    # Of a against the rest every image has a bin of its own: errors 0.2, 0.5, -0.2, -0.6.
    assert a["ece"] == pytest.approx((0.2 + 0.5 + 0.2 + 0.6) / 4)
    assert a["brier"] == pytest.approx((0.04 + 0.25 + 0.04 + 0.36) / 4)
    assert a["nll"] == pytest.approx(-np.log(0.8 * 0.5) / 2)
    assert sum(each["brier"] for each in result["per_class"].values()) == pytest.approx(
        result["brier"]
    )
    assert result["weighted"]["nll"] == pytest.approx(result["nll"])


def test_evaluate_returns_plain_numbers_at_their_addresses():
    result = evaluate(*images(CONFUSION), CLASSES)
    means = ["macro", "weighted", "sd"]
    assert list(result) == [*metrics.OVERALL, *means, "per_class", "confusion"]
    by_class = [name for name in metrics.BY_CLASS if name != "support"]
    for key in ("macro", "weighted", "sd"):
        assert list(result[key]) == by_class
    assert list(result["per_class"]) == list(CLASSES)
    assert list(result["per_class"]["a"]) == ["support", *by_class]
    assert [result["per_class"][name]["support"] for name in CLASSES] == [5, 3, 2]
    assert (result["n"], result["confusion"]) == (10, CONFUSION.tolist())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("y", "probabilities", "message"),
    [
        ([0, 1], [[1, 0, 0]], "do not fit"),
        ([0], [[0.5, 0.5]], "do not fit"),
        ([], np.empty((0, 3)), "do not fit"),
        ([0], [[np.nan, 0, 0]], "not finite"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(y, probabilities, message):
    with pytest.raises(SkinlesionError, match=message):
        evaluate(np.array(y, dtype=int), np.array(probabilities, dtype=float), CLASSES)


def test_a_new_metric_is_one_entry(monkeypatch):
    hits = metrics.Metric("hits", "hits", lambda s: s.tp, by_class=True, format=",.0f")
    monkeypatch.setitem(metrics.BY_CLASS, "hits", hits)
    monkeypatch.setitem(metrics.AVERAGED, "hits", hits)
    result = evaluate(*images(CONFUSION), CLASSES)
    assert result["per_class"]["a"]["hits"] == 3
    assert result["macro"]["hits"] == pytest.approx(7 / 3)
    assert metrics.summary_table(result).splitlines()[0].split()[-1] == "hits"
    assert metrics.metric_at("macro.hits") == (hits, "macro hits")


def test_the_summary_has_a_line_for_each_class_and_their_means():
    lines = metrics.summary_table(evaluate(*images(CONFUSION), CLASSES)).splitlines()
    titles = ["class", "images", "precision", "recall", "specificity", "F1", "AUC", "AP"]
    assert lines[0].split()[:8] == titles
    rule = lines[1]
    assert [line.split()[0] for line in lines] == [
        "class", rule, "a", "b", "c", rule, "macro", "sd", rule, "images",
    ]  # fmt: skip
    assert lines[2].split()[:5] == ["a", "5", "0.750", "0.600", "0.800"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1].startswith("images 10, accuracy 0.700, balanced accuracy 0.756,")


def test_the_summary_has_a_dash_where_nothing_was_measured_or_an_older_release_did_not():
    result = evaluate(np.array([0, 1]), np.eye(3)[[0, 1]], CLASSES)
    del result["per_class"]["c"]["accuracy"]
    row = metrics.summary_table(result).splitlines()[4]
    assert row.split() == ["c", "0", "-", "-", "1.000", "-", "-", "-", "-"]


def test_importing_the_package_imports_neither_torch_nor_scipy():
    code = (
        "import sys\nfrom skinlesion.evaluation import measured\n"
        "sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
