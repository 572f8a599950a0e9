"""Finished runs as tables and report read them: checked once, measured once.

Everything follows from the run directories. One that is damaged is named, and left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import AliasPath, BaseModel, Field

from skinlesion.errors import SkinlesionError, validated
from skinlesion.evaluation.bootstrap import interval, mean_over_runs
from skinlesion.evaluation.measured import DRAWS, Measured
from skinlesion.evaluation.metrics import fits
from skinlesion.runs.directory import RunDirectory, find_runs
from skinlesion.runs.outcome import Failures
from skinlesion.runs.predictions import SELECTED, read_predictions
from skinlesion.sweeps.jobs import Job, Sweep


class Facts(BaseModel):
    """What of a run's config is shown."""

    seed: int
    weights: str
    backbone: str = Field(validation_alias=AliasPath("backbone", "name"))
    input_size: int = Field(validation_alias=AliasPath("backbone", "input_size"))
    split: str = Field(validation_alias=AliasPath("split", "name"))
    by: str | None = Field(None, validation_alias=AliasPath("split", "by"))
    fold: int | None = Field(None, validation_alias=AliasPath("split", "fold"))
    folds: int | None = Field(None, validation_alias=AliasPath("split", "folds"))


class Provenance(BaseModel, extra="allow"):
    """What a run was made with; there is more than what stands here."""

    commit: str | None
    dirty: bool
    data: str
    weights: str
    cpu: str | None
    gpu: str | None
    epochs: int
    parameters: int
    seconds_per_epoch: float | None


class Leak(BaseModel):
    """How many held-out images show a lesion that is also in training.

    `near_copies` are the same picture as a training image of another lesion; None: not counted.
    """

    images: int
    leaked: int
    share: float | None
    near_copies: int | None = None
    per_class: dict[str, "Leak"] = {}


class Run:
    """A finished run, from a directory that is DONE.

    Attributes:
        place: `<backbone>`, `<key>` and `seed<k>`; `name` is the same in one word, for links.
        values: its config, as plain values; `config` what of it is shown in tables.
        protocol: `by image`, `by lesion` or `official`, with the fold if it is one.
        part: the part that its protocol reports, measured; `parts` are that one and the others.
        leaks: of each held-out part; `leak` is the share of the reported one, None if unknown.
        weights: their name; of these, of `data` and of `commit` the beginning of the digest.

    Raises:
        SkinlesionError: if a file is missing or damaged, in one line.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.place = directory.path.parts[-3:]
        self.name = "_".join("-".join(self.place).split())
        self.values = directory.values
        self.config = config = validated(Facts, self.values, "config.yaml")
        if self.values["data"].get("test"):  # no split made its test part
            config.by = None
        self.protocol = f"by {config.by}" if config.by else config.split
        if config.folds:
            self.protocol += f", fold {config.fold} of {config.folds}"
        read = directory.read_json("provenance.json")
        self.provenance = made = validated(Provenance, read, "provenance.json")
        self.commit, self.data = (made.commit or "unknown")[:7], made.data[:8]
        self.weights = made.weights
        if self.weights not in ("imagenet", "none"):
            self.weights = f"{Path(config.weights).name} ({self.weights[:8]})"
        leaks = directory.read_json("metrics.json")["leak"]
        self.leaks = validated(dict[str, Leak], leaks, "metrics.json")
        predictions = read_predictions(directory.predictions)
        self.part = Measured.reported(predictions)
        others = [Measured(predictions.part(s)) for s in predictions.splits if s != self.part.name]
        self.parts = [self.part, *others]
        leak = self.leaks.get(self.part.name)
        self.leak = leak.share if leak else None
        if self.values.get("head"):  # whose validation part selects nothing either
            for part in self.parts:
                part.role = SELECTED["test"]


@dataclass(frozen=True)
class Ours:
    """Our value of a cell: mean and population sd over seeds, and the interval by lesion."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None


class Results:
    """The runs under a folder and their values, read and measured once however many tables ask.

    `sweeps` are all whose tables will be asked for. `damaged` are the finished runs that could not
    be read, and why, known once they were asked for; `unfinished` the directories of the others.
    """

    def __init__(self, folder: Path, sweeps: Sequence[Sweep] = ()) -> None:
        self.folder = folder
        addresses = dict.fromkeys(a for sweep in sweeps for a in sweep.columns.values())
        self.addresses = [a for a in addresses if a is not None and not a.startswith("run.")]
        self.failures = Failures(self.folder)
        found, self.damaged = find_runs(self.folder)
        self._done = {name: [d for d in same if self._finished(d)] for name, same in found.items()}
        self.unfinished = [d for same in found.values() for d in same if not d.done.exists()]
        self._runs: dict[Path, Run] = {}
        self._measured: dict[tuple[Path, ...], dict[str, Ours | None]] = {}

    def _finished(self, directory: RunDirectory) -> bool:
        """Return whether a run is DONE; one whose config was cut would be that of no job."""
        if not directory.done.exists():
            return False
        try:
            validated(Facts, directory.values, "config.yaml")
        except SkinlesionError as error:
            self.damaged[directory.path] = str(error)
        return directory.path not in self.damaged

    def every_run(self) -> Iterator[Run]:
        """Yield each finished run that can be read, by its path."""
        directories = [directory for same in self._done.values() for directory in same]
        yield from self._read(sorted(directories, key=lambda directory: directory.path))

    def finished(self, job: Job) -> list[Run]:
        """Return the runs of a job that are DONE: one, or one for each data and weights."""
        return [*self._read(self._done.get(job.identity, []))]

    def at(self, path: Path) -> list[Run]:
        """Return the run of a directory, if it is there and DONE."""
        directory = RunDirectory(path)
        return [*self._read([directory])] if self._finished(directory) else []

    def _read(self, directories: Sequence[RunDirectory]) -> Iterator[Run]:
        for directory in directories:
            path = directory.path
            if path not in self._runs and path not in self.damaged:
                try:
                    self._runs[path] = Run(directory)
                except Exception as error:  # whatever is wrong with one run stops no other
                    self.damaged[path] = one_line(error)
            if path in self._runs:
                yield self._runs[path]

    def value(self, runs: Sequence[Run], address: str | None) -> Ours | None:
        """Return the value of an address over the seeds of a row, None if it was not measured."""
        if address is None or not runs:
            return None
        if address.startswith("run."):
            scale = 1e-6 if address == "run.parameters" else 1.0  # millions
            name = address.removeprefix("run.")
            values = [getattr(run.provenance, name, None) for run in runs]
            return _ours(values, None, scale)
        key = tuple(run.directory.path for run in runs)
        if key not in self._measured:
            parts = [run.part for run in runs]
            # Runs of other data may have other classes.
            known = [a for a in self.addresses if all(fits(a, part.classes) for part in parts)]
            drawn = mean_over_runs([part.predictions for part in parts], known, DRAWS)
            self._measured[key] = {
                a: _ours([part.value(a) for part in parts], drawn[a]) for a in known
            }
        return self._measured[key].get(address)


def one_line(error: Exception) -> str:
    """Return what an error says in one line, with its kind where that is half of it."""
    message = " ".join(str(error).split())
    return message if isinstance(error, SkinlesionError) else f"{type(error).__name__}: {message}"


def _ours(values: Sequence[Any], drawn: np.ndarray | None, scale: float = 1.0) -> Ours | None:
    known = scale * np.array(values, dtype=float)  # None is NaN
    if np.isnan(known).any():
        return None
    low, high = interval(drawn) if drawn is not None else (None, None)
    sd = float(known.std()) if len(known) > 1 else None
    return Ours(float(known.mean()), sd, low, high)
