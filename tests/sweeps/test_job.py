"""A job never stops the others: whatever happens is an outcome, and no exception is kept."""

import gc
import weakref
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunLocked, identity
from skinlesion.runs.outcome import Failures, read_outcomes
from skinlesion.sweeps.job import run_job
from skinlesion.sweeps.jobs import CONF


@pytest.fixture
def job(tmp_path):
    """The config of a sweep's fourth job."""
    overrides = ["dropout=0.1", f"machine.runs={tmp_path}"]
    overrides += ["hydra.job.num=3", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


@pytest.fixture
def run_with(monkeypatch, job):
    def call(run):
        monkeypatch.setattr("skinlesion.training.run.run", run)
        monkeypatch.setattr("skinlesion.evaluation.command.summarise", lambda directory: None)
        return run_job(job)

    return call


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (SkinlesionError("no weights for it"), "failed", "no weights for it"),
        (RuntimeError("CUDA out of memory"), "failed", "RuntimeError: CUDA out of memory"),
        (RunLocked("another process"), "elsewhere", "another process"),
    ],
)
def test_an_error_is_an_outcome(run_with, tmp_path, error, status, why):
    outcome = run_with(Mock(side_effect=error))
    assert (outcome.status, outcome.why, outcome.where) == (status, why, "")
    assert "dropout=0.1" in outcome.job
    assert read_outcomes(tmp_path / "sweep" / "outcomes") == [outcome]


def test_a_failure_is_remembered_until_the_job_is_done(run_with, job, tmp_path):
    failures, key = Failures(tmp_path), identity(job)
    run_with(Mock(side_effect=RunLocked("another process")))
    assert failures.find(key) is None
    run_with(Mock(side_effect=SkinlesionError("no weights for it")))
    assert failures.find(key)["why"] == "no weights for it"

    done = tmp_path / "DONE"
    done.touch()
    outcome = run_with(lambda config: SimpleNamespace(done=done, path=tmp_path))
    assert outcome.where == str(tmp_path)
    assert failures.find(key) is None


def test_what_the_job_held_is_given_back(run_with):
    held = []

    def run(config):
        network = torch.nn.Identity()
        held.append(weakref.ref(network))
        raise RuntimeError(f"CUDA out of memory, with {type(network).__name__} in this frame")

    run_with(run)
    gc.collect()
    assert held[0]() is None


def test_ctrl_c_ends_the_sweep(run_with):
    with pytest.raises(KeyboardInterrupt):
        run_with(Mock(side_effect=KeyboardInterrupt()))
