"""A finished run of the tiny archive, made once."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from skinlesion.training.run import run
from skinlesion.runs.directory import RunDirectory

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="session")
def trained(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by lesion, so that it has a test part. Not to be changed: see `finished_run`."""
    base = tmp_path_factory.mktemp("serving")
    overrides = [
        *("backbone=mobilenet_v3_small", "backbone.input_size=64", "weights=none"),
        *("preprocess=paper", "split=lesion", "batch_size=16", "optimizer.eps=0.001"),
        *("machine.device=cpu", "trainer.max_epochs=2"),
        *(f"machine.data={archive}", f"machine.cache={base / 'cache'}", f"machine.runs={base / 'runs'}"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return run(compose("config", overrides)).path


@pytest.fixture
def finished_run(trained: Path, tmp_path: Path) -> RunDirectory:
    """A copy of the run, for one test to write into."""
    return RunDirectory(shutil.copytree(trained, tmp_path / "run" / "key" / "seed0"))
