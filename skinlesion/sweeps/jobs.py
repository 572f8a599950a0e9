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

from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import identity

ROOT = Path(__file__).parents[2]
FOLDER, CONF = ROOT / "sweeps", ROOT / "conf"
# Composing takes a tenth of a second, and most tables show the same runs.
_COMPOSED: dict[tuple[str, ...], DictConfig] = {}
_SEEDED: dict[tuple[int | str, ...], tuple[DictConfig, str]] = {}
FIELDS = {"title", "table", "axes", "across", "over", "columns", "notes", "also"}


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says, after the overrides of a command line.

    Attributes:
        name: the file's name.
        title: what the table is called.
        table: number of the paper's table, None for a study of our own.
        columns: heading → address into the metrics (`skinlesion.evaluation.metrics`),
            `run.` and a number of the provenance, or None for what is not measured.
        axes: axis → value → label, without `seed` and what a row is over.
        across: the axis whose values stand side by side.
        notes: a value of an axis → what is said of it below the table.
        also: label → directory of a further row, such as `skinlesion average` writes.
        seeds: the seeds.
        jobs: every run, the seeds of a choice one after another.
        overrides: those of the command line.
        runs: the folder of the run directories.
    """

    name: str
    title: str
    table: int | None
    columns: Mapping[str, str | None]
    axes: Mapping[str, Mapping[str, str]]
    across: str | None
    notes: Mapping[str, str]
    also: Mapping[str, str]
    seeds: tuple[int, ...]
    jobs: tuple["Job", ...]
    overrides: tuple[str, ...]
    runs: Path


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        choice: the value on each axis but `seed` and what a row is over.
        seed: the seed.
        config: the job's config, one object for all sweeps that have this job.
        identity: by which its runs are found (`skinlesion.runs.directory.identity`).
    """

    choice: Mapping[str, str]
    seed: int
    config: DictConfig
    identity: str


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
    """Compose every job of a sweep.

    Args:
        name: of a file in sweeps/, without `.yaml`, or the path of one elsewhere.
        overrides: as on the command line of the sweep, such as `seed=0` or `budget=cpu`.

    Raises:
        SkinlesionError: if there is no such sweep, or it or an override is wrong.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise SkinlesionError(f"there is no sweep {name}; there are {', '.join(names())}.")
    node, beside = _sweep_node(path)
    search = f"hydra.searchpath=[file://{CONF}]"
    with initialize_config_dir(str(path.parent.resolve()), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        axes = [f"{axis}={values}" for axis, values in parameters(node["axes"]).items()]
        (combinations,) = BasicSweeper.split_arguments(
            parser.parse_overrides([*axes, *overrides]), max_batch_size=None
        )
        parsed = [dict(item.split("=", 1) for item in overrides_) for overrides_ in combinations]
        # What has one value and is no axis of the file belongs to every row, and labels none.
        varied = [
            key
            for key in parsed[0]
            if key in node["axes"] or len({choice[key] for choice in parsed}) > 1
            if key not in ("seed", node.get("over"))
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
    swept: dict[str, dict[str, str]] = {}
    for axis in varied:
        values = dict.fromkeys(job.choice[axis] for job in jobs)
        swept[axis] = {value: _label(node["axes"], axis, value) for value in values}
    return Sweep(
        name=path.stem,
        title=node["title"],
        table=node.get("table"),
        columns=node["columns"],
        axes=swept,
        across=node.get("across"),
        notes=node.get("notes", {}),
        also=node.get("also", {}),
        seeds=tuple(dict.fromkeys(job.seed for job in jobs)),
        jobs=tuple(jobs),
        overrides=tuple(overrides),
        runs=Path(jobs[0].config.machine.runs),
    )


def _label(axes: Mapping[str, Any], axis: str, value: str) -> str:
    labels = axes.get(axis)
    labels = {str(key): text for key, text in labels.items()} if isinstance(labels, dict) else {}
    return labels.get(value, f"{axis.rpartition('.')[2]}={value}")


def _sweep_node(path: Path) -> tuple[dict[str, Any], str]:
    """Return the node `sweep` of a file, and what else it holds.

    Raises:
        SkinlesionError: if a field is missing or unknown.
    """
    document: Any = OmegaConf.to_container(OmegaConf.load(path))
    node = document.pop("sweep", None) if isinstance(document, dict) else None
    if not isinstance(node, dict):
        raise SkinlesionError(f"{path} has no node `sweep`: expected {', '.join(sorted(FIELDS))}.")
    missing = {"title", "axes", "columns"} - set(node)
    unknown = set(node) - FIELDS
    if missing or unknown:
        raise SkinlesionError(
            f"{path}: sweep lacks {', '.join(sorted(missing)) or 'nothing'} and has unknown "
            f"{', '.join(sorted(unknown)) or 'nothing'}. Its fields: {', '.join(sorted(FIELDS))}."
        )
    return node, repr(document)
