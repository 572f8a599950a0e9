"""The metrics against what the authors' notebooks and the paper's tables print."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skinlesion.evaluation import metrics

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "authors_runs.json").read_text())
RUNS = {run["notebook"]: run for run in FIXTURE["runs"]}

# Printed with two decimals: half a unit of the last place.
TWO_DECIMALS = 0.005 + 1e-9


def counts_of(rows):
    """What the metrics take of a sample, from one (TP, FP, FN, TN) per class."""
    tp, fp, fn, tn = np.array(list(rows)).T
    return SimpleNamespace(tp=tp, fp=fp, tn=tn, support=tp + fn)


def assert_report(counts, report):
    """Compare with precision, recall, F1 and support per class, as printed."""
    printed = np.array(list(report))  # (C, 4)
    ours = [metrics.precision(counts), metrics.recall(counts), metrics.f1(counts)]
    np.testing.assert_allclose(np.column_stack(ours), printed[:, :3], rtol=0, atol=TWO_DECIMALS)
    assert counts.support.tolist() == printed[:, 3].tolist()


@pytest.fixture(params=RUNS.values(), ids=lambda run: f"nb{run['notebook']}")
def run(request):
    return request.param


def test_per_class_metrics_are_those_of_the_printed_report(run):
    assert_report(counts_of(run["counts"].values()), run["report"].values())


def test_macro_and_weighted_averages_are_those_of_the_printed_report(run):
    counts = counts_of(run["counts"].values())
    ours = [metrics.precision(counts), metrics.recall(counts), metrics.f1(counts)]
    assert [metrics.macro(values) for values in ours] == pytest.approx(
        run["macro"], abs=TWO_DECIMALS
    )
    assert [np.average(values, weights=counts.support) for values in ours] == pytest.approx(
        run["weighted"], abs=TWO_DECIMALS
    )
    assert metrics.macro(ours[0]) == pytest.approx(run["macro_precision"], abs=1e-12)
    assert metrics.balanced_accuracy(counts) == pytest.approx(run["macro_recall"], abs=1e-12)


@pytest.mark.parametrize(
    ("notebook", "balanced", "specificity"),
    [(36, 0.8759, 0.9587), (38, 0.8705, 0.9595), (35, 0.8819, 0.9649), (43, 0.8886, 0.9649)],
)
def test_table_8_balanced_accuracy_is_one_vs_rest(notebook, balanced, specificity):
    counts = counts_of(RUNS[notebook]["counts"].values())
    assert metrics.ovr_balanced_accuracy(counts) == pytest.approx(balanced, abs=5e-5)
    assert metrics.macro(metrics.specificity(counts)) == pytest.approx(specificity, abs=5e-5)


def test_counts_and_accuracy_from_a_full_confusion_matrix():
    run = RUNS[52]
    confusion = np.array(run["confusion"])
    truth, predicted = np.nonzero(confusion)
    times = confusion[truth, predicted]
    classes = tuple(run["counts"])
    s = metrics.Sample(
        np.repeat(truth, times), np.eye(len(classes))[np.repeat(predicted, times)], classes
    )
    ours = np.stack([s.tp, s.fp, s.support - s.tp, s.tn], axis=-1)[0]
    assert ours.tolist() == list(run["counts"].values())
    assert metrics.accuracy(s)[0] == pytest.approx(run["accuracy"], abs=1e-12)


@pytest.mark.parametrize(
    ("row", "sigma"),
    [
        ([0.84, 0.77, 0.81, 0.83, 0.69, 0.94, 0.97], 0.088),  # DenseNet201 + Metadata
        ([0.49, 0.59, 0.55, 0.36, 0.45, 0.83, 0.80], 0.162),  # ResNet50 + Metadata
        ([0.42, 0.38, 0.41, 0.15, 0.40, 0.75, 0.75], 0.199),  # ResNet152 + Metadata
        ([0.69, 0.88, 0.77, 0.29, 0.66, 0.98, 1.00], 0.225),  # InceptionResNetV2 + Augmented Data
    ],
)
def test_sigma_of_table_5_is_the_population_sd_cut_to_three_decimals(row, sigma):
    assert np.floor(metrics.sd(np.array(row)) * 1000) / 1000 == sigma
