"""Runs that share a machine each take a GPU of their own."""

from types import SimpleNamespace

import pytest
import torch

from skinlesion.training.devices import own_gpu, take_one


def test_two_runs_take_two_gpus_and_give_them_back(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"gpu{i}")
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with own_gpu() as first, own_gpu() as second:
        assert [first, second] == [0, 1]
    with pytest.raises(ZeroDivisionError), own_gpu():
        raise ZeroDivisionError
    with own_gpu() as third:
        assert third == 0


def test_a_run_waits_for_a_gpu_that_is_taken(tmp_path, monkeypatch):
    other = take_one(["a"], tmp_path)
    other.__enter__()
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        other.__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    with take_one(["a"], tmp_path, pause=3) as index:
        assert index == 0
    assert waits == [3]
