"""How a run is computed changes no result, and is chosen by the device."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.classification import MulticlassAccuracy

from skinlesion.data.module import LesionDataModule
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions
from skinlesion.training.build import Parts, build, build_trainer, open_data
from skinlesion.training.config import Compute, read_job, resolve
from skinlesion.training.memory import largest_batch
from skinlesion.training.module import BalancedAccuracy, LesionModule
from skinlesion.training.run import run

Config = Callable[..., DictConfig]
ONE_EPOCH = ("trainer.max_epochs=1",)


def predicted(config: DictConfig) -> np.ndarray:
    return read_predictions(run(config).predictions).probabilities


# Some steps: rounding grows with every one of them, for one epoch it stays small.
RECIPE = ("machine=plain", "machine.evaluation_batch=32", "optimizer.lr=1e-4", "batch_size=16")


@pytest.fixture(scope="module")
def plain_run(
    plain: Config, tiny_job: list[str], tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """What the plain run predicts."""
    runs = tmp_path_factory.mktemp("plain")
    return predicted(plain(*tiny_job, *RECIPE, *ONE_EPOCH, f"machine.runs={runs}"))


@pytest.mark.parametrize(
    "switch",
    [
        *("channels_last=true", "rotated=true", "fused=true"),
        *("retain_memory=true", "evaluation_batch=5", "tf32=true"),
    ],
)
def test_each_switch_gives_the_predictions_of_the_plain_run(
    config: Config, plain_run: np.ndarray, switch: str
) -> None:
    found = predicted(config(*RECIPE, *ONE_EPOCH, f"machine.{switch}"))
    assert np.ptp(plain_run, axis=0).max() > 1e-4  # not all alike
    np.testing.assert_allclose(found, plain_run, atol=2e-4)


@pytest.mark.parametrize("override", ["machine=auto", "data.resident=true"])
def test_so_do_the_defaults_and_residence(
    config: Config, plain_run: np.ndarray, override: str
) -> None:
    found = predicted(config(*RECIPE, *ONE_EPOCH, override))
    np.testing.assert_allclose(found, plain_run, atol=2e-4)


def test_bfloat16_gives_the_predictions_of_float32_within_its_tolerance(
    config: Config, plain_run: np.ndarray
) -> None:
    half = predicted(config(*RECIPE, *ONE_EPOCH, "precision=bf16-mixed"))
    assert 0 < np.abs(plain_run - half).max() < 0.03


Gradients = dict[str, torch.Tensor]


def built(wanted: DictConfig) -> tuple[Compute, Parts]:
    job = read_job(wanted)
    compute = resolve(job)
    return compute, build(job, compute, open_data(job))


def gradients(wanted: DictConfig, **compile_options: Any) -> Gradients:
    torch.manual_seed(0)
    how, parts = built(wanted)
    network = parts.module.network
    if compile_options:
        network.compile(**compile_options)
    image = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    logits = network(image.contiguous(memory_format=how.memory_format), torch.rand(4, 21))
    logits.square().sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def assert_equal(found: Gradients, expected: Gradients) -> None:
    assert found.keys() == expected.keys()
    # Before a batch norm a bias has no gradient: rounding is left, measured by the whole gradient.
    rounding = 1e-6 * float(torch.cat([value.flatten() for value in expected.values()]).norm())
    for name, value in expected.items():
        atol = 1e-3 * float(value.abs().max()) + rounding
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("attention", ["paper", "released"])
def test_gradients_with_channels_last_are_those_of_the_plain_step(
    config: Config, attention: str
) -> None:
    recipe = ("dropout=0", f"attention={attention}")
    plain = gradients(config(*recipe, "machine=plain"))
    assert plain["attention.conv.weight" if attention == "paper" else "attention.weight"].any()
    assert_equal(gradients(config(*recipe)), plain)


def test_a_compiled_step_is_one_graph_with_the_gradients_of_the_eager_one(config: Config) -> None:
    wanted = config("dropout=0")
    # Without code generation, which needs a compiler and minutes.
    assert_equal(gradients(wanted, backend="eager", fullgraph=True), gradients(wanted))


def test_compilation_reaches_training_and_keeps_the_names_of_weights(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode: modes.append(mode))
    directory = run(config("machine.compile=reduce-overhead", "debug=fast"))
    assert set(modes) == {"reduce-overhead"}
    state = torch.load(directory.best, weights_only=True)["state_dict"]
    assert not [name for name in state if "_orig_mod" in name]


# --- nothing waits for the device ---------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Refuses what needs a tensor's values on the host: a GPU's queue would run empty."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        needs_values = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        # An index of positions has their shape; only a mask would have to be counted first.
        positions = func is torch.ops.aten.index.Tensor and args[1][0].dtype != torch.bool
        if needs_values & set(func.tags) and not positions:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class InEveryStep(pl.Callback):
    """From the start of a step, Lightning's own work included, to its end."""

    def __init__(self) -> None:
        self.steps, self.stack = 0, ExitStack()

    def on_train_batch_start(self, *_: Any) -> None:
        self.stack.enter_context(NoWaiting())

    def on_train_batch_end(self, *_: Any) -> None:
        self.stack.close()
        self.steps += 1

    on_validation_batch_start = on_train_batch_start
    on_validation_batch_end = on_train_batch_end


@pytest.mark.parametrize("augment", ["none", "datta"])
def test_no_step_waits_for_the_device(config: Config, augment: str) -> None:
    job = read_job(config(f"augment={augment}", "data.resident=true", "batch_size=20", *ONE_EPOCH))
    compute, data, watch = resolve(job), open_data(job), InEveryStep()
    parts = build(job, compute, data)
    samples = data.load(job.machine.cache, 64)
    loaders = LesionDataModule(samples, job.batch_size, augment=parts.augment, resident=True)
    trainer = build_trainer(
        job,
        compute,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    with watch.stack:
        trainer.fit(parts.module, loaders)
    assert watch.steps >= 4
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        torch.ones(1).item()


def test_balanced_accuracy_is_torchmetrics_macro_accuracy() -> None:
    ours, theirs = BalancedAccuracy(7), MulticlassAccuracy(7, average="macro")
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        logits = torch.rand(40, 7, generator=generator)
        label = torch.randint(7, (40,), generator=generator)
        ours.update(logits, label)
        theirs.update(logits, label)
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()))


def test_balanced_accuracy_leaves_out_classes_without_a_sample() -> None:
    metric = BalancedAccuracy(3)
    metric.update(torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 0, 0, 1]))
    assert float(metric.compute()) == pytest.approx((2 / 3 + 0) / 2)


# --- choices ------------------------------------------------------------------------------------


def test_null_is_the_devices_own(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*overrides: str) -> Compute:
        return resolve(read_job(config(*overrides)))

    here = resolved()
    assert (here.device, here.precision, here.evaluation_batch) == ("cpu", "32-true", 32)
    assert (here.channels_last, here.fused, here.compile) == (True, True, None)
    assert here.resident is False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    gpu = resolved("machine.device=auto")
    assert (gpu.device, gpu.precision, gpu.evaluation_batch) == ("cuda", "bf16-mixed", None)
    assert (gpu.resident, gpu.retain_memory) == (None, False)
    assert resolved("machine.device=cpu").device == "cpu"


@pytest.mark.parametrize(("amx", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_takes_bfloat16_for_dense_convolutions_if_it_multiplies_it_in_hardware(
    config: Config, monkeypatch: pytest.MonkeyPatch, amx: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    assert resolve(read_job(config("backbone=densenet201"))).precision == expected
    assert resolve(read_job(config("backbone=mobilenet_v3_small"))).precision == "32-true"


def test_an_optimizer_that_cannot_be_fused_is_left_as_it_is(config: Config) -> None:
    wanted = config("optimizer._target_=torch.optim.NAdam")
    optimizer = built(wanted)[1].module.optimizer
    assert type(optimizer) is torch.optim.NAdam


def test_the_largest_batch_is_halved_until_it_fits_and_leaves_room() -> None:
    tried = []

    def attempt(images: int) -> None:
        tried.append(images)
        if images > 300:
            raise torch.OutOfMemoryError

    assert largest_batch(attempt, most=1024) == 128
    assert tried == [1024, 512, 256]
    with pytest.raises(torch.OutOfMemoryError):
        largest_batch(lambda images: attempt(301), most=8)


def test_evaluation_takes_as_many_images_as_fit(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def measured(attempt: Callable[[int], Any]) -> int:
        attempt(3)
        attempts.append(3)
        return 6

    how = replace(resolve(read_job(config())), evaluation_batch=None)
    monkeypatch.setattr("skinlesion.training.run.resolve", lambda _: how)
    monkeypatch.setattr("skinlesion.training.memory.largest_batch", measured)
    trained = []
    step = LesionModule.training_step

    def training_step(self: LesionModule, batch: Any, batch_idx: int) -> torch.Tensor:
        trained.append(self.network.training)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LesionModule, "training_step", training_step)
    run(config("debug=fast"))
    assert attempts == [3]
    assert trained
    assert all(trained)


def test_resident_images_are_augmented_without_albumentations_and_opencv(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("albumentations", "cv2"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert run(config("augment=datta", "data.resident=true", "debug=fast")).done.exists()
    with pytest.raises(SkinlesionError, match="augmentation in workers needs albumentations"):
        run(config("augment=datta", "data.resident=false"))
