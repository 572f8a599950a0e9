"""A sweep's table: each cell published, audited and ours, with its uncertainty and the difference.

Ours is the mean over the seeds of the part that a protocol reports (test where there is one, else
val), with the standard deviation over the seeds and a 95 % interval by resampling lesions
(`skinlesion.evaluation.bootstrap`). Everything follows from the run directories.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skinlesion.reporting.published import Cell, read_published
from skinlesion.reporting.results import Ours, Results, Run
from skinlesion.sweeps.jobs import Job, Sweep
from skinlesion.text import DASH

ROUNDED = 0.005  # half a unit of the second decimal, which the paper prints


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
    """A row of a table in one group: finished runs, a seed each, and a cell for each heading.

    `group` is the label of the value on the axis `across`, empty without one; `missing` are the
    seeds that are not done.
    """

    label: str
    group: str
    runs: Sequence[Run]
    entries: Mapping[str, Entry]
    missing: Sequence[int]
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its label and group."""
        return f"{self.label}, {self.group}" if self.group else self.label

    @property
    def images(self) -> int:
        """The images of all seeds."""
        return sum(len(run.part.y) for run in self.runs)

    @property
    def n(self) -> str:
        """Seeds times images of a seed, a dash without runs."""
        if not self.runs:
            return DASH
        sizes = {len(run.part.y) for run in self.runs}
        return f"{len(self.runs)} x {'/'.join(f'{size:,}' for size in sorted(sizes))}"


@dataclass
class Table:
    """A table of a sweep: the same headings in each group, and rows by label and group.

    `command` trains all that is missing.
    """

    name: str
    title: str
    headings: Sequence[str]
    groups: Sequence[str]
    rows: Sequence[Row]
    command: str

    @property
    def runs(self) -> list[Run]:
        """The finished runs of all rows."""
        return [run for row in self.rows for run in row.runs]

    def lines(self) -> list[list[Row]]:
        """Return the rows by label, those of all groups together."""
        labels = dict.fromkeys(row.label for row in self.rows)
        return [[row for row in self.rows if row.label == label] for label in labels]


def build_table(sweep: Sweep, results: Results) -> Table:
    """Return the table of a sweep from what is done of it."""
    published = read_published()
    rows = []
    by_choice: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in sweep.jobs:
        by_choice.setdefault(tuple(job.choice.items()), []).append(job)
    for choice, jobs in by_choice.items():
        values = dict(choice)
        group = sweep.axes[sweep.across][values[sweep.across]] if sweep.across else ""
        label = " · ".join(
            sweep.axes[axis][value] for axis, value in values.items() if axis != sweep.across
        )
        label = label or sweep.title
        done, notes = _alike([run for job in jobs for run in results.finished(job)])
        missing = [job for job in jobs if not {*results.finished(job)} & {*done}]
        for job in missing:
            if failure := results.failures.find(job.identity):
                notes.append(f"seed {job.seed} failed: {failure['why']}")
        # What is printed beside a table of two protocols stands in the first group.
        beside = not group or group == next(iter(sweep.axes[sweep.across or ""].values()))
        notes += [
            sweep.notes[value] for value in values.values() if beside and value in sweep.notes
        ]
        entries = {}
        for heading, address in sweep.columns.items():
            key = (sweep.table or 0, values.get("experiment", ""), heading)
            entries[heading] = Entry(
                published.get(key) if beside else None,
                results.value(done, address),
            )
        rows.append(Row(label, group, done, entries, [job.seed for job in missing], notes))
    for label, place in sweep.also.items():
        done = results.at(sweep.runs / place)
        cells = {h: Entry(None, results.value(done, a)) for h, a in sweep.columns.items()}
        notes = [] if done else [f"not there: {sweep.runs / place} (see skinlesion average --help)"]
        rows.append(Row(label, rows[0].group, done, cells, [], notes))
    table = Table(
        name=sweep.name,
        title=sweep.title,
        headings=list(sweep.columns),
        groups=[*sweep.axes[sweep.across].values()] if sweep.across else [""],
        rows=rows,
        command=shlex.join(
            ["python", "train.py", "-cd", "sweeps", "-cn", sweep.name, "-m", *sweep.overrides]
        ),
    )
    _mark_other_data(table)
    return table


def _alike(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Return those of a row's runs that have the same data and weights, and what was left out."""
    made = [(run.provenance.data, run.provenance.weights) for run in runs]
    counts = Counter(made)
    if len(counts) < 2:
        return runs, []
    # Most seeds first; among equals the weights that were trained by somebody, then by name.
    chosen = max(sorted(counts), key=lambda digests: (counts[digests], digests[1] != "none"))
    kept = [run for run, digests in zip(runs, made, strict=True) if digests == chosen]
    left = sorted(str(run.directory.path) for run in runs if run not in kept)
    note = f"{len(left)} further runs of other data or weights are left out: {', '.join(left)}"
    return kept, [note]


def _mark_other_data(table: Table) -> None:
    """Say of each row what sets it apart: other data than most, uncommitted changes, no weights."""
    usual = Counter(run.provenance.data for run in table.runs).most_common(1)
    for row in table.rows:
        digests = {run.provenance.data for run in row.runs} - {digest for digest, _ in usual}
        if digests:
            row.notes.append(f"other data than the other rows (digest {digests.pop()[:8]})")
        if any(run.provenance.dirty for run in row.runs):
            row.notes.append("made with uncommitted changes")
        if any(run.provenance.weights == "none" for run in row.runs):
            row.notes.append("from scratch, without pretrained weights")
