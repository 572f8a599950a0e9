"""Every choice that a rival system brought takes a step with every backbone, and runs."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from skinlesion.cli import CONF
from skinlesion.data.module import LesionDataModule
from skinlesion.errors import SkinlesionError, validated
from skinlesion.models.backbone import Backbone
from skinlesion.models.spec import BackboneSpec
from skinlesion.serving.model import load_run
from skinlesion.training.build import build, open_data
from skinlesion.training.config import read_job, resolve
from skinlesion.training.run import run

FOLDER = CONF / "backbone"
BACKBONES = sorted(path.relative_to(FOLDER).as_posix()[:-5] for path in FOLDER.rglob("*.yaml"))
SIZES = {"inception_resnet_v2": 96, "baseline/inception_v3": 96}  # which take no 64
# Together every choice that has to do with the backbone.
LEARNED = (
    "attention=spectral teacher=crckd teacher.start=0 augment=cutout sampler=balanced loss=mwnl "
    "data.region=fourth_channel +backbone.drop_block.size=5 +backbone.drop_block.probability=0.01"
)
FROZEN = (
    "freeze=true attention=spectral attention.transform=dft metadata=gessert pooling=average "
    "hidden=8 hidden_norm=batch teacher=mean teacher.start=0 recipe=yao augment=randaugment"
)
VIT = "backbone=baseline/timm backbone.timm_model=test_vit backbone.cut=fc_norm attention=none"


def one_step(composed):
    """Take a step of a job on its first batch, without the rest of a run."""
    job = read_job(composed)
    data = open_data(job)
    parts = build(job, resolve(job), data)
    module, samples = parts.module.train(), data.load(job.machine.cache, job.backbone["input_size"])
    loaders = LesionDataModule(samples, 2, augment=parts.augment, workers=0, sampler=job.sampler)
    batch = next(iter(loaders.train_dataloader()))
    logits = module.logits(batch)
    loss = module.loss(logits, batch["label"])
    at = SimpleNamespace(network=module.network, global_step=0, current_epoch=20)
    added = module.teacher(at, batch, logits)
    (loss + added).backward()
    module.optimizer.step()
    assert loss.isfinite()
    assert added > 0
    assert not module.teacher.average.module.training
    assert module.network.dense.weight.grad.any()
    return module.network.backbone


def droppable(backbone):
    """Return a module behind which it can have DropBlock, as the refusal of another names it."""
    values = {**backbone, "drop_block": {"after": ["none"], "size": 1, "probability": 0}}
    with torch.device("meta"), pytest.raises(SkinlesionError) as refusal:
        Backbone(validated(BackboneSpec, values, "backbone"))
    return re.search(r"for example ([\w.]+)", str(refusal.value))[1]


@pytest.mark.parametrize("choices", [LEARNED, FROZEN], ids=["learned", "frozen"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_choice_takes_a_step_with_every_backbone(config, backbone, choices):
    named = [f"backbone={backbone}", f"backbone.input_size={SIZES.get(backbone, 64)}"]
    named += choices.split()
    if choices is LEARNED:
        named.append(f"+backbone.drop_block.after=[{droppable(config(*named[:2]).backbone)}]")
    trunk = one_step(config(*named))
    grads = [p.grad.any() for p in trunk.parameters() if p.grad is not None]
    assert any(grads) if choices is LEARNED else not grads


@pytest.mark.parametrize(
    ("size", "choices"),
    [
        (64, "augment=cutout data.resident=true sampler=balanced"),
        (64, "augment=cutout backbone=baseline/efficientnet_lite0"),
        (160, f"augment=randaugment data.region=fourth_channel {VIT}"),
        (64, "experiment=yao backbone=baseline/regnety_032"),  # with DropBlock
    ],
)
def test_a_rivals_choice_runs(config, size, choices):
    words = ["debug=fast", "trainer.max_epochs=1", "machine.workers=0", *choices.split()]
    directory = run(config(*words, f"backbone.input_size={size}"))
    assert pd.read_csv(directory.history)["train_loss"].notna().tolist() == [True]
    assert directory.done.exists()
    if "fourth_channel" in choices:
        with pytest.raises(SkinlesionError, match="which a picture does not have"):
            load_run(directory.path)


@pytest.mark.parametrize("choice", ["metadata=gessert", "hidden=8 hidden_norm=batch"])
def test_a_batch_norm_over_vectors_refuses_batches_of_one(config, choice):
    with pytest.raises(SkinlesionError, match=r"batch_size=1: .* at least 2"):
        run(config("batch_size=1", *choice.split()))
