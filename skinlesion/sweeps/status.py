"""What of a sweep is done, running, cut, failed or left, and how long the rest will take."""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunDirectory, find_runs, read_history
from skinlesion.runs.outcome import Failures
from skinlesion.sweeps.jobs import Job, Sweep, names, read_sweep, split_words
from skinlesion.text import duration

STATES = ("done", "running", "cut", "failed", "left")


@dataclass(frozen=True)
class JobStatus:
    """How far a job is: one of STATES, the epochs and seconds trained, and where, or why it failed.

    A job is `cut` that was begun, and nobody is at it.
    """

    job: Job
    state: str
    epochs: int
    seconds: float
    note: str


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], None]:
    """Add the options of `skinlesion status`."""
    parser.add_argument("words", nargs="+", metavar="SWEEP|key=value", help="a sweep, overrides")
    parser.epilog = "example: skinlesion status table4 budget=cpu seed=0"

    def run(options: argparse.Namespace) -> None:
        chosen, overrides = split_words(options.words)
        if len(chosen) != 1:
            raise SkinlesionError(f"name one sweep; there are {', '.join(names())}.")
        sweep = read_sweep(chosen[0], overrides)
        for path, why in find_runs(sweep.runs)[1].items():
            print(f"left out, because damaged: {path}: {why}", file=sys.stderr)
        print(summary(sweep, sweep_status(sweep)))

    return run


def sweep_status(sweep: Sweep) -> list[JobStatus]:
    """Return how far each job is, jobs that are one and the same run once."""
    (found, _), failures = find_runs(sweep.runs), Failures(sweep.runs)
    jobs = {job.identity: job for job in reversed(sweep.jobs)}
    return [
        _job_status(job, found.get(key, []), failures.find(key))
        for key, job in reversed(jobs.items())
    ]


def summary(sweep: Sweep, statuses: Sequence[JobStatus]) -> str:
    """Return a line a job, the counts, and an estimate of what is left, as plain text."""
    lines = [f"{sweep.title}: {len(statuses)} runs"]
    for status in statuses:
        labels = [sweep.axes[axis][value] for axis, value in status.job.choice.items()]
        so_far = f"{status.epochs:>4} epochs {duration(status.seconds):>9}"
        name = " · ".join([*labels, f"seed {status.job.seed}"])
        lines.append(f"{status.state:<8}{so_far if status.epochs else '':<22}  {name}")
        lines += [f"{'':34}{line}" for line in status.note.splitlines()]
    counts = Counter(status.state for status in statuses)
    lines.append(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))
    rest = _left(statuses)
    if any(status.state != "done" for status in statuses):
        estimate = "no run is finished, so nothing can be estimated"
        if rest is not None:
            estimate = f"about {duration(rest)} of training is left, one run after another"
        lines.append(estimate)
    return "\n".join(lines)


def _job_status(job: Job, directories: Sequence[RunDirectory], failure: dict | None) -> JobStatus:
    for directory in directories:
        if directory.done.exists():
            return JobStatus(job, "done", *trained(directory), str(directory.path))
    for directory in directories:
        state = "running" if directory.locked() else "cut"
        note = failure["why"] if failure and state == "cut" else str(directory.path)
        state = "failed" if failure and state == "cut" else state
        return JobStatus(job, state, *trained(directory), note)
    if failure:
        return JobStatus(job, "failed", 0, 0.0, f"{failure['why']} ({failure['when']})")
    return JobStatus(job, "left", 0, 0.0, "")


def trained(directory: RunDirectory) -> tuple[int, float]:
    """Return the epochs and the seconds that a run was trained, 0 where nobody can say."""
    if not directory.history.exists():
        return 0, 0.0
    try:
        history = read_history(directory.history)
        return len(history), float(history["seconds"].sum())
    except (SkinlesionError, KeyError, ValueError, TypeError):  # of one run, and stops no other
        print(f"damaged: {directory.history}", file=sys.stderr)
        return 0, 0.0


def _left(statuses: Sequence[JobStatus]) -> float | None:
    """Estimate the seconds of training that are left from the finished runs of like backbones."""
    took = defaultdict(list)
    for status in statuses:
        if status.state == "done" and status.epochs:
            took[status.job.config.backbone.name].append(status.seconds)
    if not took:
        return None
    usual = median(seconds for like in took.values() for seconds in like)
    return sum(
        max(0.0, median(took.get(status.job.config.backbone.name, [usual])) - status.seconds)
        for status in statuses
        if status.state != "done"
    )
