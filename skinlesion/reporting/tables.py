"""A sweep's table: each cell published, audited and ours, with its uncertainty and the difference.

Ours is the mean over the seeds of the part that a protocol reports (test where there is one, else
val), with the standard deviation over the seeds and a 95 % interval by resampling lesions
(`skinlesion.evaluation.bootstrap`). Everything follows from the run directories.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.bootstrap import interval, mean_over_runs, value_at
from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import PARTS, Predictions, read_predictions
from skinlesion.reporting.published import Cell, read_published
from skinlesion.sweeps.jobs import Job, Sweep
from skinlesion.runs.outcome import Failures
from skinlesion.runs.directory import RunDirectory, identity

DRAWS = 1000
ROUNDED = 0.005  # half a unit of the second decimal, which the paper prints
MADE_WITH = (  # what of the provenance is shown, its numbers last
    *("commit", "dirty", "data", "weights", "cpu", "gpu"),
    *("epochs", "parameters", "seconds_per_epoch"),
)
LEAK = ("images", "leaked", "share")
# What reading a file raises that was cut, edited or written by something else.
DAMAGE = (
    *(SkinlesionError, OSError, ValueError, TypeError, KeyError, AttributeError, AssertionError),
    *(YAMLError, OmegaConfBaseException),
)


class Run:
    """A finished run as the tables read it.

    Args:
        directory: a run directory that is DONE.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Read its config and provenance; predictions are read when they are needed."""
        self.directory = directory
        self.config: DictConfig = directory.config
        self.made_with: dict[str, Any] = _json(directory, "provenance.json")

    def check(self) -> None:
        """Read all that tables show.

        Raises:
            SkinlesionError: if a file is damaged, in one line.
        """
        try:
            config, made = self.config, self.made_with
            _ = config.split.name, config.backbone.name, config.backbone.input_size, self.weights
            _ = self.metrics, self.leak
            lacking = [name for name in MADE_WITH if name not in made]
            numbers = [made[name] for name in MADE_WITH[-3:] if name in made]
            numbers += [leak[name] for leak in self.leaks.values() for name in LEAK]
            _ = int(config.seed), [float(number) for number in numbers]
            _ = [digest[:8] for digest in self.digests]
        except DAMAGE as error:
            raise SkinlesionError(one_line(error)) from error
        if lacking:
            raise SkinlesionError(f"provenance.json lacks {listing(lacking)}")

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions of every held-out part."""
        return read_predictions(self.directory.predictions)

    @property
    def parts(self) -> list[str]:
        """The held-out parts; the last one is the one reported."""
        return sorted(self.predictions.splits, key=PARTS.index)

    @cached_property
    def part(self) -> Predictions:
        """The predictions of the part that the protocol reports."""
        return self.predictions.part(self.parts[-1])

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What `evaluate` returns for that part."""
        return evaluate(self.part.y, self.part.probabilities, self.part.classes)

    @cached_property
    def leak(self) -> Mapping[str, Any]:
        """How many images of that part show a lesion that is also in training."""
        return self.leaks[self.part.splits[0]]

    @cached_property
    def leaks(self) -> Mapping[str, Any]:
        """The same for every held-out part."""
        return _json(self.directory, "metrics.json")["leak"]

    @property
    def digests(self) -> tuple[str, str]:
        """Digests of the data and of the weights."""
        return self.made_with["data"], self.made_with["weights"]

    @property
    def weights(self) -> str:
        """The weights' name and the beginning of their digest."""
        digest = self.made_with["weights"]
        if digest in ("imagenet", "none"):
            return digest
        return f"{Path(self.config.weights).name} ({digest[:8]})"


@dataclass(frozen=True)
class Ours:
    """Our value of a cell: mean and population sd over seeds, and the interval by lesion."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Entry:
    """A cell of a table: what was published, what was audited and what is ours, None for none."""

    published: Cell | None
    ours: Ours | None

    @property
    def difference(self) -> float | None:
        """Ours minus the published value."""
        if self.ours is None or self.published is None or self.published.value is None:
            return None
        return self.ours.mean - self.published.value

    @property
    def outside(self) -> bool:
        """Whether the published value, give or take its rounding, lies outside our interval."""
        value = self.published.value if self.published else None
        if value is None or self.ours is None or self.ours.low is None or self.ours.high is None:
            return False
        return not self.ours.low - ROUNDED <= value <= self.ours.high + ROUNDED

    @property
    def contradicted(self) -> bool:
        """Whether the authors' outputs say otherwise, by more than rounding or cutting a share.

        Table 11's larger numbers are printed roundly: 5 % of them.
        """
        cell = self.published
        if cell is None or cell.value is None or cell.audited is None:
            return False
        slack = 2 * ROUNDED if cell.value <= 1 else 0.05 * cell.value
        return abs(cell.value - cell.audited) > slack + 1e-9


@dataclass
class Row:
    """A row of a table, in one group of columns.

    Attributes:
        label: its name.
        group: label of the value on the axis `across`, empty without one.
        runs: its finished runs, a seed each.
        entries: heading → cell.
        missing: the seeds that are not done.
        notes: what is to be known of it.
    """

    label: str
    group: str
    runs: Sequence[Run]
    entries: Mapping[str, Entry]
    missing: Sequence[int]
    notes: list[str] = field(default_factory=list)

    @property
    def n(self) -> str:
        """Seeds times images of a seed, a dash without runs."""
        if not self.runs:
            return "-"
        sizes = {len(run.part.y) for run in self.runs}
        return f"{len(self.runs)} x {'/'.join(f'{size:,}' for size in sorted(sizes))}"


@dataclass
class Table:
    """A table, ready to be written in any format.

    Attributes:
        name: the sweep's name.
        title: what it is called.
        headings: of the columns, in each group.
        groups: labels of the axis `across`, or one that is empty.
        rows: by label and group.
        conditions: what all was made with, a line each.
        command: what trains all that is missing.
    """

    name: str
    title: str
    headings: Sequence[str]
    groups: Sequence[str]
    rows: Sequence[Row]
    conditions: Sequence[str]
    command: str

    def lines(self) -> list[list[Row]]:
        """Return the rows by label, those of all groups together."""
        labels = dict.fromkeys(row.label for row in self.rows)
        return [[row for row in self.rows if row.label == label] for label in labels]


class Results:
    """The runs under a folder and their values, read and measured once however many tables ask.

    Args:
        sweeps: every sweep whose table will be asked for; their runs are in one folder.

    Attributes:
        folder: that folder.
        damaged: finished runs that could not be read, and why; known once they were asked for.
    """

    def __init__(self, sweeps: Sequence[Sweep]) -> None:
        """List the runs; predictions are read when they are needed."""
        runs = sweeps[0].runs
        addresses = dict.fromkeys(a for sweep in sweeps for a in sweep.columns.values())
        self.addresses = [a for a in addresses if a is not None and not a.startswith("run.")]
        self.failures = Failures(runs)
        self.folder = runs
        self.damaged: dict[Path, str] = {}
        self._found: dict[str, list[RunDirectory]] = {}
        self._runs: dict[Path, Run] = {}
        self._measured: dict[tuple[Path, ...], dict[str, Ours | None]] = {}
        for done in sorted(runs.glob("*/*/*/DONE")):
            directory = RunDirectory(done.parent)
            try:
                self._found.setdefault(directory.identity, []).append(directory)
            except SkinlesionError as error:
                self.damaged[directory.path] = str(error)

    def every_run(self) -> Iterator[Run]:
        """Yield each finished run that can be read, by its path."""
        found = [directory for directories in self._found.values() for directory in directories]
        yield from self._read(sorted(found, key=lambda directory: directory.path))

    def finished(self, job: Job) -> list[Run]:
        """Return the runs of a job that are DONE: one, or one for each data and weights."""
        return [*self._read(self._found.get(identity(job.config), []))]

    def _read(self, directories: Sequence[RunDirectory]) -> Iterator[Run]:
        for directory in directories:
            path = directory.path
            if path not in self._runs and path not in self.damaged:
                try:
                    run = Run(directory)
                    run.check()
                    self._runs[path] = run
                except SkinlesionError as error:
                    self.damaged[path] = str(error)
            if path in self._runs:
                yield self._runs[path]

    def value(self, runs: Sequence[Run], address: str | None) -> Ours | None:
        """Return the value of an address over the seeds of a row, None if it was not measured."""
        if address is None or not runs:
            return None
        if address.startswith("run."):
            scale = 1e-6 if address == "run.parameters" else 1.0  # millions
            values = [run.made_with[address.removeprefix("run.")] for run in runs]
            return _ours([scale * value for value in values], None)
        key = tuple(run.directory.path for run in runs)
        if key not in self._measured:
            # Runs of other data may have other classes.
            known = [a for a in self.addresses if all(_has_class(run.metrics, a) for run in runs)]
            drawn = mean_over_runs([run.part for run in runs], known, DRAWS, seed=0)
            self._measured[key] = {
                a: _ours([value_at(run.metrics, a) for run in runs], drawn[a]) for a in known
            }
        return self._measured[key].get(address)


def build_table(sweep: Sweep, results: Results) -> Table:
    """Return the table of a sweep from what is done of it."""
    published = read_published()
    rows = []
    for choice, jobs in _by_choice(sweep.jobs).items():
        values = dict(choice)
        group = sweep.axes[sweep.across][values[sweep.across]] if sweep.across else ""
        label = " · ".join(
            sweep.axes[axis][value] for axis, value in values.items() if axis != sweep.across
        )
        done, notes = _alike([run for job in jobs for run in results.finished(job)])
        missing = [job for job in jobs if job.seed not in {run.config.seed for run in done}]
        for job in missing:
            if failure := results.failures.find(identity(job.config)):
                notes.append(f"seed {job.seed} failed: {failure['why']}")
        entries = {}
        for heading, address in sweep.columns.items():
            key = (sweep.table or 0, values.get("experiment", ""), heading)
            # What is printed beside a table of two protocols stands in the first group.
            beside = not group or group == next(iter(sweep.axes[sweep.across or ""].values()))
            entries[heading] = Entry(
                published.get(key) if beside else None,
                results.value(done, address),
            )
        rows.append(Row(label, group, done, entries, [job.seed for job in missing], notes))
    table = Table(
        name=sweep.name,
        title=sweep.title,
        headings=list(sweep.columns),
        groups=[*sweep.axes[sweep.across].values()] if sweep.across else [""],
        rows=rows,
        conditions=_conditions(rows),
        command=shlex.join(
            ["python", "train.py", "-cd", "sweeps", "-cn", sweep.name, "-m", *sweep.overrides]
        ),
    )
    _mark_other_data(table)
    return table


def one_line(error: Exception) -> str:
    """Return what an error says in one line, with its kind where that is half of it."""
    said = " ".join(str(error).split())
    return said if isinstance(error, SkinlesionError) else f"{type(error).__name__}: {said}"


def _json(directory: RunDirectory, name: str) -> Any:
    try:
        return directory.read_json(name)
    except DAMAGE as error:
        raise SkinlesionError(f"{name} cannot be read: {one_line(error)}") from error


def _has_class(metrics: dict[str, Any], address: str) -> bool:
    """Return whether an address names no class, or one of these."""
    group, _, rest = address.partition(".")
    return group != "per_class" or rest.rpartition(".")[0] in metrics["per_class"]


def _by_choice(jobs: Sequence[Job]) -> dict[tuple[tuple[str, str], ...], list[Job]]:
    grouped: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        grouped.setdefault(tuple(job.choice.items()), []).append(job)
    return grouped


def _alike(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Return those of a row's runs that have the same data and weights, and what was left out."""
    counts = Counter(run.digests for run in runs)
    if len(counts) < 2:
        return runs, []
    # Most seeds first; among equals the weights that were trained by somebody, then by name.
    chosen = max(sorted(counts), key=lambda digests: (counts[digests], digests[1] != "none"))
    left = [run for run in runs if run.digests != chosen]
    note = (
        f"{len(left)} further runs of other data or weights are left out: "
        f"{', '.join(sorted(str(run.directory.path) for run in left))}"
    )
    return [run for run in runs if run.digests == chosen], [note]


def _ours(values: Sequence[float], drawn: np.ndarray | None) -> Ours | None:
    known = np.array(values, dtype=float)
    if np.isnan(known).any():
        return None
    low, high = interval(drawn) if drawn is not None else (None, None)
    sd = float(known.std()) if len(known) > 1 else None
    return Ours(float(known.mean()), sd, low, high)


def _mark_other_data(table: Table) -> None:
    """Say of each row what sets it apart: other data than most, uncommitted changes, no weights."""
    usual = Counter(run.digests[0] for row in table.rows for run in row.runs).most_common(1)
    for row in table.rows:
        digests = {run.digests[0] for run in row.runs} - {digest for digest, _ in usual}
        if digests:
            row.notes.append(f"other data than the other rows (digest {digests.pop()[:8]})")
        if any(run.made_with["dirty"] for run in row.runs):
            row.notes.append("made with uncommitted changes")
        if any(run.digests[1] == "none" for run in row.runs):
            row.notes.append("from scratch, without pretrained weights")


def _conditions(rows: Sequence[Row]) -> list[str]:
    """Return what the table's runs were made with, a line each."""
    runs = [run for row in rows for run in row.runs]
    if not runs:
        return ["No run is finished."]
    protocols = []
    for name in dict.fromkeys(run.config.split.name for run in runs):
        own = [run for run in runs if run.config.split.name == name]
        part = own[0].part.splits[0]
        shares = [run.leak["share"] for run in own]
        selected = "selected the checkpoint" if part == "val" else "selected nothing"
        protocols.append(
            f"split={name}: {part} images, which {selected}; "
            f"{100 * float(np.mean(shares)):.0f} % show a lesion that is also in training"
        )

    def several(values: Iterable[Any]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    return [
        *protocols,
        f"images: {several(f'{r.config.backbone.input_size} px' for r in runs)}"
        f"; data {several(r.digests[0][:8] for r in runs)}",
        f"weights: {several(r.weights for r in runs)}",
        f"seeds: {several(r.config.seed for r in runs)}"
        f"; epochs trained: {_range(r.made_with['epochs'] for r in runs)}",
        f"hardware: {several(r.made_with['gpu'] or r.made_with['cpu'] for r in runs)}"
        f"; commits: {several(str(r.made_with['commit'])[:7] for r in runs)}",
    ]


def _range(values: Iterable[int]) -> str:
    known = sorted(values)
    return str(known[0]) if known[0] == known[-1] else f"{known[0]}-{known[-1]}"
