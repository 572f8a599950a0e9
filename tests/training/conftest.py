"""The run of the tiny archive, and one that is finished."""

import shutil
from pathlib import Path

import pytest

from skinlesion.runs.directory import RunDirectory
from skinlesion.training.run import run


@pytest.fixture(scope="session")
def trained(plain, tiny_job, tmp_path_factory):
    """The tiny run, finished. Not to be changed: see `finished`."""
    return run(plain(*tiny_job, f"machine.runs={tmp_path_factory.mktemp('trained') / 'runs'}"))


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of it where `config` trains, for one test to change."""
    place = tmp_path / "runs" / Path(*trained.path.parts[-3:])
    return RunDirectory(shutil.copytree(trained.path, place))
