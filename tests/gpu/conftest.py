"""One code for both: what runs here on a GPU where there is one has run on a CPU before."""

import gc
from types import SimpleNamespace

import pytest
import torch

from skinlesion.training.build import build, open_data
from skinlesion.training.config import read_job, resolve
from skinlesion.training.module import LesionModule


@pytest.fixture(scope="session")
def device():
    return torch.device(*(("cuda", 0) if torch.cuda.is_available() else ("cpu",)))


@pytest.fixture(scope="session")
def tiny_job(tiny_job, device):
    """The tiny run, on this device."""
    return [*tiny_job, f"machine.device={device}"]


@pytest.fixture
def built():
    """A config's job, how it is computed, its parts and its samples."""

    def make(config):
        job = read_job(config)
        compute, data = resolve(job), open_data(job)
        compute.apply()
        samples = data.load(job.machine.cache, job.backbone["input_size"])
        parts = build(job, compute, data)
        return SimpleNamespace(job=job, compute=compute, parts=parts, samples=samples)

    return make


@pytest.fixture
def little_memory(device, monkeypatch):
    """Memory for a few images: a GPU's is limited, on a CPU it is said to be at an end."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        most = torch.cuda.memory_reserved(device) + 96 * 2**20
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(most / total, device)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    logits = LesionModule.logits

    def limited(self, batch):
        if len(batch["image"]) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, batch)

    monkeypatch.setattr(LesionModule, "logits", limited)
    yield
