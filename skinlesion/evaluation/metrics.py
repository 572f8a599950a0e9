"""Metrics of a classifier: one registry, each entry a small function of a weighted sample.

Section 5 of the paper treats each class one-vs-rest, so most metrics have a value per class;
:func:`macro`, :func:`weighted` and :func:`sd` sum those up as the paper does. A number has an
address: ``accuracy``, ``macro.f1``, ``sd.recall``, ``weighted.precision``, ``per_class.mel.auc``.

Of n images and C classes, every image counts as often in each of D draws as its weight says, so
that :func:`evaluate` (one draw, every image once) and the bootstrap are the same functions.

What cannot be measured is NaN: precision, recall, F1 and areas of a class with no image in the
labels, specificity and AUC of one with no other beside it. `macro`, `weighted` and `sd` skip NaN,
so that all rows of a table run over the same classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import TOLERATED
from skinlesion.runs.predictions import read_predictions
from skinlesion.text import aligned, number

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

BINS = 15  # of the expected calibration error
PAIRS = 4_000_000  # compared at a time: 32 MB


class Sample:
    """Images with their labels and probabilities, and how often each counts in each draw.

    Args:
        y: (n,) true classes, as indices in [0, C).
        probabilities: (n, C), rows sum to 1. The predicted class is the one of the highest
            probability, the first among equals.
        classes: their names.
        weights: (n, D) whole numbers, whose sums in float32 are exact up to 2**24 images; None:
            one draw, every image once.

    Attributes:
        confusion: images by true class (row) and predicted class (column), (D, C, C).
        n, support: all images (D,), and those of each true class (D, C).
        tp, fp, tn: true and false positives and true negatives of each class against the rest,
            (D, C); the false negatives are `support` - `tp`.

    Raises:
        SkinlesionError: if shapes do not fit, or a probability is not finite.
    """

    def __init__(
        self,
        y: Ints,
        probabilities: Floats,
        classes: tuple[str, ...],
        weights: Singles | None = None,
    ) -> None:
        c = len(classes)
        if probabilities.shape != (len(y), c) or len(y) == 0:
            raise SkinlesionError(
                f"labels {y.shape} and probabilities {probabilities.shape} do not fit; expected "
                f"(n,) and (n, {c}), n at least 1"
            )
        if not np.isfinite(probabilities).all():
            raise SkinlesionError("some probabilities are not finite; the model has diverged")
        self.y, self.probabilities, self.classes = y, probabilities, classes
        self.weights = np.ones((len(y), 1), np.float32) if weights is None else weights
        cells = _sums(c * y + probabilities.argmax(axis=1), self.weights, c * c)
        self.confusion = cells.T.reshape(-1, c, c).astype(np.int64)
        self.support = self.confusion.sum(axis=2)
        self.n = self.support.sum(axis=1)
        self.tp = np.diagonal(self.confusion, axis1=1, axis2=2)
        self.fp = self.confusion.sum(axis=1) - self.tp
        self.tn = self.n[:, None] - self.support - self.fp
        self._found: dict[Metric, Any] = {}

    def of(self, metric: "Metric") -> Any:
        """Return a metric on each draw: (D,), or (D, C) for one by class."""
        if metric not in self._found:
            self._found[metric] = metric.function(self)
        return self._found[metric]

    def value(self, address: str) -> Any:
        """Return the number at an address on each draw, (D,).

        Raises:
            SkinlesionError: if there is no such number.
        """
        group, _, rest = address.partition(".")
        label, _, name = rest.rpartition(".")
        if address in OVERALL:
            return self.of(OVERALL[address])
        if group in MEANS and rest in AVERAGED:
            return MEANS[group](self.of(BY_CLASS[rest]), self.support)
        if group == "per_class" and label in self.classes and name in BY_CLASS:
            return self.of(BY_CLASS[name])[:, self.classes.index(label)]
        raise SkinlesionError(
            f"no metric '{address}'; expected {', '.join(OVERALL)}, or "
            f"{', '.join(f'{name}.*' for name in MEANS)}, per_class.<class>.*, where * is "
            f"{', '.join(AVERAGED)} (or support of a class); the classes are "
            f"{', '.join(self.classes)}"
        )


@dataclass(frozen=True, eq=False)
class Metric:
    """An entry of the registry: all that the project knows of a metric.

    Attributes:
        name: as in addresses.
        title: as printed.
        function: from a sample to its value on each draw, (D,), or (D, C) if `by_class`.
        by_class: whether each class has one.
        headlines: the addresses under which runs are compared by it.
        lower_is_better: whether that is so.
        brief: whether a summary has it.
        format: how its numbers are printed, as :func:`skinlesion.text.number` takes it.
    """

    name: str
    title: str
    function: Callable[[Sample], Any]
    by_class: bool = False
    headlines: tuple[str, ...] = ()
    lower_is_better: bool = False
    brief: bool = True
    format: str = ".3f"


def accuracy(s: Sample) -> Floats:
    """The share of images on the diagonal of the confusion matrix."""
    return _ratio(s.tp.sum(axis=-1), s.n)


def balanced_accuracy(s: Sample) -> Floats:
    """Mean recall over classes: what balanced accuracy means for several classes."""
    return macro(recall(s))


def ovr_balanced_accuracy(s: Sample) -> Floats:
    """Mean over classes of (sensitivity + specificity) / 2: "Balanced Accuracy" in Table 8.

    As a rule above :func:`balanced_accuracy`: one class against six others has a high specificity.
    """
    return macro((recall(s) + specificity(s)) / 2)


def precision(s: Sample) -> Floats:
    """TP / (TP + FP); 0 for a class in the labels that is never predicted, as sklearn prints."""
    return np.where(s.support > 0, s.tp / np.maximum(s.tp + s.fp, 1), np.nan)


def recall(s: Sample) -> Floats:
    """TP / (TP + FN), also called sensitivity."""
    return _ratio(s.tp, s.support)


def specificity(s: Sample) -> Floats:
    """TN / (TN + FP)."""
    return _ratio(s.tn, s.tn + s.fp)


def f1(s: Sample) -> Floats:
    """2 TP / (2 TP + FP + FN).

    The paper prints a spurious "+ TN" in the denominator (section 5), with which every rare class
    would score near 0; Table 5 and the released code have what stands here.
    """
    return np.where(s.support > 0, _ratio(2 * s.tp, s.tp + s.fp + s.support), np.nan)


def ovr_accuracy(s: Sample) -> Floats:
    """(TP + TN) / n: the accuracy of telling this class from the rest."""
    return _ratio(s.tp + s.tn, s.tn + s.fp + s.support)


def auc(s: Sample) -> Floats:
    """Area under each class's one-vs-rest ROC curve; a tie counts one half.

    That is the share of pairs of a positive and a negative that are in order (Mann and Whitney). A
    pair comes as often as the product of its weights, so that the sum over pairs is a product of
    matrices, which is several times as fast as ranking each draw.
    """
    pairs = s.support * (s.n[:, None] - s.support)  # (D, C)
    excess = np.zeros(pairs.shape)  # of pairs in order over pairs that are not
    for c, scores in enumerate(s.probabilities.T):
        (positive,), (negative,) = np.nonzero(s.y == c), np.nonzero(s.y != c)
        for rows in np.array_split(positive, 1 + len(positive) * len(negative) // PAIRS):
            order = np.sign(scores[rows, None] - scores[negative]).astype(np.float32)  # ties: 0
            won = order @ s.weights[negative]  # (rows, D)
            excess[:, c] += np.einsum("rd,rd->d", s.weights[rows], won, dtype=np.float64)
    return _ratio((pairs + excess) / 2, pairs)


def average_precision(s: Sample) -> Floats:
    """Area under each class's one-vs-rest precision-recall curve; ties are one step.

    The sum of each step in recall times the precision reached with it, without interpolation, as
    scikit-learn's `average_precision_score`.
    """
    areas = np.zeros(s.support.shape)
    for c, scores in enumerate(s.probabilities.T):
        above, tp = falling(s, scores, s.y == c)
        precisions = np.divide(tp, np.maximum(above, 1), dtype=np.float64)
        areas[:, c] = np.einsum("kd,kd->d", np.diff(tp, axis=0, prepend=0), precisions)
    return _ratio(areas, s.support)


def ece(s: Sample) -> Floats:
    """Expected calibration error of the top probability, in [0, 1] (Guo et al., arXiv:1706.04599).

    Mean distance between confidence and accuracy over equal-width bins (left open, right closed),
    weighted by their images.
    """
    bins, errors = binned_errors(s.y, s.probabilities)
    # |B|/n * |acc(B) - conf(B)| is |sum over B of (correct - confidence)| / n.
    sums = _sums(bins, errors[:, None] * s.weights, BINS + 1)
    return _ratio(np.abs(sums).sum(axis=0), s.n)


def brier(s: Sample) -> Floats:
    """Squared error of the probabilities, summed over classes, averaged over images, in [0, 2].

    The original definition (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2); for
    two classes it is twice the common binary form.
    """
    errors = (s.probabilities - np.eye(len(s.classes))[s.y]) ** 2
    return _ratio(errors.sum(axis=1) @ s.weights, s.n)


def nll(s: Sample) -> Floats:
    """Negative log likelihood: the mean of -log p of the true class, p at least 1e-12."""
    of_truth = np.take_along_axis(s.probabilities, s.y[:, None], axis=1)[:, 0]  # (n,)
    return _ratio(-np.log(np.maximum(of_truth, 1e-12)) @ s.weights, s.n)


def class_ece(s: Sample) -> Floats:
    """:func:`ece` of each class against the rest (Kull et al. 2019, arXiv:1910.12656)."""
    found = np.full(s.support.shape, np.nan)
    for c, scores in enumerate(s.probabilities.T):
        errors = ((s.y == c) - scores)[:, None] * s.weights
        sums = np.abs(_sums(np.ceil(scores * BINS).astype(np.int64), errors, BINS + 1))
        found[:, c] = np.where(s.support[:, c] > 0, _ratio(sums.sum(axis=0), s.n), np.nan)
    return found


def class_brier(s: Sample) -> Floats:
    """The part of each class in :func:`brier`, which is their sum."""
    errors = (s.probabilities - np.eye(len(s.classes))[s.y]) ** 2  # (n, C)
    return np.where(s.support > 0, (s.weights.T @ errors) / s.n[:, None], np.nan)


def class_nll(s: Sample) -> Floats:
    """:func:`nll` of the images of each class."""
    of_truth = np.take_along_axis(s.probabilities, s.y[:, None], axis=1)  # (n, 1)
    lost = -np.log(np.maximum(of_truth, 1e-12)) * s.weights
    return _ratio(_sums(s.y, lost, len(s.classes)).T, s.support)


def risks(s: Sample) -> tuple[Any, Floats]:
    """Return how many images are answered, and the share of them answered wrong, (K, D) each.

    Answered are those whose largest probability is at least one of the K that there are, falling.
    """
    wrong = s.probabilities.argmax(axis=1) != s.y
    answered, errors = falling(s, s.probabilities.max(axis=1), wrong)
    return answered, np.divide(errors, np.maximum(answered, 1), dtype=np.float64)


def aurc(s: Sample) -> Floats:
    """Area under the curve of risk over coverage, in [0, 1] (Geifman and El-Yaniv 2017,
    arXiv:1705.08500): the mean over images of the error of all that are answered no less surely.
    """
    answered, risk = risks(s)
    return _ratio(np.einsum("kd,kd->d", np.diff(answered, axis=0, prepend=0), risk), s.n)


def answered_at_5(s: Sample) -> Floats:
    """The most images that can be answered, the surest first, with at most 5 % of them wrong."""
    answered, risk = risks(s)
    return _ratio(np.where(risk <= TOLERATED, answered, 0).max(axis=0), s.n)


REGISTRY = (
    Metric("n", "images", lambda s: s.n, format=",.0f"),
    Metric("accuracy", "accuracy", accuracy, headlines=("accuracy",)),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        balanced_accuracy,
        headlines=("balanced_accuracy",),
    ),
    Metric("ovr_balanced_accuracy", "one-vs-rest", ovr_balanced_accuracy),
    Metric("ece", "ECE", ece, headlines=("ece",), lower_is_better=True),
    Metric("brier", "Brier", brier, lower_is_better=True),
    Metric("nll", "NLL", nll, lower_is_better=True),
    Metric("aurc", "AURC", aurc, lower_is_better=True, brief=False),
    Metric("answered_at_5", "answered at 5 % error", answered_at_5, brief=False),
    Metric("support", "images", lambda s: s.support, by_class=True, format=",.0f"),
    Metric("precision", "precision", precision, by_class=True),
    Metric("recall", "recall", recall, True, headlines=("sd.recall", "per_class.mel.recall")),
    Metric("specificity", "specificity", specificity, by_class=True),
    Metric("f1", "F1", f1, by_class=True, headlines=("macro.f1", "sd.f1")),
    Metric("auc", "AUC", auc, by_class=True, headlines=("macro.auc",)),
    Metric("average_precision", "AP", average_precision, by_class=True),
    Metric("accuracy", "accuracy", ovr_accuracy, by_class=True),
    Metric("ece", "ECE", class_ece, by_class=True, lower_is_better=True, brief=False),
    Metric("brier", "Brier", class_brier, by_class=True, lower_is_better=True, brief=False),
    Metric("nll", "NLL", class_nll, by_class=True, lower_is_better=True, brief=False),
)
OVERALL = {metric.name: metric for metric in REGISTRY if not metric.by_class}
BY_CLASS = {metric.name: metric for metric in REGISTRY if metric.by_class}
AVERAGED = {name: metric for name, metric in BY_CLASS.items() if name != "support"}


def macro(values: Floats) -> Floats:
    """Mean over the classes that have a value: (..., C) to (...)."""
    return weighted(values, np.ones(values.shape[-1], dtype=np.int64))


def weighted(values: Floats, support: Ints) -> Floats:
    """Mean over the classes that have a value, each weighing as much as it has images.

    `values` and `support` are (..., C), the result is (...). As sklearn's "weighted avg", which
    Table 10 prints where Table 8 prints :func:`macro`. The weighted recall is the accuracy.
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


MEANS: dict[str, Callable[[Floats, Ints], Floats]] = {
    "macro": lambda values, support: macro(values),
    "weighted": weighted,
    "sd": lambda values, support: sd(values),
}


def metric_at(address: str) -> tuple[Metric, str]:
    """Return the entry behind an address, and the address in words: `macro F1`, `sd of recall`."""
    group, _, rest = address.partition(".")
    if not rest:
        return OVERALL[address], OVERALL[address].title
    label, _, name = rest.rpartition(".")
    metric = BY_CLASS[name]
    before = {"sd": "sd of", "per_class": label}.get(group, group)
    return metric, f"{before} {metric.title}"


def fits(address: str, classes: tuple[str, ...]) -> bool:
    """Return whether an address names no class, or one of these."""
    group, _, rest = address.partition(".")
    return group != "per_class" or rest.rpartition(".")[0] in classes


def headlines(classes: tuple[str, ...]) -> list[str]:
    """Return the addresses under which runs with these classes are compared."""
    return [a for metric in REGISTRY for a in metric.headlines if fits(a, classes)]


def binned_errors(y: Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    """Return what :func:`ece` sums: each image's bin and its correct - confidence, both (n,).

    A bin is in [0, BINS], "correct" is 1 or 0.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y
    return np.ceil(confidence * BINS).astype(np.int64), correct - confidence


def evaluate(y: Ints, probabilities: Floats, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return every metric as plain Python numbers, fit for JSON: None where it cannot be measured.

    The overall ones by name; ``macro``, ``weighted`` and ``sd`` with those by class; ``per_class``,
    a class to its own and its ``support``; and ``confusion``, a row for each true class.

    Raises:
        SkinlesionError: as :class:`Sample`.
    """
    s = Sample(y, probabilities, classes)

    def plain(address: str) -> Any:
        value = s.value(address)[0]
        return None if np.isnan(value) else value.item()

    return {
        **{name: plain(name) for name in OVERALL},
        **{mean: {name: plain(f"{mean}.{name}") for name in AVERAGED} for mean in MEANS},
        "per_class": {
            label: {name: plain(f"per_class.{label}.{name}") for name in BY_CLASS}
            for label in classes
        },
        "confusion": s.confusion[0].tolist(),
    }


def evaluate_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Evaluate each split of a predictions file; SkinlesionError if the file is wrong."""
    predictions = read_predictions(path)
    parts = map(predictions.part, predictions.splits)
    return {p.splits[0]: evaluate(p.y, p.probabilities, p.classes) for p in parts}


def summary_table(metrics: dict[str, Any]) -> str:
    """Lay out what :func:`evaluate` returns as plain text.

    A row per class, the macro mean and the standard deviation over classes, and a line on all
    images; a dash where nothing can be measured, or an older release did not.
    """
    brief, by_class = (
        {name: metric for name, metric in known.items() if metric.brief}
        for known in (OVERALL, BY_CLASS)
    )
    rows: list[list[str] | None] = [["class", *(m.title for m in by_class.values())], None]
    for label, values in metrics["per_class"].items():
        rows.append([label, *(number(values.get(n), m.format) for n, m in by_class.items())])
    rows.append(None)
    del by_class["support"]
    for title, mean in (("macro mean", metrics["macro"]), ("sd", metrics["sd"])):
        rows.append([title, "", *(number(mean.get(n), m.format) for n, m in by_class.items())])
    overall = ", ".join(f"{m.title} {number(metrics.get(n), m.format)}" for n, m in brief.items())
    return f"{aligned([*rows, None])}\n{overall}"


def falling(s: Sample, scores: Floats, hits: Any) -> tuple[Any, Any]:
    """Count images whose score is at least each of the K scores, falling, and hits: (K, D) each."""
    order = np.argsort(-scores, kind="stable")
    step = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # where each ends
    times = s.weights[order]
    above = np.cumsum(times, axis=0)[step]
    times[~hits[order]] = 0
    return above, np.cumsum(times, axis=0)[step]


def _sums(group: Ints, values: Any, groups: int) -> Any:
    """Sum the rows of `values` (n, D) by their group, (groups, D)."""
    return np.eye(groups, dtype=values.dtype)[group].T @ values


def _ratio(part: Any, whole: Ints) -> Floats:
    """Part / whole, NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
