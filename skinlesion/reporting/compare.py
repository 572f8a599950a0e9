"""Is run B better than run A? Both on the same images, with the bootstrap over lesions.

The pairing is what makes small differences visible: a draw of lesions is the same for both, so what
makes a draw easy or hard cancels (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for
lesions instead of images see :mod:`skinlesion.evaluation.bootstrap`, also for what is not covered).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.bootstrap import interval, mean_over_runs
from skinlesion.evaluation.measured import Measured
from skinlesion.evaluation.metrics import headlines, metric_at
from skinlesion.reporting.render import render
from skinlesion.runs.predictions import SELECTED, Predictions, read_predictions
from skinlesion.text import aligned, number
from skinlesion.text import interval as interval_text

PREDICTIONS = "predictions.csv"


@dataclass(frozen=True)
class Difference:
    """One metric of two runs, or its mean over pairs of runs; NaN where it cannot be measured.

    The `difference`, `b` - `a`, with its 95 % interval and two-sided p value, in [1 / draws, 1].
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
    rows: tuple[Difference, ...]
    images: int
    lesions: int
    seeds: tuple[str, ...]
    unpaired: tuple[str, ...]
    draws: int


def compare(
    a: Path, b: Path, part: str | None = None, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two runs, or two folders of ``seed*/`` runs paired by seed, on the same images.

    `part` is ``test`` where every run has it, else ``val``. A difference is averaged over the
    pairs, also on each draw, where a lesion comes as often in every run that holds it out. Its p
    value is twice the smaller of the shares of draws that are not above and not below 0, at least
    1 / `draws` and at most 1; a draw without a value (a class that is not in it) counts nowhere.

    Raises:
        SkinlesionError: if there is no run or no pair, a predictions file is wrong or lacks the
            part, or a pair differs in images, their labels or lesions, or classes.
    """
    pairs, unpaired = _pairs(a, b)
    files = [tuple((path, read_predictions(path)) for path in pair) for pair in pairs.values()]
    if part is None:
        part = "test" if all("test" in run.splits for pair in files for _, run in pair) else "val"
    left: list[Predictions] = []
    right: list[Predictions] = []
    for pair in files:
        for (path, run), parts in zip(pair, (left, right), strict=True):
            if part not in run.splits:
                raise SkinlesionError(f"{path} has no part {part}; it has {listing(run.splits)}")
            parts.append(run.part(part))
        _check_same(left[-1], right[-1], f"{pair[0][0]} and {pair[1][0]}, part {part}")
    rows = _differences(left, right, draws, seed)
    images, lesions = (
        len(set().union(*(run.frame[key] for run in left))) for key in ("image_id", "lesion_id")
    )
    return Comparison(a, b, part, rows, images, lesions, tuple(pairs), unpaired, draws)


def table(comparison: Comparison) -> str:
    """Lay out what :func:`compare` returns as plain text: a row per metric, and how to read it."""
    rows = [
        [
            *(row.metric, number(row.a), number(row.b), number(row.difference, "+")),
            *(interval_text((row.low, row.high), "+"), number(row.p, ".4f")),
        ]
        for row in comparison.rows
    ]
    head = ["metric", "A", "B", "B - A", "95 % interval", "p"]
    laid = aligned([head, None, *rows, None])
    lower = [row.metric for row in comparison.rows if metric_at(row.address)[0].lower_is_better]
    role = SELECTED.get(comparison.part, "were trained on")
    return render("compare.txt", found=comparison, table=laid, lower=lower, role=role).rstrip()


def _differences(
    left: Sequence[Predictions], right: Sequence[Predictions], draws: int, seed: int
) -> tuple[Difference, ...]:
    addresses = headlines(left[0].classes)
    drawn_a, drawn_b = (mean_over_runs(runs, addresses, draws, seed) for runs in (left, right))
    measured = [[Measured(run) for run in runs] for runs in (left, right)]
    rows = []
    for address in addresses:
        a, b = (float(np.mean([run.value(address) for run in runs])) for runs in measured)
        # The mean over pairs rounds; what is equal shall be equal.
        difference = float(np.round(b - a, 12))
        drawn = np.round(drawn_b[address] - drawn_a[address], 12)
        found = (a, b, difference, *interval(drawn), _p_value(drawn))
        rows.append(Difference(metric_at(address)[1], address, *found))
    return tuple(rows)


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


def _p_value(differences: NDArray[np.float64]) -> float:
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    share = min((known <= 0).mean(), (known >= 0).mean())
    return float(min(1, max(2 * share, 1 / len(differences))))
