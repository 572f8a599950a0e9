"""The run directory: a run is addressed by what it is, and DONE is written last.

runs/<backbone>/<key>/seed<k>/
    config.yaml  split.csv  checkpoints/{best,last}.ckpt  predictions.csv  metrics.json
    history.csv  figures/  provenance.json  DONE

What a run is: all of its config but the node `machine`, which holds what cannot change a result,
and but the values that are null: a new option starts as null, so that it orphans no finished run.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from skinlesion.errors import SkinlesionError
from skinlesion.files import TEMPORARY, replacing

if TYPE_CHECKING:
    import pandas as pd

HISTORY = (
    *("epoch", "train_loss", "train_accuracy"),
    *("val_loss", "val_accuracy", "val_balanced_accuracy", "lr", "seconds"),
)
NO_PART_OF_A_RUN = ("machine", "sweep")
DEEPEST = 20  # levels of a config


def identity(config: DictConfig) -> str:
    """Return a digest of a job's config that needs neither its data nor its weights.

    The seed counts; the place of the weights does not. Jobs of a sweep and runs find each other by
    it (`RunDirectory.identity`).
    """
    values: Any = OmegaConf.to_container(config, resolve=True)
    return _digest(_what_it_is(values) | {"weights": None})


def run_key(config: DictConfig, data_digest: str, weights_digest: str) -> str:
    """Return ten hexadecimal digits that name what a run is, whatever its seed and machine.

    Args:
        config: the job's config.
        data_digest: of the table and the images.
        weights_digest: of the weights file, or `imagenet` or `none`.
    """
    # The seed is no part of the key, also where other values are interpolated from it.
    seedless = deepcopy(config)
    seedless.seed = 0
    values: Any = OmegaConf.to_container(seedless, resolve=True)
    return _digest([_what_it_is(values) | {"weights": weights_digest}, data_digest])[:10]


def find_runs(
    runs: Path, pattern: str = "*/*/*"
) -> tuple[dict[str, list["RunDirectory"]], dict[Path, str]]:
    """Return the run directories under a folder by their identity, and why others cannot be read.

    Args:
        runs: the folder of the run directories.
        pattern: which of them, as `<backbone>/<key>/seed<k>`.
    """
    found: dict[str, list[RunDirectory]] = {}
    damaged: dict[Path, str] = {}
    # DONE without a config is damage.
    files = [path for name in ("config.yaml", "DONE") for path in runs.glob(f"{pattern}/{name}")]
    for path in sorted({path.parent for path in files}):
        directory = RunDirectory(path)
        try:
            found.setdefault(directory.identity, []).append(directory)
        except SkinlesionError as error:
            damaged[directory.path] = str(error)
    return found, damaged


def read_history(path: str | Path) -> "pd.DataFrame":
    """Read a history; SkinlesionError if it is missing or no CSV."""
    import pandas as pd

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise SkinlesionError(f"{path} cannot be read as a history: {error}") from error


def write_history(rows: Sequence[dict[str, float]], path: str | Path) -> None:
    """Write the rows, whole or not at all."""
    import pandas as pd

    with replacing(path) as temporary:
        pd.DataFrame(rows, columns=list(HISTORY)).to_csv(temporary, index=False)


class RunLocked(SkinlesionError):
    """Another process is at work in the run directory."""


class RunDirectory:
    """The files of one run.

    Args:
        path: `runs/<backbone>/<key>/seed<k>`; nothing is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.predictions = path / "predictions.csv"
        self.history = path / "history.csv"
        self.figures = path / "figures"
        self.done = path / "DONE"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory against other processes.

        Raises:
            RunLocked: if another process is at work in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            # A moment's patience: `locked` takes the lock too.
            with FileLock(self.path / ".lock", timeout=1):
                for left in self.path.rglob(f".*{TEMPORARY}"):  # by a process that was killed
                    left.unlink()
                yield
        except Timeout:
            raise RunLocked(
                f"{self.path}: another process is training this run. Wait for it, or stop it."
            ) from None

    def locked(self) -> bool:
        """Return whether another process is at work in it."""
        if not os.access(self.path, os.W_OK):
            return False
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True

    @cached_property
    def _read(self) -> tuple[dict[str, Any], str]:
        """The config as plain values, in which an interpolation is text, and its identity."""
        path = self.path / "config.yaml"
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            text = path.read_text(encoding="utf-8")
            _check_tree(yaml.parse(text, loader))
            values = yaml.load(text, loader)
            if not isinstance(values, dict):
                raise ValueError("it holds no names and values")
            # TypeError: a date, a set, bytes, a number as a name, a value where names are expected.
            return values, _digest(_what_it_is(values) | {"weights": None})
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise SkinlesionError(f"{path} cannot be read as a run's config: {why}") from None

    @property
    def values(self) -> dict[str, Any]:
        """The config as plain values, where nothing can be resolved; raises as `config`."""
        return self._read[0]

    @cached_property
    def config(self) -> DictConfig:
        """The config that the run was made with, resolved then and never again.

        Raises:
            SkinlesionError: if it cannot be read.
        """
        return OmegaConf.create(_literal(self.values))

    @property
    def identity(self) -> str:
        """What `identity` gives for the job that made it.

        Raises:
            SkinlesionError: if the config cannot be read.
        """
        return self._read[1]

    def identity_but(self, address: str) -> str:
        """Return the identity without a node (`loss`) or a value (`optimizer.eps`) of the config.

        Raises:
            SkinlesionError: if the config cannot be read.
        """
        node, _, name = address.partition(".")
        rest = (self.values.get(node) or {}) | {name: None} if name else None
        return _digest(_what_it_is(self.values | {node: rest}) | {"weights": None})

    def clear(self) -> None:
        """Remove everything but the lock."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        with replacing(self.path / name) as path:
            path.write_text(text, encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """Read a file that `write_json` wrote.

        Raises:
            SkinlesionError: if it is missing or damaged.
        """
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be written
            return value
        except (OSError, ValueError, RecursionError) as error:
            raise SkinlesionError(f"{path} cannot be read: {error}") from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")


def _check_tree(events: Iterable[yaml.Event]) -> None:
    """Raise ValueError for what no run writes: aliases, of which few lines make a loop or fill the
    memory, and depth, of which the parser's recursion dies.
    """
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
            raise ValueError(f"it has an alias, or more than {DEEPEST} levels; expected a tree")


def _what_it_is(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's values without what is no part of a run, and without nulls."""
    relevant = _without_nulls({k: v for k, v in values.items() if k not in NO_PART_OF_A_RUN})
    data = relevant.get("data", {})
    if "properties" in data:
        # Their order is the order of encoding, and a mapping's would be lost.
        relevant["data"] = data | {"properties": [*data["properties"].items()]}
    return relevant


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _literal(value: Any) -> Any:
    """Escape what OmegaConf would take for an interpolation."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    # A backslash before `${` counts as an escape itself.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
