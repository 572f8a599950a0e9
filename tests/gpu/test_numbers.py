"""What a device computes is what the plain way computes on a CPU."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.cli import CONF
from skinlesion.data.augment import Geometric
from skinlesion.data.module import LesionDataModule
from skinlesion.data.samples import LesionDataset
from skinlesion.runs.predictions import read_predictions
from skinlesion.training.build import build_trainer
from skinlesion.training.run import run

pytestmark = pytest.mark.gpu

BACKBONES = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))
ON_CPU = ("mobilenet_v2", "mobilenet_v3_small", "resnet50")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


@pytest.fixture(params=BACKBONES)
def backbone(request, device):
    """Its overrides: at its own size on a GPU."""
    size = 64
    if device.type == "cuda":
        size = OmegaConf.load(CONF / "backbone" / f"{request.param}.yaml").input_size
    elif request.param not in ON_CPU:
        pytest.skip("no GPU")
    return (f"backbone={request.param}", f"backbone.input_size={size}")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_backbone_takes_a_step_and_predicts(config, built, backbone, precision):
    made = built(config(*backbone, "debug=fast", "batch_size=8", f"precision={precision}"))
    module = made.parts.module
    before = {name: weight.detach().clone() for name, weight in module.network.named_parameters()}
    loaders = LesionDataModule(made.samples, 8, resident=made.compute.resident)
    trainer = build_trainer(made.job, made.compute, num_sanity_val_steps=0, **QUIET)
    trainer.fit(module, loaders)
    moved = [not w.detach().cpu().equal(before[n]) for n, w in module.network.named_parameters()]
    assert np.mean(moved) > 0.5
    ((_, probabilities),) = trainer.predict(module, loaders)
    assert probabilities.shape == (8, 7)
    np.testing.assert_allclose(probabilities.sum(1).cpu(), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("precision", "tolerance", "momentum"),
    # The more the batch norms follow the batch, the more images differ, and rounding is magnified:
    # up to 70 times at 0.97, 8 times at 0.1.
    [("32-true", 1e-3, 0.97), ("bf16-mixed", 5e-2, 0.1)],
)
def test_its_logits_are_those_of_the_plain_way_on_a_cpu(
    config, built, backbone, device, precision, tolerance, momentum
):
    made = built(config(*backbone, "machine=plain", "machine.device=cpu", "precision=32-true"))
    plain, dataset = made.parts.module, LesionDataset(made.samples)
    batch = dataset.__getitems__([(0, sample) for sample in range(4)])
    for layer in plain.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = momentum
    with torch.inference_mode():
        plain.train().logits(batch)
        expected = plain.eval().logits(batch)
    largest = expected.abs().max()
    assert expected.std(dim=0).max() > 0.05 * largest  # not all alike

    made = built(config(*backbone, f"precision={precision}", "machine.tf32=false"))
    module = made.parts.module.eval()
    module.load_state_dict(plain.state_dict())
    module.to(device)
    with torch.inference_mode(), made.compute.autocast():
        found = module.logits({name: value.to(device) for name, value in batch.items()})
    assert (found.float().cpu() - expected).square().mean().sqrt() < tolerance * largest


@pytest.mark.parametrize("part", ["train", "val"])
def test_resident_batches_are_those_of_the_host(config, built, device, part):
    samples = built(config()).samples

    def batches(resident):
        loaders = LesionDataModule(samples, 16, seed=3, resident=resident)
        loaders.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
        return list(getattr(loaders, f"{part}_dataloader")())

    for found, expected in zip(batches(True), batches(False), strict=True):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.device == device
            assert torch.equal(value.cpu(), expected[name])


def test_augmentation_is_that_of_a_cpu_for_the_same_draws(config, built, device):
    made = built(config("augment=datta", "data.resident=true", "machine.tf32=true"))
    images = LesionDataset(made.samples).__getitems__([(0, i) for i in range(40)])["image"]
    draws = np.random.default_rng(0).random((40, Geometric.DRAWS), np.float32)
    draws = torch.from_numpy(draws)
    expected = made.parts.augment.on_device(images, draws).int()
    found = made.parts.augment.on_device(images.to(device), draws.to(device)).cpu().int()
    assert (expected - images.int()).abs().float().mean() > 5
    # Where a sum is next to a half, it is rounded to either side.
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.02


def test_a_compiled_run_predicts_what_the_eager_one_does(config, device, tmp_path, monkeypatch):
    """With CUDA graphs on a GPU; on a CPU as a graph that is not turned into code."""
    if device.type == "cpu":
        in_place = torch.nn.Module.compile
        monkeypatch.setattr(
            torch.nn.Module, "compile", lambda self, mode: in_place(self, backend="eager")
        )
    elif not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler, which Triton needs")
    # 70 images by ten, so that no other size needs a graph of its own.
    recipe = ("dropout=0", "batch_size=10", "optimizer.lr=1e-4", "precision=32-true")
    recipe += ("machine.tf32=false", "machine.evaluation_batch=9", "trainer.max_epochs=1")
    runs = [
        run(config(*recipe)),
        run(config(*recipe, "machine.compile=reduce-overhead", f"machine.runs={tmp_path}")),
    ]
    expected, found = (read_predictions(one.predictions).probabilities for one in runs)
    assert np.ptp(expected, axis=0).max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=5e-4)
    names = [[*torch.load(one.best, weights_only=True)["state_dict"]] for one in runs]
    assert names[0] == names[1]
