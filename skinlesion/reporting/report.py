"""What a report shows, collected from a folder of runs; its page is templates/report.html.

Everything follows from the run directories. What is damaged or unfinished is named and left out.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.evaluation.metrics import AVERAGED, OVERALL, headlines, metric_at
from skinlesion.evaluation.subgroups import run_groups
from skinlesion.reporting.layout import lay_out
from skinlesion.reporting.pictures import Picture, pictures
from skinlesion.reporting.render import render
from skinlesion.reporting.results import Leak, Results, Run, one_line
from skinlesion.reporting.tables import Table, build_table
from skinlesion.runs.directory import NO_PART_OF_A_RUN, RunDirectory
from skinlesion.sweeps.jobs import CONF, Sweep, names, read_sweep
from skinlesion.sweeps.status import trained

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


@dataclass(frozen=True)
class SplitLeak:
    """The leak of a held-out part, and the runs that have this very split."""

    part: Measured
    leak: Leak
    runs: list[Run]


@dataclass
class Report:
    """What a report shows: finished runs, tables of sweeps, and pictures by the run's name.

    `left_out` says which run directories, relative to the folder, are damaged or unfinished, and
    `undrawn` why a run has no pictures.
    """

    folder: Path
    runs: Sequence[Run]
    tables: Sequence[Table]
    left_out: Mapping[Path, str]
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    undrawn: dict[str, str] = field(default_factory=dict)

    @property
    def leaks(self) -> list[SplitLeak]:
        """How many held-out images show a lesion of training, equal splits once."""
        found: dict[str, SplitLeak] = {}
        for run in self.runs:
            for part in run.parts:
                if leak := run.leaks.get(part.name):
                    split = json.dumps([run.protocol, part.name, leak.model_dump()])
                    found.setdefault(split, SplitLeak(part, leak, [])).runs.append(run)
        return [found[split] for split in sorted(found)]


def chosen_sweeps(wanted: Sequence[str], overrides: Sequence[str]) -> list[Sweep]:
    """Compose the named sweeps, or every one that takes the overrides.

    Raises what `read_sweep` does of a named sweep, or of the first where none takes them.
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
    """Read and measure the runs of the sweeps' folder; SkinlesionError if none can be read.

    Shown are the sweeps' tables of which a run is finished, or `every_table`.
    """
    results = Results(sweeps[0].runs, sweeps)
    runs = [*results.every_run()]
    left_out = {**results.damaged, **{d.path: _progress(d) for d in results.unfinished}}
    if not runs:
        others = "".join(f"\n  {path}: {why}" for path, why in left_out.items())
        raise SkinlesionError(
            f"{results.folder} holds no finished run that can be read. Expected "
            "<backbone>/<key>/seed<k>/DONE below it; name another folder with machine.runs=…, or "
            f"train one.{others}"
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
    again. A run whose figures cannot be drawn has a note. The images are in the folder `data`;
    None: where the run had them.
    """
    from skinlesion.reporting.figures import draw_run_figures, outdated  # matplotlib: a second

    for run in tqdm(report.runs, "figures", disable=None):
        directory = RunDirectory(run.directory.path)
        with ExitStack() as stack:
            try:
                if outdated(directory):
                    place = directory.figures if directory.figures.exists() else directory.path
                    if not os.access(place, os.W_OK):
                        directory.figures = Path(stack.enter_context(TemporaryDirectory()))
                    draw_run_figures(directory, data)
                report.pictures[run.name] = pictures(directory.figures)
            except Exception as error:  # whatever is wrong with one run stops no other
                report.undrawn[run.name] = one_line(error)


def report_page(report: Report) -> str:
    """Return a whole report as one page, pictures included."""
    return render(
        "report.html",
        report=report,
        layouts=[lay_out(table) for table in report.tables],
        now=datetime.now(UTC),
        choices=_choices,
        differences=_differences,
        groups_of=lambda run: run_groups(run.directory, run.part.predictions),
        # By class and over classes, each run's own section says more.
        overview=[address for address in headlines(()) if not address.startswith("sd.")],
        overall=[name for name in OVERALL if name != "n"],
        metrics=AVERAGED,
        title_of=lambda address: metric_at(address)[1],
    )


def _choices(run: Run) -> dict[str, str]:
    """Return what a run is, in the words of the config's axes; of a class its name alone."""
    found = {title: OmegaConf.select(run.directory.config, at) for title, at in CHOICES.items()}
    return {
        title: str(value).rpartition(".")[2] if CHOICES[title].endswith("_target_") else str(value)
        for title, value in found.items()
        if value is not None
    }


def _differences(run: Run) -> list[tuple[str, str, str | None]]:
    """Return where a config is not that of the default job with the same backbone: name and both.

    What a run does not name came later than it, or belongs to a choice that it did not take.
    """
    own, usual = _flat(run.values), _default(run.config.backbone, run.config.seed)
    return [
        (name, value, usual.get(name))
        for name, value in own.items()
        if value != usual.get(name)
        and name.partition(".")[0] not in ("weights", "seed", *NO_PART_OF_A_RUN)
    ]


@cache
def _default(backbone: str, seed: int) -> dict[str, str]:
    """Return the flat default job; other values are interpolated from the seed."""
    backbones = CONF / "backbone"
    files = [path.relative_to(backbones) for path in backbones.rglob(f"{backbone}.yaml")]
    chosen = [f"backbone={file.with_suffix('')}" for file in files]  # none that is there no more
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*chosen, f"seed={seed}"])
    return _flat(OmegaConf.to_container(config, resolve=True))


def _flat(values: Any) -> dict[str, str]:
    """Return each value of a config as text by its full name."""
    (flat,) = pd.json_normalize(values).to_dict("records")
    return {str(name): "none" if value is None else str(value) for name, value in flat.items()}


def _progress(directory: RunDirectory) -> str:
    locked = (directory.path / ".lock").exists() and directory.locked()
    return f"{'running' if locked else 'unfinished'}, {trained(directory)[0]} epochs trained"
