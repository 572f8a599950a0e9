"""What a report shows, collected from a folder of runs; its page is templates/report.html.

Everything follows from the run directories. What is damaged or unfinished is named and left out.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.evaluation.metrics import AVERAGED, OVERALL, metric_at
from skinlesion.reporting.layout import lay_out
from skinlesion.reporting.pictures import Picture, pictures
from skinlesion.reporting.render import render
from skinlesion.reporting.results import Leak, Results, Run, one_line
from skinlesion.reporting.tables import Table, build_table
from skinlesion.runs.directory import NO_PART_OF_A_RUN, RunDirectory, read_history
from skinlesion.sweeps.jobs import CONF, Sweep, names, read_sweep

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
OVERVIEW = ("accuracy", "balanced_accuracy", "macro.auc", "macro.f1", "ece")
PROTOCOLS = {"image": "by image", "lesion": "by lesion"}


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
        run: its files and what they are worth.
        accuracy: the 95 % interval of the reported part's accuracy, by resampling lesions.
        choices: what it is, in the words of the config's axes.
        differences: where its config is not the default job with this backbone.
        pictures: its figures.
        note: why there are none.
    """

    run: Run
    accuracy: tuple[float, float]
    choices: Mapping[str, str]
    differences: Sequence[Difference]
    pictures: Sequence[Picture] = ()
    note: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """`<backbone>`, `<key>` and `seed<k>`."""
        return self.run.directory.path.parts[-3:]

    @property
    def name(self) -> str:
        """Its place in one word, which is also where a link to it goes."""
        return "_".join("-".join(self.place).split())

    @property
    def protocol(self) -> str:
        """`by image` or `by lesion`, with the fold if it is one."""
        config = self.run.config
        name = PROTOCOLS.get(config.by or "", config.split)
        return f"{name}, fold {config.fold} of {config.folds}" if config.folds else name

    @property
    def by(self) -> str:
        """What is never divided: image or lesion."""
        return self.run.config.by or self.protocol

    @property
    def config(self) -> str:
        """The whole config as YAML."""
        return yaml.safe_dump(self.run.values, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class SplitLeak:
    """The leak of a held-out part, and the runs that have this very split."""

    part: Measured
    leak: Leak
    runs: list[RunReport]


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

    @property
    def leaks(self) -> list[SplitLeak]:
        """How many held-out images show a lesion of training, equal splits once."""
        found: dict[str, SplitLeak] = {}
        for shown in self.runs:
            for part in shown.run.parts:
                if leak := shown.run.leaks.get(part.name):
                    split = json.dumps([shown.protocol, part.name, leak.model_dump()])
                    found.setdefault(split, SplitLeak(part, leak, [])).runs.append(shown)
        return [found[split] for split in sorted(found)]


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
    runs = [_run_report(run) for run in tqdm([*results.every_run()], "runs", disable=None)]
    left_out = {**results.damaged, **dict(_unfinished(results.folder))}
    if not runs:
        what = f"; {len(left_out)} are damaged or unfinished" if left_out else ""
        first = f" ({(path := next(iter(left_out)))}: {left_out[path]})" if left_out else ""
        raise SkinlesionError(
            f"{results.folder} holds no finished run that can be read{what}{first}. Expected "
            "<backbone>/<key>/seed<k>/DONE below it; name another folder with machine.runs=…, or "
            "train one."
        )
    tables = [
        build_table(sweep, results)
        for sweep in tqdm(sweeps, "tables", disable=None)
        if every_table or any(results.finished(job) for job in sweep.jobs)
    ]
    relative = {path.relative_to(results.folder): left_out[path] for path in sorted(left_out)}
    return Report(results.folder, runs, tables, relative)


def add_figures(report: Report, data: Path | None) -> None:
    """Give every run its pictures, and draw them where there are none or older ones.

    They go into the run's `figures/`, or where that cannot be written into a folder that is removed
    again. A run whose figures cannot be drawn has a note.

    Args:
        report: whose runs are given them.
        data: folder of the images; None: where the run had them.
    """
    from skinlesion.reporting.figures import draw_run_figures, outdated  # matplotlib: a second

    for shown in tqdm(report.runs, "figures", disable=None):
        directory = RunDirectory(shown.run.directory.path)
        with tempfile.TemporaryDirectory() as elsewhere:
            try:
                if outdated(directory):
                    if not _writable(directory):
                        directory.figures = Path(elsewhere)
                    draw_run_figures(directory, data)
            except Exception as error:  # whatever is wrong with one run stops no other
                shown.note = f"The figures could not be drawn: {one_line(error)}"
            shown.pictures = pictures(directory.figures)


def report_page(report: Report) -> str:
    """Return a whole report as one page, pictures included."""
    return render(
        "report.html",
        report=report,
        layouts=[lay_out(table) for table in report.tables],
        overview={address: metric_at(address)[1] for address in OVERVIEW},
        metrics=AVERAGED,
        overall=[name for name in OVERALL if name != "n"],
        title_of=lambda address: metric_at(address)[1],
    )


def _run_report(run: Run) -> RunReport:
    choices = {
        title: str(value).rpartition(".")[2] if address.endswith("_target_") else str(value)
        for title, address in CHOICES.items()
        if (value := OmegaConf.select(run.directory.config, address)) is not None
    }
    accuracy = run.part.interval("accuracy")
    return RunReport(run, accuracy, {**choices, "weights": run.weights}, _differences(run))


def _differences(run: Run) -> list[Difference]:
    """Return where a config differs from the default job with the same backbone."""
    own, usual = _flat(run.values), _default(run.config.backbone, run.config.seed)
    # What a run does not name came later than it, or belongs to a choice that it did not take.
    return [
        Difference(name, value, usual.get(name))
        for name, value in own.items()
        if value != usual.get(name)
        and name.partition(".")[0] not in ("weights", "seed", *NO_PART_OF_A_RUN)
    ]


@cache
def _default(backbone: str, seed: int) -> dict[str, str]:
    """Return the flat default job; other values are interpolated from the seed."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choice in ([f"backbone={backbone}"], [f"backbone=baseline/{backbone}"]):
            try:
                config = compose("config", [*choice, f"seed={seed}"])
                return _flat(OmegaConf.to_container(config, resolve=True))
            except HydraException:
                continue
        config = compose("config", [f"seed={seed}"])  # a backbone that is there no more
        return _flat(OmegaConf.to_container(config, resolve=True))


def _flat(values: Any) -> dict[str, str]:
    """Return each value of a config as text by its full name."""
    return dict(_leaves("", values))


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
