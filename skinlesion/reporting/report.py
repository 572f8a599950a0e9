"""What a report shows, collected from a folder of runs: numbers and words, no HTML.

Everything follows from the run directories. What is damaged or unfinished is named and left out.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.bootstrap import interval, resample
from skinlesion.runs.history import read_history
from skinlesion.evaluation.metrics import evaluate
from skinlesion.reporting.tables import DAMAGE, DRAWS, Results, Run, Table, build_table, one_line
from skinlesion.sweeps.jobs import CONF, Sweep, names, read_sweep
from skinlesion.runs.directory import NO_PART_OF_A_RUN, RunDirectory

# What a reader asks first about a run; the address in its config.
CHOICES = {
    "backbone": "backbone.name",
    "cut": "backbone.cut",
    "image width": "backbone.input_size",
    "attention": "attention.name",
    "metadata branch": "metadata.name",
    "preprocessing": "preprocess.name",
    "augmentation": "augment._target_",
    "loss": "loss._target_",
    "class weights": "loss.weight",
    "optimizer": "optimizer._target_",
    "learning rate": "optimizer.lr",
    "schedule": "scheduler._target_",
    "batch size": "batch_size",
    "epochs at most": "trainer.max_epochs",
    "dropout": "dropout",
    "seed": "seed",
}
# Figures by the beginning of their file's name, as a reader asks for them.
FIGURES = {
    "confusion_matrix": "Confusion matrix",
    "per_class_f1": "F1 by class",
    "roc": "ROC curves",
    "precision_recall": "Precision-recall curves",
    "reliability": "Reliability",
    "learning_curves": "Learning curves",
    "mistakes": "Mistakes",
    "attention": "Soft attention",
}
PROTOCOLS = {"image": "by image", "lesion": "by lesion"}


@dataclass(frozen=True)
class Part:
    """A held-out part of a run, measured.

    Attributes:
        name: val or test.
        metrics: what `evaluate` returns.
        leak: `images`, `leaked`, `share` and perhaps `per_class` with the same; empty if unknown.
    """

    name: str
    metrics: Mapping[str, Any]
    leak: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A value of a run's config that is not the default job's; None where that has none."""

    name: str
    value: str
    default: str | None


@dataclass
class RunReport:
    """A finished run as a report shows it.

    Attributes:
        run: its files.
        name: `<backbone>-<key>-seed<k>`, which is also where a link to it goes.
        protocol: `by image` or `by lesion`, with the fold if it is one.
        parts: its held-out parts; the last one is the one reported.
        low: lower end of the 95 % interval of that part's accuracy, by resampling lesions.
        high: its upper end.
        choices: what it is, in the words of the config's axes.
        differences: where its config is not the default job with this backbone.
        figures: its pictures.
        note: why there are none.
    """

    run: Run
    name: str
    protocol: str
    parts: Sequence[Part]
    low: float
    high: float
    choices: Mapping[str, str]
    differences: Sequence[Difference]
    figures: Sequence[Path] = ()
    note: str = ""

    @property
    def reported(self) -> Part:
        """The part that the protocol reports."""
        return self.parts[-1]

    @property
    def by(self) -> str:
        """What is never divided: image or lesion."""
        return str(OmegaConf.select(self.run.config, "split.by", default=self.protocol))


@dataclass
class Report:
    """What a report shows.

    Attributes:
        folder: of the runs.
        runs: the finished ones.
        tables: of the sweeps.
        left_out: run directories that are damaged or unfinished, relative to the folder, and why.
        written: when, in UTC.
    """

    folder: Path
    runs: Sequence[RunReport]
    tables: Sequence[Table]
    left_out: Mapping[Path, str]
    written: datetime = field(default_factory=lambda: datetime.now(UTC))


def chosen_sweeps(wanted: Sequence[str], overrides: Sequence[str]) -> list[Sweep]:
    """Compose the named sweeps, or every one that takes the overrides.

    Raises:
        SkinlesionError: if a named sweep does not exist.
        HydraException: if an override fits no sweep.
    """
    if wanted:
        return [read_sweep(name, overrides) for name in wanted]
    sweeps, refused = [], []
    for name in tqdm(names(), "sweeps", disable=None):
        try:
            sweeps.append(read_sweep(name, overrides))
        except (HydraException, OmegaConfBaseException) as error:  # of a choice that lacks the key
            refused.append(error)
    if not sweeps:
        raise refused[0]
    return sweeps


def collect_report(sweeps: Sequence[Sweep], every_table: bool) -> Report:
    """Read and measure the runs of the sweeps' folder.

    Args:
        sweeps: whose tables may be shown.
        every_table: also those of which no run is finished.

    Raises:
        SkinlesionError: if no finished run can be read.
    """
    results = Results(sweeps)
    runs = []
    for run in tqdm([*results.every_run()], "runs", disable=None):
        try:
            runs.append(_run_report(run))
        except DAMAGE as error:
            results.damaged[run.directory.path] = one_line(error)
    left_out = {**results.damaged, **dict(_unfinished(results.folder))}
    if not runs:
        what = f"; {len(left_out)} are damaged or unfinished" if left_out else ""
        first = f" ({(path := next(iter(left_out)))}: {left_out[path]})" if left_out else ""
        raise SkinlesionError(
            f"{results.folder} holds no finished run that can be read{what}{first}. Expected "
            "<backbone>/<key>/seed<k>/DONE below it; name another folder with machine.runs=…, or train one."
        )
    tables = [
        build_table(sweep, results)
        for sweep in tqdm(sweeps, "tables", disable=None)
        if every_table or any(results.finished(job) for job in sweep.jobs)
    ]
    relative = {path.relative_to(results.folder): left_out[path] for path in sorted(left_out)}
    return Report(results.folder, runs, tables, relative)


def add_figures(report: Report, data: Path | None, temporary: ExitStack) -> None:
    """Give every run its pictures, and draw them where there are none or older ones.

    They go into the run's `figures/`, or where that cannot be written into a folder that lasts as
    long as `temporary`. A run whose figures cannot be drawn has a note.

    Args:
        report: whose runs are given them.
        data: folder of the images; None: where the run had them.
        temporary: what removes the folder.
    """
    from skinlesion.reporting.figures import draw_run_figures, outdated  # matplotlib: a second

    for shown in tqdm(report.runs, "figures", disable=None):
        directory = RunDirectory(shown.run.directory.path)
        if outdated(directory):
            if not _writable(directory):
                directory.figures = Path(temporary.enter_context(tempfile.TemporaryDirectory()))
            try:
                draw_run_figures(directory, data)
            except DAMAGE as error:
                shown.note = f"The figures could not be drawn: {one_line(error)}"
        shown.figures = sorted(directory.figures.glob("*.png"), key=_order)


def _run_report(run: Run) -> RunReport:
    parts = []
    for name in run.parts:
        part = run.predictions.part(name)
        measured = evaluate(part.y, part.probabilities, part.classes)
        parts.append(Part(name, measured, run.leaks.get(name, {})))
    low, high = interval(resample(run.part, ["accuracy"], DRAWS, seed=0)["accuracy"])
    choices = {
        title: str(value).rpartition(".")[2] if address.endswith("_target_") else str(value)
        for title, address in CHOICES.items()
        if (value := OmegaConf.select(run.config, address, throw_on_missing=False)) is not None
    }
    return RunReport(
        run=run,
        name="_".join("-".join(run.directory.path.parts[-3:]).split()),
        protocol=_protocol(run.config),
        parts=parts,
        low=low,
        high=high,
        choices={**choices, "weights": run.weights},
        differences=_differences(run.config),
    )


def _protocol(config: DictConfig) -> str:
    split = config.split
    name = PROTOCOLS.get(split.get("by", ""), str(split.name))
    folds = split.get("folds")
    return f"{name}, fold {split.get('fold')} of {folds}" if folds else name


def _differences(config: DictConfig) -> list[Difference]:
    """Return where a config differs from the default job with the same backbone."""
    default = deepcopy(_default(str(config.backbone.name)))
    default.seed = config.seed  # other values are interpolated from it
    own, usual = _flat(config), _flat(default)
    # What a run does not name came later than it, or belongs to a choice that it did not take.
    return [
        Difference(name, value, usual.get(name))
        for name, value in own.items()
        if value != usual.get(name)
        and name not in ("weights", "seed")
        and not any(name == other or name.startswith(f"{other}.") for other in NO_PART_OF_A_RUN)
    ]


@cache
def _default(backbone: str) -> DictConfig:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choice in (backbone, f"baseline/{backbone}"):
            try:
                return compose("config", [f"backbone={choice}"])
            except HydraException:
                continue
        return compose("config")  # a backbone that is there no more


def _flat(config: DictConfig) -> dict[str, str]:
    """Return each value of a config as text by its full name."""
    return dict(_leaves("", OmegaConf.to_container(config, resolve=True)))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, "none" if value is None else str(value)


def _unfinished(runs: Path) -> Iterator[tuple[Path, str]]:
    """Yield each run directory without DONE, and how far it is."""
    for path in runs.glob("*/*/seed*"):
        if not path.is_dir() or (path / "DONE").exists():
            continue
        directory = RunDirectory(path)
        try:
            epochs = len(read_history(directory.history)) if directory.history.exists() else 0
        except SkinlesionError:
            epochs = 0
        state = "running" if (path / ".lock").exists() and directory.locked() else "unfinished"
        yield path, f"{state}, {epochs} epochs trained"


def _writable(directory: RunDirectory) -> bool:
    place = directory.figures if directory.figures.exists() else directory.path
    return os.access(place, os.W_OK)


def _order(path: Path) -> tuple[int, str]:
    kinds = [i for i, kind in enumerate(FIGURES) if path.stem.startswith(kind)]
    return min(kinds, default=len(FIGURES)), path.stem
