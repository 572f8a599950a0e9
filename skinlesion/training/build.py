"""From a job to all that trains it: built once, before weights are loaded and images decoded.

What is cheap comes first, so that whatever is wrong is met before long work: table, split, network,
loss, optimizer, schedule.
"""

import inspect
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra.utils import instantiate
from torch import nn

from skinlesion.data.samples import CheckedArchive, open_archive
from skinlesion.errors import SkinlesionError, validated
from skinlesion.models.classifier import build_classifier
from skinlesion.models.spec import BackboneSpec, resolve_preprocess
from skinlesion.training.callbacks import WholeCheckpoints
from skinlesion.training.config import Compute, Job
from skinlesion.training.module import LesionModule


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        module: network, loss, optimizer and schedule; the network without pretrained weights.
        augment: of the training images; None for none.
        logger: of Lightning; False for none.
    """

    module: LesionModule
    augment: Any
    logger: Any


def open_data(job: Job) -> CheckedArchive:
    """Check the data and split it; the demo's is drawn at the first use.

    Raises:
        SkinlesionError: one error that names all that is wrong.
    """
    if job.data.get("demo") is not None:
        from skinlesion.data.demo import write_demo

        write_demo(job.machine.data, **job.data["demo"])
        if job.data.get("test"):
            write_demo(job.machine.test, **job.data["demo"], test=True)
    machine = job.machine
    return open_archive(machine.data, job.data, job.split, job.missing_metadata, machine.test)


def build(job: Job, compute: Compute, data: CheckedArchive) -> Parts:
    """Build all that trains a job.

    Args:
        job: its config, whose weights are `imagenet`, `none` or a file.
        compute: how it is computed.
        data: what it is trained on, split.

    Raises:
        SkinlesionError: naming the axis whose choice cannot be built.
    """
    spec = validated(BackboneSpec, job.backbone, where="backbone")
    if job.weights != "none":
        from skinlesion.models.weights import resolve_spec

        spec = resolve_spec(spec, job.weights)
    spec = resolve_preprocess(spec, job.preprocess, job.weights)
    channels = data.archive.channels
    spec = replace(spec, mask=channels == 4)
    description = {
        "backbone": _lists(asdict(spec)),
        "attention": job.attention,
        "metadata": job.metadata,
        "classes": len(data.classes),
        "properties": [*data.encoder.sizes],
        "dropout": job.dropout,
        "pooling": job.pooling,
        "hidden": job.hidden,
        **({"hidden_norm": job.hidden_norm} if job.hidden_norm else {}),
    }
    pl.seed_everything(job.seed, verbose=False)
    network = build_classifier(**description, initialiser=job.initialiser)
    if job.batch_norm == "keras":
        network.backbone.move_statistics_as_keras()
    if job.freeze:
        network.backbone.freeze()
    if job.batch_size == 1 and any(isinstance(m, nn.BatchNorm1d) for m in network.modules()):
        raise SkinlesionError(
            "batch_size=1: a batch norm of metadata=gessert or hidden_norm=batch needs at least 2."
        )
    network.to(memory_format=compute.memory_format)  # type: ignore[call-overload]
    loss = instantiate(job.loss, counts=data.counts)
    teacher = None
    if job.teacher is not None:
        teacher = instantiate(job.teacher, network=network, labels=data.labels)
    augment = instantiate(job.augment)
    if augment is not None and (compute.resident is False or not augment.DRAWS):
        if compute.resident:
            raise SkinlesionError("data.resident=true: this augmentation is for workers alone.")
        augment(np.zeros((32, 32, channels), np.uint8), 0)  # says now what it lacks
    make = instantiate(job.optimizer)
    # torch refuses fused=False beside foreach=True, and other optimizers know neither.
    fusible = compute.fused and "fused" in inspect.signature(make.func).parameters
    learned = [*network.parameters()]
    learned += [p for p in teacher.parameters() if p.requires_grad] if teacher else []
    axis = "optimizer"
    try:
        optimizer = (partial(make, fused=True) if fusible else make)(learned)
        axis = "scheduler"
        scheduler = None if job.scheduler is None else instantiate(job.scheduler)(optimizer)
    except (TypeError, ValueError) as error:
        raise SkinlesionError(f"{axis}: {error}") from None
    module = LesionModule(
        network,
        loss,
        optimizer,
        scheduler,
        classes=len(data.classes),
        seed=job.seed,
        teacher=teacher,
        memory_format=compute.memory_format,
        compile_mode=compute.compile,
        description={
            "network": description,
            "classes": list(data.classes),
            "encoder": data.encoder.to_dict(),
            "region": data.archive.region,
            "tta": job.tta,
        },
    )
    return Parts(module, augment, _logger(job))


def build_trainer(job: Job, compute: Compute, **options: Any) -> pl.Trainer:
    """Return Lightning's trainer on one device, with further options."""
    settings: dict[str, Any] = {
        "accelerator": "gpu" if job.machine.device.startswith("cuda") else job.machine.device,
        "devices": 1,
        "precision": compute.precision,
        "plugins": [WholeCheckpoints()],
        "enable_model_summary": False,
    }
    trainer: pl.Trainer = instantiate(job.trainer.model_dump(by_alias=True), **settings | options)
    return trainer


def _logger(job: Job) -> Any:
    if job.machine.logger is None:
        return False
    try:
        return instantiate(job.machine.logger)
    except Exception as error:
        if isinstance(error.__cause__, ImportError):
            raise SkinlesionError(
                f"{job.machine.logger['_target_']} needs a package that is not installed: "
                f"{error.__cause__}. pip install 'skinlesion[tensorboard]', [wandb] or [mlflow]."
            ) from None
        raise


def _lists(value: Any) -> Any:
    """Turn tuples into lists, which a config and a checkpoint hold alike."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
