"""Runs that share a machine each take a GPU of their own."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.training.devices import own_gpu, take_one


def config(devices: object = 1, accelerator: str = "auto") -> object:
    return OmegaConf.create({"trainer": {"devices": devices, "accelerator": accelerator}})


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"gpu{i}")
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_two_runs_take_two_gpus_and_give_them_back(two_gpus: None) -> None:
    first, second, third = config(), config(), config()
    with own_gpu(first), own_gpu(second):
        assert [first.trainer.devices, second.trainer.devices] == [[0], [1]]
    with own_gpu(third):
        assert third.trainer.devices == [0]


@pytest.mark.parametrize("given", [{"devices": [1]}, {"devices": 2}, {"accelerator": "cpu"}])
def test_what_is_named_stays(two_gpus: None, given: dict) -> None:
    named = config(**given)
    with own_gpu(named):
        assert named == config(**given)


def test_one_gpu_or_none_needs_no_choice() -> None:
    alone = config()
    with own_gpu(alone):
        assert alone == config()


def test_a_run_waits_for_a_gpu_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = take_one(["a"], tmp_path)
    other.__enter__()
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        other.__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    with take_one(["a"], tmp_path, pause=3) as index:
        assert index == 0
    assert waits == [3]


def test_an_error_gives_the_gpu_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), take_one(["a"], tmp_path):
        raise ZeroDivisionError
    with take_one(["a"], tmp_path) as index:
        assert index == 0
