"""The run of the tiny archive, which takes a second or two, and one that is finished."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from skinlesion.runs.directory import RunDirectory
from skinlesion.training.run import run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_job(archive, cache):
    return [
        *("backbone=mobilenet_v3_small", "backbone.input_size=64", "weights=none"),
        *("preprocess=paper", "trainer.max_epochs=2", "machine.device=cpu", "optimizer.eps=0.001"),
        *(f"machine.data={archive}", f"machine.cache={cache}"),
    ]


@pytest.fixture
def tiny(tiny_job, tmp_path):
    return [*tiny_job, f"machine.runs={tmp_path / 'runs'}"]


def plain_config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*overrides])


@pytest.fixture(scope="session")
def plain():
    """A config with overrides."""
    return plain_config


@pytest.fixture
def config(tiny):
    """A config of the tiny run, with further overrides."""
    return lambda *overrides: plain_config(*tiny, *overrides)


@pytest.fixture(scope="session")
def trained(tiny_job, tmp_path_factory):
    """The tiny run, finished. Not to be changed: see `finished`."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    return run(plain_config(*tiny_job, f"machine.runs={runs}"))


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of it where `config` trains, for one test to change."""
    place = tmp_path / "runs" / Path(*trained.path.parts[-3:])
    return RunDirectory(shutil.copytree(trained.path, place))
