"""Is run B better than run A? Both on the same images, with the bootstrap over lesions.

The pairing is what makes small differences visible: a draw of lesions is the same for both, so what
makes a draw easy or hard cancels (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for
lesions instead of images see :mod:`skinlesion.evaluation.bootstrap`, also for what is not covered).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.bootstrap import interval, mean_over_runs, value_at
from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import Predictions, read_predictions

PREDICTIONS = "predictions.csv"
METRICS = {
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "macro F1": "macro.f1",
    "macro AUC": "macro.auc",
    "sd of F1 over classes": "sd.f1",
    "sd of recall over classes": "sd.recall",
    "melanoma recall": "per_class.mel.recall",
    "ECE": "ece",
}


@dataclass(frozen=True)
class Row:
    """One metric of two runs, or its mean over pairs of runs; NaN where it cannot be measured.

    `difference` is `b` - `a`, `low` to `high` its 95 % interval, `p` its two-sided p value in
    [1 / draws, 1]. `metric` is a title, `address` one of :func:`bootstrap.value_at`.
    """

    metric: str
    address: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` returns: a row per metric, and what they were measured on.

    `images` and `lesions` count each once, however many seeds held it out; `seeds` are the pairs,
    `unpaired` the seeds that only one of the two folders has.
    """

    a: Path
    b: Path
    part: str
    rows: tuple[Row, ...]
    images: int
    lesions: int
    seeds: tuple[str, ...]
    unpaired: tuple[str, ...]
    draws: int


def compare(
    a: str | Path, b: str | Path, part: str | None = None, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two runs, or two folders of ``seed*/`` runs paired by seed, on the same images.

    `part` is ``test`` where every run has it, else ``val``. A difference is averaged over the
    pairs, also on each draw, where a lesion comes as often in every run that holds it out. Its p
    value is twice the smaller of the shares of draws that are not above and not below 0, at least
    1 / `draws` and at most 1; a draw without a value (a class that is not in it) counts nowhere.

    Raises SkinlesionError if there is no run or no pair, a predictions file is wrong or lacks the
    part, or a pair differs in images, their labels or lesions, or classes.
    """
    a, b = Path(a), Path(b)
    pairs, unpaired = _pairs(a, b)
    files = [tuple((path, read_predictions(path)) for path in pair) for pair in pairs.values()]
    if part is None:
        part = "test" if all("test" in run.splits for pair in files for _, run in pair) else "val"
    left, right = [], []
    for (path_a, run_a), (path_b, run_b) in files:
        left.append(_part(run_a, part, path_a))
        right.append(_part(run_b, part, path_b))
        _check_same(left[-1], right[-1], f"{path_a} and {path_b}, part {part}")

    addresses = list(METRICS.values())
    values_a, values_b = _values(left), _values(right)
    draws_a = mean_over_runs(left, addresses, draws, seed)
    draws_b = mean_over_runs(right, addresses, draws, seed)
    rows = []
    for metric, address in METRICS.items():
        # The mean over pairs rounds; what is equal shall be equal.
        difference = np.round(values_b[address] - values_a[address], 12)
        differences = np.round(draws_b[address] - draws_a[address], 12)
        low, high = interval(differences)
        rows.append(
            Row(
                metric,
                address,
                values_a[address],
                values_b[address],
                float(difference),
                low,
                high,
                _p_value(differences),
            )
        )
    return Comparison(
        a,
        b,
        part,
        tuple(rows),
        images=len(set().union(*(run.frame["image_id"] for run in left))),
        lesions=len(set().union(*(run.frame["lesion_id"] for run in left))),
        seeds=tuple(pairs),
        unpaired=unpaired,
        draws=draws,
    )


def table(comparison: Comparison) -> str:
    """Lay out what :func:`compare` returns as plain text: a row per metric, and how to read it."""
    header = ("metric", "A", "B", "B - A", "95 % interval", "p")
    cells = [
        (
            row.metric,
            _cell(row.a, ".4f"),
            _cell(row.b, ".4f"),
            _cell(row.difference, "+z.4f"),
            f"[{_cell(row.low, '+z.4f')}, {_cell(row.high, '+z.4f')}]",
            _cell(row.p, ".4f"),
        )
        for row in comparison.rows
    ]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    lines = [
        line[0].ljust(widths[0])
        + "".join(cell.rjust(width + 3) for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in [header, *cells]
    ]
    rule = "-" * len(lines[0])
    selected = ", which selected the checkpoints" if comparison.part == "val" else ""
    images, lesions, seeds, draws = (
        f"{number:,} {noun}{'' if number == 1 else 's'}"
        for number, noun in (
            (comparison.images, "image"),
            (comparison.lesions, "lesion"),
            (len(comparison.seeds), "seed"),
            (comparison.draws, "draw"),
        )
    )
    unpaired = f"; not in both: {listing(comparison.unpaired)}" if comparison.unpaired else ""
    return "\n".join(
        [
            f"A  {comparison.a}",
            f"B  {comparison.b}",
            "",
            lines[0],
            rule,
            *lines[1:],
            rule,
            f"{comparison.part}{selected}: {images} of {lesions}, {draws} of lesions,",
            f"{seeds} ({listing(comparison.seeds)}{unpaired}).",
            "Intervals and p cover which lesions were held out, not training noise, and the",
            f"{len(comparison.rows)} comparisons are not corrected for multiplicity.",
            "Lower is better for ECE and for the sd over classes (more balanced).",
        ]
    )


def _pairs(a: Path, b: Path) -> tuple[dict[str, tuple[Path, Path]], tuple[str, ...]]:
    """Return the predictions files of each pair by its name, and the seeds without a partner."""
    runs_a, runs_b = _runs(a), _runs(b)
    if (a / PREDICTIONS).exists() and (b / PREDICTIONS).exists():  # two runs, whatever their seeds
        name = a.name if a.name == b.name else f"{a.name} with {b.name}"
        return {name: (a / PREDICTIONS, b / PREDICTIONS)}, ()
    common = [name for name in runs_a if name in runs_b]
    if not common:
        raise SkinlesionError(
            f"{a} has {listing(list(runs_a))} and {b} has {listing(list(runs_b))}: no seed is in "
            "both; train one with the seed of the other"
        )
    unpaired = tuple(sorted(runs_a.keys() ^ runs_b.keys()))
    return {name: (runs_a[name], runs_b[name]) for name in common}, unpaired


def _runs(path: Path) -> dict[str, Path]:
    """Return the predictions files of a run, or of the runs in a folder, by the run's name."""
    if (path / PREDICTIONS).exists():
        return {path.name: path / PREDICTIONS}
    files = {file.parent.name: file for file in path.glob(f"seed*/{PREDICTIONS}")}
    if not files:
        raise SkinlesionError(
            f"{path} has neither {PREDICTIONS} nor seed*/{PREDICTIONS}; expected a run directory "
            "(runs/<backbone>/<key>/seed<k>) or the folder of its seeds, trained to the end"
        )
    return {name: files[name] for name in sorted(files, key=lambda name: (len(name), name))}


def _part(run: Predictions, part: str, path: Path) -> Predictions:
    try:
        return run.part(part)
    except SkinlesionError as error:
        raise SkinlesionError(f"{path}: {error}") from error


def _check_same(a: Predictions, b: Predictions, where: str) -> None:
    frame_a, frame_b = (run.frame.set_index("image_id") for run in (a, b))
    common = frame_a.index.intersection(frame_b.index)
    if not len(common) == len(frame_a) == len(frame_b):
        raise SkinlesionError(
            f"{where}: of {len(frame_a):,} and {len(frame_b):,} images {len(common):,} are common; "
            "the split or the seed differs; compare runs that held out the same images"
        )
    frame_b = frame_b.loc[frame_a.index]
    for column in ("label", "lesion_id"):
        other = frame_a.index[(frame_a[column] != frame_b[column]).to_numpy()]
        if len(other):
            raise SkinlesionError(
                f"{where}: the {column} of {listing(other.tolist())} differs; compare runs on the "
                "same data"
            )
    if set(a.classes) != set(b.classes):
        raise SkinlesionError(
            f"{where}: the classes are {listing(a.classes, 12)} and {listing(b.classes, 12)}; "
            "expected the same"
        )


def _values(parts: list[Predictions]) -> dict[str, float]:
    """Return each metric's mean over the runs."""
    found = [evaluate(run.y, run.probabilities, run.classes) for run in parts]
    return {
        address: float(np.mean([value_at(metrics, address) for metrics in found]))
        for address in METRICS.values()
    }


def _p_value(differences: NDArray[np.float64]) -> float:
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    share = min((known <= 0).mean(), (known >= 0).mean())
    return float(min(1, max(2 * share, 1 / len(differences))))


def _cell(value: float, spec: str) -> str:
    return "-" if np.isnan(value) else format(value, spec)
