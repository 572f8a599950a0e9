"""Metrics of a classifier, as small pure functions on arrays.

Section 5 of the paper treats each class one-vs-rest, so most functions take the :class:`Counts`
of :func:`one_vs_rest` and return one value per class, shape (C,); :func:`macro`, :func:`weighted`
and :func:`sd` sum a row of those up as the paper does. n is the number of samples, C that of
classes; `y` (n,) and `predicted` (n,) are class indices in [0, C), `probabilities` (n, C) have rows
that sum to 1. Where a shape begins with ..., any number of axes may stand before it, such as one
for the draws of :mod:`skinlesion.evaluation.bootstrap`.

What cannot be measured is NaN: precision, recall, F1 and areas of a class with no sample in the
labels, specificity and AUC of one with no other beside it. `macro`, `weighted` and `sd` skip NaN,
so that all rows of a table run over the same classes.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PER_CLASS = ("precision", "recall", "specificity", "f1", "auc", "accuracy")


class Counts(NamedTuple):
    """True and false positives and negatives of each class against the rest, each (..., C)."""

    tp: Ints
    fp: Ints
    fn: Ints
    tn: Ints


def confusion_matrix(y: Ints, predicted: Ints, n_classes: int) -> Ints:
    """Count samples by true class (row) and predicted class (column), shape (C, C)."""
    cells = np.bincount(n_classes * y + predicted, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


def one_vs_rest(confusion: Ints) -> Counts:
    """Return each class's counts against the rest from a confusion matrix (..., C, C)."""
    tp = np.diagonal(confusion, axis1=-2, axis2=-1)
    fp = confusion.sum(axis=-2) - tp
    fn = confusion.sum(axis=-1) - tp
    n = confusion.sum(axis=(-2, -1))[..., None]
    return Counts(tp, fp, fn, n - tp - fp - fn)


def precision(counts: Counts) -> Floats:
    """TP / (TP + FP); 0 for a class in the labels that is never predicted, as sklearn prints."""
    tp, fp, fn, _ = counts
    return np.where(tp + fn > 0, tp / np.maximum(tp + fp, 1), np.nan)


def recall(counts: Counts) -> Floats:
    """TP / (TP + FN), also called sensitivity."""
    tp, _, fn, _ = counts
    return _ratio(tp, tp + fn)


def specificity(counts: Counts) -> Floats:
    """TN / (TN + FP)."""
    _, fp, _, tn = counts
    return _ratio(tn, tn + fp)


def f1(counts: Counts) -> Floats:
    """2 TP / (2 TP + FP + FN).

    The paper prints a spurious "+ TN" in the denominator (section 5), with which every rare class
    would score near 0; Table 5 and the released code have what stands here.
    """
    tp, fp, fn, _ = counts
    return np.where(tp + fn > 0, _ratio(2 * tp, 2 * tp + fp + fn), np.nan)


def ovr_accuracy(counts: Counts) -> Floats:
    """(TP + TN) / n: the accuracy of telling this class from the rest."""
    tp, fp, fn, tn = counts
    return _ratio(tp + tn, tp + fp + fn + tn)


def auc(y: Ints, probabilities: Floats) -> Floats:
    """Area under each class's one-vs-rest ROC curve, shape (C,); a tie counts one half.

    As the Mann-Whitney statistic, from ranks; scikit-learn gives the same, to rounding, but takes
    longer to import than a table of seventy runs may.
    """
    areas = []
    for c, scores in enumerate(probabilities.T):
        positive = y == c
        p, n = positive.sum(), (~positive).sum()
        _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
        rank = (np.cumsum(ties) - (ties - 1) / 2)[place]  # (n,) from 1, the middle one of equals
        areas.append((rank[positive].sum() - p * (p + 1) / 2) / (p * n) if p and n else np.nan)
    return np.array(areas)


def average_precision(y: Ints, probabilities: Floats) -> Floats:
    """Area under each class's one-vs-rest precision-recall curve, shape (C,); ties are one step.

    The sum of each step in recall times the precision reached with it, without interpolation, as
    scikit-learn's `average_precision_score`. A class without a sample has none: NaN.
    """
    areas = []
    for c, scores in enumerate(probabilities.T):
        tp, fp = ranked_counts(y == c, scores)
        steps = np.diff(tp, prepend=0)
        areas.append((steps * tp / (tp + fp)).sum() / tp[-1] if tp[-1] else np.nan)
    return np.array(areas)


def ranked_counts(positive: NDArray[np.bool_], scores: Floats) -> tuple[Ints, Ints]:
    """Return the true and false positives at each threshold, from the highest score down.

    Both are (k,) for k different scores; of equal scores, all or none lie above a threshold. ROC
    and precision-recall curves are ratios of the two. `positive` and `scores` are (n,).
    """
    _, step = np.unique(-scores, return_inverse=True)
    hits, all_ = np.bincount(step, weights=positive), np.bincount(step)
    tp = np.cumsum(hits).astype(np.int64)
    return tp, np.cumsum(all_) - tp


def accuracy(confusion: Ints) -> Floats:
    """The share of samples on the diagonal of a confusion matrix (..., C, C), shape (...)."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(counts: Counts) -> Floats:
    """Mean recall over classes: what balanced accuracy means for several classes."""
    return macro(recall(counts))


def ovr_balanced_accuracy(counts: Counts) -> Floats:
    """Mean over classes of (sensitivity + specificity) / 2: "Balanced Accuracy" in Table 8.

    As a rule above :func:`balanced_accuracy`: one class against six others has a high specificity.
    """
    return macro((recall(counts) + specificity(counts)) / 2)


def ece(y: Ints, probabilities: Floats, n_bins: int = 15) -> float:
    """Expected calibration error of the top probability, in [0, 1] (Guo et al., arXiv:1706.04599).

    Mean distance between confidence and accuracy over equal-width bins (left open, right closed),
    weighted by their samples.
    """
    bins, errors = binned_errors(y, probabilities, n_bins)
    # |B|/n * |acc(B) - conf(B)| is |sum over B of (correct - confidence)| / n.
    return float(np.abs(np.bincount(bins, weights=errors)).sum() / len(y))


def binned_errors(y: Ints, probabilities: Floats, n_bins: int = 15) -> tuple[Ints, Floats]:
    """Return what :func:`ece` sums: each sample's bin and its correct - confidence, both (n,).

    A bin is in [0, n_bins], "correct" is 1 or 0.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y
    return np.ceil(confidence * n_bins).astype(np.int64), correct - confidence


def brier(y: Ints, probabilities: Floats) -> float:
    """Squared error of the probabilities, summed over classes, averaged over samples, in [0, 2].

    The original definition (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2); for
    two classes it is twice the common binary form.
    """
    return float(squared_errors(y, probabilities).mean())


def squared_errors(y: Ints, probabilities: Floats) -> Floats:
    """Return what :func:`brier` averages: each sample's squared error over the classes, (n,)."""
    truth = np.eye(probabilities.shape[1])[y]  # (n, C)
    return ((probabilities - truth) ** 2).sum(axis=1)


def macro(values: Floats) -> Floats:
    """Mean over the classes that have a value: (..., C) to (...)."""
    return weighted(values, np.ones(values.shape[-1], dtype=np.int64))


def weighted(values: Floats, support: Ints) -> Floats:
    """Mean over the classes that have a value, each weighing as much as it has samples.

    `values` and `support` (the true samples of each class) are (..., C), the result is (...). As
    sklearn's "weighted avg", which Table 10 prints where Table 8 prints :func:`macro`. The weighted
    recall is the accuracy.
    """
    known = ~np.isnan(values)
    total = np.where(known, values, 0) * support
    return _ratio(total.sum(axis=-1), (known * support).sum(axis=-1))


def sd(values: Floats) -> Floats:
    """Population standard deviation over the classes that have a value: (..., C) to (...).

    It is sigma in Tables 5 and 6. The paper's values are STDEV.P cut, not rounded, to three
    decimals.
    """
    return np.sqrt(macro((values - macro(values)[..., None]) ** 2))


def collect(
    confusion: Ints, auc: Floats, ece: Floats, brier: Floats, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Derive every metric from a confusion matrix (..., C, C).

    `auc` (..., C), `ece` (...) and `brier` (...) come with it. The keys are those of
    :func:`evaluate` without "confusion"; every value is an array (...).
    """
    counts = one_vs_rest(confusion)
    support = counts.tp + counts.fn
    per_class = {
        "precision": precision(counts),
        "recall": recall(counts),
        "specificity": specificity(counts),
        "f1": f1(counts),
        "auc": auc,
        "accuracy": ovr_accuracy(counts),
    }
    return {
        "n": support.sum(axis=-1),
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(counts),
        "ovr_balanced_accuracy": ovr_balanced_accuracy(counts),
        "ece": ece,
        "brier": brier,
        "macro": {name: macro(values) for name, values in per_class.items()},
        "weighted": {name: weighted(values, support) for name, values in per_class.items()},
        "sd": {name: sd(values) for name, values in per_class.items()},
        "per_class": {
            label: {"support": support[..., c]}
            | {name: values[..., c] for name, values in per_class.items()}
            for c, label in enumerate(classes)
        },
    }


def evaluate(y: Ints, probabilities: Floats, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return every metric as plain Python numbers, fit for JSON: None where it cannot be measured.

    ``{"n", "accuracy", "balanced_accuracy", "ovr_balanced_accuracy", "ece", "brier",
    "macro": {...}, "weighted": {...}, "sd": {...}, "per_class": {class: {"support", ...}},
    "confusion": [[...]]}`` where ``...`` stands for PER_CLASS, and a row of the confusion matrix
    for a true class. The predicted class is the one of the highest probability, the first among
    equals.

    Raises SkinlesionError if shapes do not fit, there is no sample, a label is not in [0, C) or a
    probability is not finite.
    """
    n_classes = len(classes)
    if probabilities.shape != (len(y), n_classes) or len(y) == 0:
        raise SkinlesionError(
            f"labels {y.shape} and probabilities {probabilities.shape} do not fit; expected (n,) "
            f"and (n, {n_classes}), n at least 1"
        )
    if y.min() < 0 or y.max() >= n_classes:
        raise SkinlesionError(
            f"labels run from {y.min()} to {y.max()}; expected class indices below {n_classes}"
        )
    if not np.isfinite(probabilities).all():
        raise SkinlesionError("some probabilities are not finite; the model has diverged")

    confusion = confusion_matrix(y, probabilities.argmax(axis=1), n_classes)
    found = collect(
        confusion,
        auc(y, probabilities),
        np.asarray(ece(y, probabilities)),
        np.asarray(brier(y, probabilities)),
        classes,
    )
    return _plain(found) | {"confusion": confusion.tolist()}


def evaluate_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Evaluate each split of a predictions file; SkinlesionError if the file is wrong."""
    predictions = read_predictions(path)
    parts = {split: predictions.part(split) for split in predictions.splits}
    return {
        split: evaluate(part.y, part.probabilities, part.classes) for split, part in parts.items()
    }


def summary_table(metrics: dict[str, Any]) -> str:
    """Lay out what :func:`evaluate` returns as plain text.

    A row per class, the macro mean and the population standard deviation over classes, and a line
    on all samples; a dash where nothing can be measured.
    """
    rows: list[tuple[str, ...]] = [("class", "support", *PER_CLASS)]
    rows += [
        (label, str(values["support"]), *(_cell(values[name]) for name in PER_CLASS))
        for label, values in metrics["per_class"].items()
    ]
    rows += [
        (title, "", *(_cell(metrics[key][name]) for name in PER_CLASS))
        for title, key in (("macro mean", "macro"), ("sd", "sd"))
    ]
    width = max(len(row[0]) for row in rows)
    lines = [row[0].ljust(width) + "".join(cell.rjust(13) for cell in row[1:]) for row in rows]
    rule = "-" * len(lines[0])
    overall = ", ".join(
        f"{title} {_cell(metrics[key])}"
        for title, key in (
            ("accuracy", "accuracy"),
            ("balanced accuracy", "balanced_accuracy"),
            ("one-vs-rest", "ovr_balanced_accuracy"),
            ("ECE", "ece"),
            ("Brier", "brier"),
        )
    )
    return "\n".join(
        [lines[0], rule, *lines[1:-2], rule, *lines[-2:], rule, f"n {metrics['n']}, {overall}"]
    )


def _ratio(part: Any, whole: Ints) -> Floats:
    """Part / whole, NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)[()]


def _plain(value: Any) -> Any:
    """Numpy's numbers in (dicts of) metrics as Python's, NaN as None."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if np.isnan(value) else value.item()


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
