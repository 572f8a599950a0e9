"""The run of the tiny archive, which takes a second or two, and one that is finished."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from skinlesion.runs.directory import RunDirectory
from skinlesion.training.run import run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_job(archive: Path, cache: Path) -> list[str]:
    return [
        *("backbone=mobilenet_v3_small", "backbone.input_size=64", "weights=none"),
        *("preprocess=paper", "trainer.max_epochs=2", "machine.device=cpu", "optimizer.eps=0.001"),
        *(f"machine.data={archive}", f"machine.cache={cache}"),
    ]


@pytest.fixture
def tiny(tiny_job: list[str], tmp_path: Path) -> list[str]:
    return [*tiny_job, f"machine.runs={tmp_path / 'runs'}"]


def plain_config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*overrides])


@pytest.fixture(scope="session")
def plain() -> Callable[..., DictConfig]:
    """A config with overrides."""
    return plain_config


@pytest.fixture
def config(tiny: list[str]) -> Callable[..., DictConfig]:
    """A config of the tiny run, with further overrides."""
    return lambda *overrides: plain_config(*tiny, *overrides)


@pytest.fixture(scope="session")
def trained(tiny_job: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The tiny run, finished. Not to be changed: see `finished`."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    return run(plain_config(*tiny_job, f"machine.runs={runs}"))


@pytest.fixture
def finished(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of it where `config` trains, for one test to change."""
    place = tmp_path / "runs" / Path(*trained.path.parts[-3:])
    return RunDirectory(shutil.copytree(trained.path, place))
