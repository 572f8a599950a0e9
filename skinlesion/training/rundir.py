"""The run directory: a run is addressed by what it is, and DONE is written last.

runs/<backbone>/<key>/seed<k>/
    config.yaml  split.csv  checkpoints/{best,last}.ckpt  predictions.csv  metrics.json
    history.csv  figures/  provenance.json  DONE
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing

# What cannot change a result.
IRRELEVANT = (
    *("runs", "force", "sweep", "logger", "data.root", "data.cache", "data.workers", "data.demo"),
    *("data.tables", "trainer.accelerator", "trainer.devices"),
    *("compute.channels_last", "compute.turned", "compute.fused", "compute.compile"),
    *("compute.tf32", "compute.retain_memory", "compute.evaluation_batch"),
)


def identity(config: DictConfig) -> str:
    """Return a digest of a job's config that does not need its data and weights.

    The seed counts; paths, devices and the place of the weights do not. Jobs of a sweep and runs
    find each other by it.

    Args:
        config: the job's config, or the `config.yaml` of a run.
    """
    values = _relevant(config)
    values.pop("weights", None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


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
    values = _relevant(seedless) | {"weights": weights_digest}
    text = json.dumps([values, data_digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def find_runs(runs: Path, pattern: str = "*/*/*") -> dict[str, list["RunDirectory"]]:
    """Return the run directories under a folder by the identity of their configs.

    Args:
        runs: the folder of the run directories.
        pattern: which of them, as `<backbone>/<key>/seed<k>`.
    """
    found: dict[str, list[RunDirectory]] = {}
    for path in sorted(runs.glob(f"{pattern}/config.yaml")):
        directory = RunDirectory(path.parent)
        found.setdefault(identity(directory.config), []).append(directory)
    return found


def _relevant(config: DictConfig) -> dict[str, Any]:
    """Return the resolved values without what cannot change a result."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    for name in IRRELEVANT:
        *groups, last = name.split(".")
        group: Any = values
        for part in groups:
            group = group.get(part, {})
        group.pop(last, None)
    if "properties" in values.get("data", {}):
        # Their order is the order of encoding, and a mapping's would be lost.
        values["data"]["properties"] = [*values["data"]["properties"].items()]
    return values


class RunLocked(SkinlesionError):
    """Another process is at work in the run directory."""


class RunDirectory:
    """The files of one run.

    Args:
        path: `runs/<backbone>/<key>/seed<k>`.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path; nothing is created."""
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
    def config(self) -> DictConfig:
        """Return the config that the run was made with."""
        config = OmegaConf.load(self.path / "config.yaml")
        assert isinstance(config, DictConfig)
        return config

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
        """Read a file that `write_json` wrote."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")
