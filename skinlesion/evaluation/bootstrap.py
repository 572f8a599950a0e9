"""How sure a metric is: the bootstrap over lesions.

Images of one lesion resemble each other, and HAM10000 has several of many lesions, so what is drawn
with replacement is lesions, each with all its images (the cluster bootstrap: Field and Welsh 2007,
doi:10.1111/j.1467-9868.2007.00593.x; Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
Nothing is resampled by class, so the number of images, and of each class, varies between draws.

What an interval covers: that these lesions, and no others of the same population, were held out,
given the networks as they are trained. What it does not cover: training noise (initial values,
order of batches, which lesions were trained on), for which the standard deviation over seeds
stands; other clinics; and that the held-out part selected the checkpoint, where it did.

Read intervals of ECE and of the standard deviation over classes with care. Noise raises both, and a
draw has the noise of its sample once more, so they lie too high, the more so the fewer lesions a
class has; a true 0 is never inside. Simulated test parts of 1,000 images with the classes of
HAM10000: the 95 % interval held the true value in 87-89 % of 300, and all misses lay below it
(accuracy 96 %, macro F1 96 %, macro AUC 92 %). Between two equally good runs it cancels (p below
0.05 in 2-3 % of cases for these, in 5-7 % for the others); between unequal ones it pulls the
difference towards 0.

Everything comes down to the multiplicity of each lesion in each draw, and every metric to products
of those with sums over a lesion's images: a draw is never put together image by image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.metrics import PER_CLASS, binned_errors, collect, squared_errors
from skinlesion.runs.predictions import Predictions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

OVERALL = ("accuracy", "balanced_accuracy", "ovr_balanced_accuracy", "ece", "brier", "n")
OVER_CLASSES = ("macro", "weighted", "sd")
BLOCK = 10_000_000  # lesions drawn at a time: 80 MB an array


def resample(
    part: Predictions, metrics: Sequence[str], draws: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Return each metric on every draw of the part's lesions, address to (draws,).

    `part` is one split of a predictions file; `metrics` are addresses as :func:`value_at` takes
    them. As in :func:`metrics.evaluate`, a class absent from a draw is NaN there, and skipped by
    the means over classes. The order of rows does not matter. Raises SkinlesionError for an
    unknown address, several splits, or `draws` below 1.
    """
    return mean_over_runs([part], metrics, draws, seed)


def mean_over_runs(
    parts: Sequence[Predictions], metrics: Sequence[str], draws: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Return each metric's mean over several runs on every draw, address to (draws,).

    `parts` are the held-out parts of runs with different seeds, which may hold out different
    images. Lesions are drawn from all that any of them holds out, so that one held out by several
    comes as often in each, and what they have in common is in common in every draw. (A run that
    holds out a part of these lesions has as many as it held out on average, not in every draw.)
    Where one of the runs has no value, the mean has none: NaN.

    An interval of such draws covers the sampling of lesions given these trained networks, all of
    them; it is no interval for the next seed, and does not contain the standard deviation over
    seeds. Raises SkinlesionError as :func:`resample`, and if there is no part.
    """
    if not parts:
        raise SkinlesionError("no predictions to resample; expected those of one run at least")
    for part in parts:
        if len(part.splits) != 1:
            raise SkinlesionError(
                f"the predictions are of {listing(part.splits)}; expected one split: take a part"
            )
    lesions = [np.unique(part.frame["lesion_id"].to_numpy(dtype=str)) for part in parts]
    union = np.unique(np.concatenate(lesions))
    drawn = multiplicities(len(union), draws, seed)  # (lesions of any run, draws)
    total = dict.fromkeys(metrics, np.zeros(draws))
    for part, own in zip(parts, lesions, strict=True):
        values = _values(part, drawn[np.searchsorted(union, own)], metrics)
        total = {address: total[address] + values[address] for address in total}
    return {address: values / len(parts) for address, values in total.items()}


def resample_average_precision(part: Predictions, draws: int = 1000, seed: int = 0) -> Floats:
    """Return the average precision of each class on every draw of the part's lesions, (draws, C).

    The draws are those of :func:`resample` with this seed; a class absent from one is NaN there.
    Raises SkinlesionError if there is no lesion or `draws` is below 1.
    """
    y, probabilities = part.y, part.probabilities
    names = part.frame["lesion_id"].to_numpy(dtype=str)
    lesions, lesion = np.unique(names, return_inverse=True)
    drawn = multiplicities(len(lesions), draws, seed)  # (L, draws)
    areas = np.full((draws, len(part.classes)), np.nan)
    for c, scores in enumerate(probabilities.T):
        order = np.argsort(-scores, kind="stable")
        ranked, positive = scores[order], y[order] == c
        if not positive.any():
            continue
        times = drawn[lesion[order]]  # (n, draws): how often each image came, highest score first
        # Equal scores are one step: what is above a threshold is read at the last of them.
        last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
        above = np.cumsum(times, axis=0)[last]  # (steps, draws)
        times[~positive] = 0
        hits = np.cumsum(times, axis=0)[last]
        steps = np.diff(hits, axis=0, prepend=0)
        area = np.einsum("sd,sd->d", steps, hits / np.maximum(above, 1), dtype=np.float64)
        areas[:, c] = np.where(hits[-1] > 0, area / np.maximum(hits[-1], 1), np.nan)
    return areas


def interval(samples: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the draws (draws,): its two ends, ignoring NaN.

    Both are NaN if every draw is. Raises SkinlesionError if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise SkinlesionError(f"the level of an interval is {level}; expected between 0 and 1")
    known = samples[~np.isnan(samples)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def value_at(metrics: dict[str, Any], address: str) -> float:
    """Return one number of what :func:`metrics.evaluate` returns, NaN where it has None.

    An address is the path of keys: ``accuracy``, ``macro.f1``, ``sd.recall``,
    ``weighted.precision``, ``per_class.mel.auc``, ``per_class.mel.support``. Raises SkinlesionError
    if there is no such number.
    """
    value = _at(metrics, address)
    return float("nan") if value is None else float(value)


def _values(part: Predictions, drawn: Singles, metrics: Sequence[str]) -> dict[str, Floats]:
    """Return each metric (draws,) of one run, whose lesions, sorted, were `drawn` (L, draws) times.

    Products run in float32 where all terms are whole numbers, which is exact up to 2**24 images.
    """
    images, lesions = (part.frame[key].to_numpy(dtype=str) for key in ("image_id", "lesion_id"))
    # Floats are summed in this order, whatever that of the file.
    order = np.lexsort((images, lesions))
    lesion = np.unique(lesions[order], return_inverse=True)[1]
    y, probabilities = part.y[order], part.probabilities[order]
    n_classes, n_lesions, draws = len(part.classes), *drawn.shape

    def per_lesion(column: Ints, width: int, weights: Floats | None = None) -> Any:
        """Sum images by their column and lesion, shape (width, L)."""
        cells = np.bincount(column * n_lesions + lesion, weights, minlength=width * n_lesions)
        return cells.reshape(width, n_lesions)

    cells = per_lesion(n_classes * y + probabilities.argmax(axis=1), n_classes**2)
    confusion = (cells.astype(np.float32) @ drawn).astype(np.int64)  # (C * C, draws)
    confusion = confusion.T.reshape(draws, n_classes, n_classes)

    bins, errors = binned_errors(y, probabilities)
    errors_in_bins = per_lesion(bins, bins.max() + 1, errors)
    squared = per_lesion(np.zeros_like(y), 1, squared_errors(y, probabilities))
    sums = np.concatenate([errors_in_bins, squared]) @ drawn.astype(np.float64)  # (bins + 1, draws)
    n = confusion.sum(axis=(1, 2))
    # Where the runs share few lesions, a draw can miss all of this one's.
    n = np.where(n > 0, n, np.nan)

    auc = np.full((draws, n_classes), np.nan)
    if any(address.endswith(".auc") for address in metrics):
        auc = _auc(y, probabilities, lesion, drawn, confusion.sum(axis=2))
    ece, brier = np.abs(sums[:-1]).sum(axis=0) / n, sums[-1] / n
    found = collect(confusion, auc, ece, brier, part.classes)
    return {address: np.asarray(_at(found, address), dtype=np.float64) for address in metrics}


def _auc(y: Ints, probabilities: Floats, lesion: Ints, drawn: Singles, support: Ints) -> Floats:
    """Return the one-vs-rest AUC of each class on every draw, shape (draws, C).

    The AUC is the share of pairs of a positive and a negative sample that are in order, a tie
    counting one half. A pair occurs as often as the product of its lesions' multiplicities, so the
    sum over pairs is a bilinear form in those, whose matrix has a row for each lesion with a
    positive and a column for each with a negative. `lesion` (n,) is sorted; `drawn` is (L, draws),
    `support` (draws, C).
    """
    pairs = support * (support.sum(axis=1, keepdims=True) - support)  # (draws, C)
    excess = np.zeros(pairs.shape)  # of pairs in order over pairs that are not
    for c, scores in enumerate(probabilities.T):
        positive = y == c
        if not 0 < positive.sum() < len(y):
            continue
        ranks = np.unique(scores, return_inverse=True)[1].astype(np.float32)
        order = np.sign(ranks[positive][:, None] - ranks[~positive])  # 1, or -1, or 0 for a tie
        rows, row_starts = np.unique(lesion[positive], return_index=True)
        columns, column_starts = np.unique(lesion[~positive], return_index=True)
        order = np.add.reduceat(order, row_starts, axis=0)
        order = np.add.reduceat(order.T, column_starts, axis=0).T  # (rows, columns)
        left, right = drawn[rows], drawn[columns]  # each (lesions, draws)
        if len(rows) > len(columns):
            order, left, right = order.T, right, left
        excess[:, c] = np.einsum("ld,ld->d", left, order @ right, dtype=np.float64)
    return np.where(pairs > 0, (pairs + excess) / np.maximum(2 * pairs, 1), np.nan)


def multiplicities(n_lesions: int, draws: int, seed: int) -> Singles:
    """Draw `n_lesions` of as many lesions, `draws` times: how often each came, (n_lesions, draws).

    Drawn with replacement. Lesions are rows because that makes picking those of one run or class
    cheap. Raises SkinlesionError if there is no lesion or `draws` is below 1.
    """
    if n_lesions < 1 or draws < 1:
        raise SkinlesionError(
            f"{draws} draws of {n_lesions} lesions; expected one of each at least"
        )
    random = np.random.default_rng(seed)
    counts = np.empty((n_lesions, draws), dtype=np.float32)
    step = max(1, BLOCK // n_lesions)
    for start in range(0, draws, step):
        width = min(step, draws - start)
        cell = random.integers(n_lesions, size=(width, n_lesions)) * width
        cell += np.arange(width)[:, None]
        flat = np.bincount(cell.ravel(), minlength=n_lesions * width)
        counts[:, start : start + width] = flat.reshape(n_lesions, width)
    return counts


def _at(metrics: dict[str, Any], address: str) -> Any:
    """Follow an address through nested metrics to a number, None or an array of draws."""
    keys = address.split(".")
    if keys[0] == "per_class":  # a class's name may have dots itself
        keys = [keys[0], ".".join(keys[1:-1]), keys[-1]]
    value: Any = metrics
    for key in keys:
        value = value.get(key, {}) if isinstance(value, dict) else {}
    if isinstance(value, (dict, list)):
        raise SkinlesionError(
            f"no metric '{address}'; expected {', '.join(OVERALL)}, or "
            f"{', '.join(f'{name}.*' for name in OVER_CLASSES)}, per_class.<class>.*, where * is "
            f"{', '.join(PER_CLASS)} (or support of a class); the classes are "
            f"{', '.join(metrics['per_class'])}"
        )
    return value
