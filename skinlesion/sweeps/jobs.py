"""A sweep file says what is swept and how it is labelled; from it follow the jobs and the tables.

sweep:
  title: the table's title
  table: 4                                  # optional: the paper's table to print beside
  axes:
    experiment: {md_resnet50: ResNet50, …}  # value: label, or a list of values
    seed: [0, 1, 2]
  across: split                             # optional: this axis side by side, not row by row
  over: split.fold                          # optional: this axis in one row, as the seeds are
  columns: {accuracy: accuracy, …}          # heading: address into the metrics
  notes: {md_resnet50: text, …}             # optional: what is said below the table of a value
  also: {all folds: average/folds/seed0}    # optional: rows of directories in machine.runs
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from skinlesion.errors import SkinlesionError, validated
from skinlesion.runs.directory import identity

ROOT = Path(__file__).parents[2]
FOLDER, CONF = ROOT / "sweeps", ROOT / "conf"
# Composing takes a tenth of a second, and most tables show the same runs.
_COMPOSED: dict[tuple[str, ...], DictConfig] = {}
_SEEDED: dict[tuple[int | str, ...], tuple[DictConfig, str]] = {}


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `choice` is the value on each axis but `seed` and what a row is over; `config` is one object for
    all sweeps that have this job; by `identity` its runs are found (see `skinlesion.runs`).
    """

    choice: Mapping[str, str]
    seed: int
    config: DictConfig
    identity: str


class Node(BaseModel, extra="forbid", frozen=True, arbitrary_types_allowed=True):
    """The node `sweep` of a file, as above.

    `columns` has addresses into the metrics (`skinlesion.evaluation.metrics`), `run.` and a number
    of the provenance, or None for what is not measured.
    """

    title: str
    table: int | None = None
    axes: dict[str, Any]
    across: str | None = None
    over: str | None = None
    columns: dict[str, str | None]
    notes: dict[str, str] = {}
    also: dict[str, str] = {}


class Sweep(Node, frozen=True):
    """What a sweep file says, after the overrides of a command line.

    The axes are those that make rows or groups, and each value has its label; the jobs are every
    run, the seeds of a choice one after another; `runs` is the folder of the run directories.
    """

    name: str
    jobs: tuple[Job, ...]
    overrides: tuple[str, ...]
    runs: Path


def parameters(axes: Mapping[str, Any]) -> dict[str, str]:
    """Return the axes as Hydra's sweeper takes them: axis → values, separated by commas."""
    return {axis: ",".join(map(str, values)) for axis, values in axes.items()}


def names() -> list[str]:
    """Return the names of the sweep files."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of sweeps among the words of a command line, and the overrides."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]


def read_sweep(name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Compose every job of a sweep, with overrides such as `seed=0` or `budget=cpu`.

    It is named by its file in sweeps/, without `.yaml`, or by the path of one elsewhere. A
    SkinlesionError if there is no such sweep, or it or an override is wrong.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise SkinlesionError(f"there is no sweep {name}; there are {', '.join(names())}.")
    document: Any = OmegaConf.to_container(OmegaConf.load(path))
    node = validated(Node, document.pop("sweep", {}), f"{path}: sweep")
    beside = repr(document)  # jobs of two files are one where this and their choices are
    search = f"hydra.searchpath=[file://{CONF}]"
    with initialize_config_dir(str(path.parent.resolve()), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        axes = [f"{axis}={values}" for axis, values in parameters(node.axes).items()]
        (combinations,) = BasicSweeper.split_arguments(
            parser.parse_overrides([*axes, *overrides]), max_batch_size=None
        )
        parsed = [dict(item.split("=", 1) for item in overrides_) for overrides_ in combinations]
        # What has one value and is no axis of the file belongs to every row, and labels none.
        varied = [
            key
            for key in parsed[0]
            if key not in ("seed", node.over)
            and (key in node.axes or len({choice[key] for choice in parsed}) > 1)
        ]
        jobs = []
        for choice in parsed:
            seed = int(choice.pop("seed", 0))
            arguments = [f"{key}={value}" for key, value in choice.items()]
            composed = (beside, *arguments)
            if composed not in _COMPOSED:
                _COMPOSED[composed] = compose(path.stem, [*arguments, search])
            if (seed, *composed) not in _SEEDED:
                config = copy.deepcopy(_COMPOSED[composed])
                config.seed = seed
                _SEEDED[seed, *composed] = config, identity(config)
            labelled = {key: choice[key] for key in varied}
            jobs.append(Job(labelled, seed, *_SEEDED[seed, *composed]))
    swept = {}
    for axis in varied:
        values = node.axes.get(axis)
        labels = values if isinstance(values, dict) else {}
        labels = {str(value): label for value, label in labels.items()}
        usual = f"{axis.rpartition('.')[2]}={{}}".format
        chosen = dict.fromkeys(job.choice[axis] for job in jobs)
        swept[axis] = {value: labels.get(value, usual(value)) for value in chosen}
    return Sweep(
        **vars(node) | {"axes": swept},
        name=path.stem,
        jobs=tuple(jobs),
        overrides=tuple(overrides),
        runs=Path(jobs[0].config.machine.runs),
    )
