"""How a run is computed changes no result, and is chosen by the device."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions
from skinlesion.training.build import build, open_data
from skinlesion.training.config import read_job, resolve
from skinlesion.training.devices import largest_batch
from skinlesion.training.module import BalancedAccuracy
from skinlesion.training.run import run

ONE_EPOCH = ("trainer.max_epochs=1",)
# Some steps: rounding grows with every one of them, for one epoch it stays small.
RECIPE = ("machine=plain", "machine.evaluation_batch=32", "optimizer.lr=1e-4", "batch_size=16")


def predicted(config):
    return read_predictions(run(config).predictions).probabilities


@pytest.fixture(scope="module")
def plain_run(plain, tiny_job, tmp_path_factory):
    """What the plain run predicts."""
    runs = tmp_path_factory.mktemp("plain")
    return predicted(plain(*tiny_job, *RECIPE, *ONE_EPOCH, f"machine.runs={runs}"))


@pytest.mark.parametrize(
    "switch",
    [
        *("machine.channels_last=true", "machine.fused=true"),
        *("machine.retain_memory=true", "machine.evaluation_batch=5", "machine.tf32=true"),
        *("machine=auto", "data.resident=true"),
    ],
)
def test_each_switch_gives_the_predictions_of_the_plain_run(config, plain_run, switch):
    found = predicted(config(*RECIPE, *ONE_EPOCH, switch))
    assert np.ptp(plain_run, axis=0).max() > 1e-4  # not all alike
    np.testing.assert_allclose(found, plain_run, atol=2e-4)


def test_so_does_an_evaluation_of_as_many_images_as_fit(config, plain_run, monkeypatch):
    tried = []

    def measured(attempt):
        attempt(3)
        tried.append(3)
        return 6

    monkeypatch.setattr("skinlesion.training.devices.largest_batch", measured)
    monkeypatch.setattr(
        "skinlesion.training.run.resolve", lambda job: replace(resolve(job), evaluation_batch=None)
    )
    found = predicted(config(*RECIPE, *ONE_EPOCH))
    assert tried
    np.testing.assert_allclose(found, plain_run, atol=2e-4)


def test_bfloat16_gives_the_predictions_of_float32_within_its_tolerance(config, plain_run):
    half = predicted(config(*RECIPE, *ONE_EPOCH, "precision=bf16-mixed"))
    assert 0 < np.abs(plain_run - half).max() < 0.03


def built(wanted):
    job = read_job(wanted)
    compute = resolve(job)
    return compute, build(job, compute, open_data(job))


def gradients(wanted, **compile_options):
    torch.manual_seed(0)
    how, parts = built(wanted)
    network = parts.module.network
    if compile_options:
        network.compile(**compile_options)
    image = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    logits = network(image.contiguous(memory_format=how.memory_format), torch.rand(4, 21))
    logits.square().sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    # Before a batch norm a bias has no gradient: rounding is left, measured by the whole gradient.
    rounding = 1e-6 * float(torch.cat([value.flatten() for value in expected.values()]).norm())
    for name, value in expected.items():
        atol = 1e-3 * float(value.abs().max()) + rounding
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("attention", ["paper", "released"])
def test_gradients_with_channels_last_are_those_of_the_plain_step(config, attention):
    recipe = ("dropout=0", f"attention={attention}")
    plain = gradients(config(*recipe, "machine=plain"))
    assert plain["attention.conv.weight" if attention == "paper" else "attention.weight"].any()
    assert_equal(gradients(config(*recipe)), plain)


def test_a_compiled_step_is_one_graph_with_the_gradients_of_the_eager_one(config):
    wanted = config("dropout=0")
    # Without code generation, which needs a compiler and minutes.
    assert_equal(gradients(wanted, backend="eager", fullgraph=True), gradients(wanted))


def test_balanced_accuracy_leaves_out_classes_without_a_sample():
    metric = BalancedAccuracy(3)
    for predicted, label in (([0, 0], [0, 0]), ([1, 2], [0, 1])):
        metric.update(torch.eye(3)[predicted], torch.tensor(label))
    assert float(metric.compute()) == pytest.approx((2 / 3 + 0) / 2)


# --- choices ------------------------------------------------------------------------------------


def test_null_is_the_devices_own(config, monkeypatch):
    def resolved(*overrides):
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
    config, monkeypatch, amx, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    assert resolve(read_job(config("backbone=densenet201"))).precision == expected
    assert resolve(read_job(config("backbone=mobilenet_v3_small"))).precision == "32-true"


def test_an_optimizer_that_cannot_be_fused_is_left_as_it_is(config):
    _, parts = built(config("optimizer._target_=torch.optim.NAdam"))
    assert type(parts.module.optimizer) is torch.optim.NAdam


def test_the_largest_batch_is_halved_until_it_fits_and_leaves_room():
    tried = []

    def attempt(images):
        tried.append(images)
        if images > 300:
            raise torch.OutOfMemoryError

    assert largest_batch(attempt, most=1024) == 128
    assert tried == [1024, 512, 256]
    with pytest.raises(torch.OutOfMemoryError):
        largest_batch(lambda images: attempt(301), most=8)


def test_resident_images_are_augmented_without_albumentations_and_opencv(config, monkeypatch):
    for package in ("albumentations", "cv2"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert run(config("augment=datta", "data.resident=true", "debug=fast")).done.exists()
    with pytest.raises(SkinlesionError, match="augmentation in workers needs albumentations"):
        run(config("augment=datta", "data.resident=false"))
