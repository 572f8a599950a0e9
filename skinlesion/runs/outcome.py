"""What became of each job of a sweep: done, skipped, running elsewhere or failed, and why."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skinlesion.files import replacing
from skinlesion.text import duration

STATUSES = ("done", "skipped", "elsewhere", "failed")
MEANING = {
    "done": "trained now",
    "skipped": "was done before",
    "elsewhere": "another process is at it",
    "failed": "see why",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: its overrides, as on a command line.
        status: one of STATUSES.
        where: the run directory, empty if it failed before there was one.
        why: the error, empty otherwise.
        seconds: how long it took.
    """

    job: list[str]
    status: str
    where: str
    why: str
    seconds: float

    def write(self, path: Path) -> None:
        """Write the outcome as JSON, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_outcomes(folder: Path) -> list[Outcome]:
    """Read every outcome of a folder, by the number of the job."""
    paths = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return a line a job, with what it does not share with the others, and the counts."""
    shared = set.intersection(*({*outcome.job} for outcome in outcomes)) if outcomes[1:] else set()
    lines = []
    for outcome in outcomes:
        own = " ".join(override for override in outcome.job if override not in shared)
        lines.append(f"{outcome.status:<10}{duration(outcome.seconds):>9}  {own}")
        lines += [f"{'':21}{line}" for line in outcome.why.splitlines()]
    counts = {name: sum(o.status == name for o in outcomes) for name in STATUSES}
    found = [f"{count} {name} ({MEANING[name]})" for name, count in counts.items() if count]
    return "\n".join([*lines, f"{len(outcomes)} jobs: {', '.join(found)}"])


class Failures:
    """The last error of each job that failed, so that it can be told later.

    Args:
        runs: the folder of the run directories; nothing is created.
    """

    def __init__(self, runs: Path) -> None:
        self.folder = runs / "failures"

    def record(self, identity: str, why: str) -> None:
        """Keep why a job failed."""
        with replacing(self.folder / f"{identity[:20]}.json") as path:
            path.write_text(json.dumps({"why": why, "when": time.strftime("%F %T")}))

    def forget(self, identity: str) -> None:
        """The job has succeeded since."""
        (self.folder / f"{identity[:20]}.json").unlink(missing_ok=True)

    def find(self, identity: str) -> dict[str, Any] | None:
        """Return `why` and `when`, None if the job has not failed."""
        try:
            return json.loads((self.folder / f"{identity[:20]}.json").read_text())
        except (OSError, ValueError):  # ValueError: it is damaged
            return None
