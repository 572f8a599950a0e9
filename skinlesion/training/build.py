"""From a config to the parts of a run: archive, network, loaders, LightningModule, trainer."""

import dataclasses
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from skinlesion.data.module import LesionDataModule
from skinlesion.data.samples import CheckedArchive, Samples, check
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split
from skinlesion.errors import SkinlesionError
from skinlesion.models.build import build_classifier
from skinlesion.models.classifier import Classifier
from skinlesion.models.preprocess import resolve_preprocess
from skinlesion.models.weights import BackboneSpec, resolve_spec
from skinlesion.training.compute import Compute
from skinlesion.training.module import LesionModule


def open_archive(config: DictConfig) -> CheckedArchive:
    """Check the data and split it; the demo's is drawn at the first use.

    Raises:
        SkinlesionError: one error that names all that is wrong.
    """
    if config.data.demo is not None:
        from skinlesion.data.demo import write_demo

        write_demo(Path(config.data.root), **config.data.demo)
    try:
        split = Split(**config.split)
    except TypeError as error:
        raise SkinlesionError(f"split: {error}") from None
    return check(
        root=Path(config.data.root),
        schema=Schema.from_config(config.data),
        cache=Path(config.data.cache),
        size=config.backbone.input_size,
        split=split,
        limit=config.data.limit,
    )


def build_network(config: DictConfig, compute: Compute) -> Classifier:
    """Build the network, as the weights want it built and the preprocessing wants it fed.

    Raises:
        SkinlesionError: if it cannot be built.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    spec = resolve_spec(BackboneSpec.from_config(plain["backbone"]), config.weights)
    spec = resolve_preprocess(spec, plain["preprocess"], config.weights)
    network: Any = build_classifier(**_description(plain, spec), initialiser=config.initialiser)
    if config.batch_norm == "keras":
        network.backbone.move_statistics_as_keras()
    if compute.turned:
        network.backbone.turn()
    return network.to(memory_format=compute.memory_format)


def build_loaders(config: DictConfig, samples: Samples, compute: Compute) -> LesionDataModule:
    """Return what serves the batches."""
    return LesionDataModule(
        samples,
        config.batch_size,
        augment=instantiate(config.augment),
        seed=config.seed,
        workers=config.data.workers,
        resident=compute.resident,
        evaluation_batch=compute.evaluation_batch,
    )


def build_module(
    config: DictConfig, network: Classifier, samples: Samples, compute: Compute
) -> LesionModule:
    """Join the network and what trains it."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    trained = samples.labels[samples.frame["split"] == "train"]
    counts = [int((trained == label).sum()) for label in range(len(samples.classes))]
    return LesionModule(
        network,
        loss=instantiate(config.loss, counts=counts),
        optimizer=_optimizer(config, compute),
        scheduler=instantiate(config.scheduler),
        classes=len(samples.classes),
        seed=config.seed,
        compile_mode=compute.compile,
        memory_format=compute.memory_format,
        description={
            "network": _description(plain, network.backbone.spec),
            "classes": list(samples.classes),
            "encoder": samples.encoder.to_dict(),
        },
    )


def build_trainer(config: DictConfig, compute: Compute, **options: Any) -> pl.Trainer:
    """Return Lightning's trainer, with further options.

    Raises:
        SkinlesionError: if its devices cannot share a batch.
    """
    options = {"precision": compute.precision, "enable_model_summary": False} | options
    trainer: pl.Trainer = instantiate(config.trainer, use_distributed_sampler=False, **options)
    world = trainer.world_size
    problem = None
    if world > 1 and config.trainer.get("strategy") != "ddp_spawn":
        problem = f"trainer.devices={config.trainer.devices}: several need trainer=ddp"
    elif config.batch_size % world:
        problem = (
            f"batch_size={config.batch_size}: the devices (trainer.devices) share each batch, so "
            f"expected a multiple of {world}"
        )
    elif world > 1 and config.loss.get("divide_by") == "weights":
        problem = (
            "loss.divide_by=weights: a device knows the weights of its own share of a batch only, "
            "expected loss.divide_by=batch or one device"
        )
    if problem:
        raise SkinlesionError(problem)
    return trainer


def try_building(config: DictConfig, network: Classifier, compute: Compute) -> None:
    """Build once what training will need, so that a wrong argument is met before long work."""
    instantiate(config.loss, counts=[1] * len(Schema.from_config(config.data).classes))
    augment = instantiate(config.augment)
    if augment is not None and compute.resident is False:
        _ = augment.albumentations
    build_trainer(config, compute, logger=False, enable_checkpointing=False)
    try:
        optimizer = _optimizer(config, compute)(network.parameters())
    except (TypeError, ValueError) as error:
        raise SkinlesionError(f"optimizer: {error}") from None
    try:
        if config.scheduler is not None:
            instantiate(config.scheduler)(optimizer)
    except (TypeError, ValueError) as error:
        raise SkinlesionError(f"scheduler: {error}") from None


def _optimizer(config: DictConfig, compute: Compute) -> Any:
    """Return what makes the optimizer of the parameters."""
    make = instantiate(config.optimizer)
    # torch refuses fused=False beside foreach=True, and other optimizers know neither.
    fusible = compute.fused and "fused" in inspect.signature(make.func).parameters
    return partial(make, fused=True) if fusible else make


def _description(plain: dict[str, Any], spec: BackboneSpec) -> dict[str, Any]:
    """Return plain values from which the network can be built again, without a weights file."""
    schema = Schema.from_config(plain["data"])
    return {
        "backbone": _plain(dataclasses.asdict(spec)),
        "attention": plain["attention"],
        "metadata": plain["metadata"],
        "classes": len(schema.classes),
        "properties": [*schema.sizes],
        "dropout": plain["dropout"],
        "pooling": plain["pooling"],
        "hidden": plain["hidden"],
    }


def _plain(value: Any) -> Any:
    """Turn tuples into lists, which a config and a checkpoint hold alike."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
