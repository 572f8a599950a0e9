"""No step waits for the device, and what goes wrong on one is told and survived."""

import gc
import json
import multiprocessing
import weakref
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from skinlesion.data.module import LesionDataModule
from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunDirectory
from skinlesion.sweeps.job import run_job
from skinlesion.training.build import build, build_trainer
from skinlesion.training.callbacks import FiniteLoss
from skinlesion.training.devices import evaluation_batch, own_gpu
from skinlesion.training.run import run

pytestmark = pytest.mark.gpu


# --- nothing waits for the device ---------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Refuses what needs a tensor's values on the host: a GPU's queue would run empty."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        needs_values = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        # An index of positions has their shape; only a mask would have to be counted first.
        positions = func is torch.ops.aten.index.Tensor and args[1][0].dtype != torch.bool
        if needs_values & set(func.tags) and not positions:
            raise RuntimeError(f"{func} is a synchronizing operation")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(device):
    """A GPU refuses by itself; on a CPU the operations that would wait are known."""
    if device.type == "cpu":
        with NoWaiting():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Watch(pl.Callback):
    """From the first step of an epoch to its last, fetching and callbacks included.

    The first epoch sets up what is kept.
    """

    def __init__(self, device):
        self.device, self.steps, self.stack = device, 0, ExitStack()

    def on_train_batch_start(self, trainer, module, batch, batch_idx, *_):
        self.steps += trainer.current_epoch
        if trainer.current_epoch and batch_idx == 0:
            self.stack.enter_context(no_waiting(self.device))

    def on_train_batch_end(self, trainer, *_):
        if trainer.is_last_batch:
            self.stack.close()

    on_validation_batch_start = on_train_batch_start

    def on_validation_epoch_end(self, *_):
        self.stack.close()


@pytest.mark.parametrize(
    ("augment", "resident"), [("none", True), ("datta", True), ("none", False)]
)
def test_no_step_waits_for_the_device(config, built, device, monkeypatch, augment, resident):
    made = built(config(f"augment={augment}", f"data.resident={resident}"))
    options = {"resident": resident, "evaluation_batch": 3}
    loaders = LesionDataModule(made.samples, 20, augment=made.parts.augment, **options)
    check, watch = FiniteLoss._check, Watch(device)

    def arrived(self, trainer):  # what it reads is on the host
        with _disable_current_modes():
            check(self, trainer)

    monkeypatch.setattr(FiniteLoss, "_check", arrived)
    directory = RunDirectory(made.job.machine.runs)
    callbacks = [FiniteLoss(directory, made.samples.frame["image_id"].tolist()), watch]
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    options |= {"num_sanity_val_steps": 0, "callbacks": callbacks}
    trainer = build_trainer(made.job, made.compute, **options)
    with watch.stack:
        trainer.fit(made.parts.module, loaders)
    assert watch.steps >= 6
    with pytest.raises(RuntimeError, match="synchronizing"), no_waiting(device):
        torch.ones(1, device=device).item()


@pytest.mark.parametrize("override", ["optimizer.lr=1e20", "loss.weight=[1e38,1,1,1,1,1,1e38]"])
def test_a_loss_that_is_no_number_stops_the_run(config, override):
    with pytest.raises(
        SkinlesionError, match=r"the loss is (nan|inf) in epoch 1, step \d+, with a learning rate"
    ):
        run(config(override))
    (path,) = Path(config().machine.runs).glob("*/*/*/non_finite.json")
    found = json.loads(path.read_text())
    images = set(pd.read_csv(path.parent / "split.csv").query("split == 'train'")["image_id"])
    assert set(found["images"]) <= images
    assert len(found["images"]) == config().batch_size
    assert not [*path.parent.glob("DONE"), *path.parent.glob("checkpoints/*")]


# --- memory -------------------------------------------------------------------------------------


def test_a_batch_of_evaluation_is_halved_until_it_fits(config, built, device, little_memory):
    made = built(config())
    module = made.parts.module
    found = evaluation_batch(module, made.samples, made.compute, device)
    assert 1 <= found < 512  # half of what was tried first
    loaders = LesionDataModule(made.samples, 8, evaluation_batch=found)
    batch = {name: value.to(device) for name, value in next(iter(loaders.val_dataloader())).items()}
    with torch.inference_mode():
        assert module.logits(batch).isfinite().all()


def test_a_training_batch_that_does_not_fit_is_one_line_that_names_it(config, little_memory):
    large = ("batch_size=72", "backbone.input_size=128")
    with pytest.raises(SkinlesionError, match=r"does not fit .*batch_size=72.*smaller") as told:
        run(config(*large))
    assert "\n" not in str(told.value)


def test_a_job_of_a_sweep_leaves_no_memory_to_the_next(config, device, tmp_path, monkeypatch):
    networks = []

    def noted(*arguments):
        parts = build(*arguments)
        networks.append(weakref.ref(parts.module.network))
        return parts

    def held():
        if device.type == "cpu":
            return 0
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # which stay with the process
        return torch.cuda.memory_allocated(device)

    job = {"overrides": {"task": []}, "job": {"num": 0}, "sweep": {"dir": str(tmp_path / "sweep")}}
    monkeypatch.setattr("skinlesion.training.run.build", noted)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(job))
    before = held()
    for seed in (0, 1):
        outcome = run_job(config("trainer.max_epochs=1", f"seed={seed}"))
        assert outcome.status == "done", outcome.why
        assert networks[seed]() is None
        assert held() < before + 2**20  # bytes; a run keeps ten times as many


# --- processes ----------------------------------------------------------------------------------


def test_a_killed_run_goes_on_without_a_hole_or_a_repeat(training, tiny, config):
    with training(*tiny, "trainer.max_epochs=4") as process:
        process.kill()
    (history,) = Path(config().machine.runs).glob("*/*/*/history.csv")
    directory = RunDirectory(history.parent)
    (directory.path / ".history.csv.1.tmp").write_text("what it was writing")
    assert not directory.done.exists()
    assert run(config("trainer.max_epochs=4")).path == directory.path
    assert pd.read_csv(directory.history)["epoch"].tolist() == [1, 2, 3, 4]
    assert directory.done.exists()
    assert not [*directory.path.rglob("*.tmp")]


def test_two_processes_take_a_gpu_each_and_give_it_back(tmp_path, monkeypatch):
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if len(gpus) < 2:
        gpus = [SimpleNamespace(uuid="one"), SimpleNamespace(uuid="other")]
    # As found here, because CUDA cannot be asked in a fork.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_properties", gpus.__getitem__)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def take(queue):
        with own_gpu() as index:
            queue.put(index)

    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    with own_gpu() as mine:
        process = fork.Process(target=take, args=(queue,))
        process.start()
        assert queue.get(timeout=60) != mine
        process.join()
    with pytest.raises(ZeroDivisionError), own_gpu():
        raise ZeroDivisionError
    with own_gpu() as again:
        assert again == mine
