"""One run: check, build, load, fit, predict with the best checkpoint, evaluate, write, DONE."""

import hashlib
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from skinlesion.data.module import LesionDataModule
from skinlesion.data.samples import CheckedArchive, Samples
from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunDirectory, find_runs, identity, read_history, run_key
from skinlesion.runs.predictions import write_predictions
from skinlesion.training.build import Parts, build, build_trainer, open_data
from skinlesion.training.callbacks import Checkpoint, FiniteLoss, History
from skinlesion.training.config import Compute, Job, read_job, resolve

log = logging.getLogger(__name__)


def run(config: DictConfig) -> RunDirectory:
    """Train what the config says, unless it is done; go on where it was cut.

    Args:
        config: the job's config (conf/config.yaml).

    Returns:
        The finished run directory.

    Raises:
        SkinlesionError: if the input is wrong; nothing is then written into the run directory.
    """
    _quiet()
    job = read_job(config)
    if job.head is not None:
        from skinlesion.training import heads

        heads.check(job)
    if Path(job.weights).is_dir():
        from skinlesion.models.weights import find_weights

        config = config.copy()
        config.weights = find_weights(job.weights, job.backbone["name"])
        job = read_job(config)
    weights = "none" if job.pixels else job.weights
    compute = resolve(job)
    compute.apply()
    data, digest = open_data(job), _weights_digest(weights)
    if not job.machine.force and (finished := _finished(job, identity(config), data, digest)):
        log.info("%s is done; machine.force=true runs it again.", finished.path)
        return finished
    parts = build(job, compute, data)
    parts.module.network.backbone.load(weights)
    samples = data.load(job.machine.cache, job.image_size)
    key = run_key(config, samples.digest, digest)
    directory = RunDirectory(job.machine.runs / job.backbone["name"] / key / f"seed{job.seed}")
    with directory.lock():
        if job.machine.force:
            directory.clear()
        if not directory.done.exists():  # another process may have finished it meanwhile
            directory.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
            from skinlesion.training.resume import write_split

            write_split(samples, directory)
            with _device(job) as devices, _memory(job):
                train = _train if job.head is None else heads.fit
                train(job, compute, parts, samples, directory, devices)
            _finish(job, samples, directory, digest)
    return directory


def _finished(job: Job, key: str, data: CheckedArchive, weights: str) -> RunDirectory | None:
    """Return the finished run of this identity, data and weights, without building anything."""
    pattern = f"{job.backbone['name']}/*/seed{job.seed}"
    found, damaged = find_runs(job.machine.runs, pattern)
    for directory in found.get(key, []):
        if directory.done.exists():
            digest = data.digest(job.machine.cache, job.image_size)
            try:
                made = directory.read_json("provenance.json")
                if (made.get("data"), made.get("weights")) == (digest, weights):
                    return directory
            except SkinlesionError as error:
                damaged[directory.path] = str(error)
    for path, why in damaged.items():
        log.warning("left out, because damaged: %s: %s", path, why)
    return None


def _train(
    job: Job,
    compute: Compute,
    parts: Parts,
    samples: Samples,
    directory: RunDirectory,
    devices: Any,
) -> None:
    """Fit, or go on fitting, and predict the held-out parts with the best checkpoint."""
    from skinlesion.runs.provenance import provenance
    from skinlesion.training.devices import evaluation_batch

    module, interactive = parts.module, sys.stderr.isatty()
    trainer = build_trainer(
        job,
        compute,
        devices=devices,
        default_root_dir=directory.path,
        callbacks=[
            History(directory.history, log_epochs=not interactive),
            FiniteLoss(directory, samples.frame["image_id"].tolist()),
            instantiate(job.callbacks.early_stopping),
            instantiate(job.callbacks.best, dirpath=directory.checkpoints, filename="best"),
            Checkpoint(dirpath=directory.checkpoints, filename="last"),
        ],
        logger=parts.logger,
        enable_progress_bar=interactive,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # all is logged by epoch; a longer interval only makes it warn
    )
    if parts.logger:
        parts.logger.log_hyperparams(job.model_dump(mode="json", by_alias=True))
    resume = None
    if directory.checkpoints.exists():
        from skinlesion.training.resume import newest_checkpoint

        resume = newest_checkpoint(directory)
    before = directory.read_json("provenance.json")["commits"] if resume else []
    made = provenance()
    made |= {
        "compute": asdict(compute),
        "parameters": sum(p.numel() for p in module.network.parameters()),
        "commits": [*before, made["commit"]],  # one for each time it was started
    }
    directory.write_json("provenance.json", made)
    log.info("%s %s", "resuming" if resume else "training", directory.path)
    device = trainer.strategy.root_device
    loaders = LesionDataModule(
        samples,
        job.batch_size,
        augment=parts.augment,
        seed=job.seed,
        workers=job.machine.workers,
        resident=compute.resident,
        evaluation_batch=compute.evaluation_batch
        or evaluation_batch(module, samples, compute, device),
        sampler=job.sampler,
    )
    with _interruptible():
        trainer.fit(module, loaders, ckpt_path=resume, weights_only=True)
    best = torch.load(directory.best, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    # Another trainer: after Ctrl-C in the last epoch the first one would predict nothing.
    trainer = build_trainer(
        job,
        compute,
        devices=devices,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=interactive,
    )
    with _interruptible():
        batches = trainer.predict(module, loaders)
    write_predictions(_predictions(batches, samples), directory.predictions)
    if job.data.get("unknown"):
        from skinlesion.training.unknown import score_unknown

        score_unknown(module.network.to(device), samples, job.seed, compute, directory)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Undo how Lightning answers Ctrl-C: by leaving with code 1."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise


def _predictions(parts: Any, samples: Samples) -> pd.DataFrame:
    """Return the table of the predictions file from Lightning's lists of batches."""
    batches = [
        batch for part in (parts if isinstance(parts[0], list) else [parts]) for batch in part
    ]
    index = torch.cat([index for index, _ in batches]).cpu().numpy()
    probabilities = torch.cat([probability for _, probability in batches]).cpu().numpy()
    return samples.answered(index, probabilities)


def _finish(job: Job, samples: Samples, directory: RunDirectory, weights: str) -> None:
    """Write all that follows from the predictions, and DONE last of all."""
    from skinlesion.data.duplicates import near_copies
    from skinlesion.evaluation.metrics import evaluate_file

    copies = near_copies(samples)
    metrics = {
        "protocol": job.split.name,
        "parts": evaluate_file(directory.predictions),
        "leak": {part: samples.leak[part] | {"near_copies": copies[part]} for part in copies},
    }
    if job.data.get("unknown"):
        from skinlesion.evaluation.unknown import measure_file

        metrics["unknown"] = measure_file(directory.path)
    directory.write_json("metrics.json", metrics)
    seconds = read_history(directory.history)["seconds"]
    made = directory.read_json("provenance.json") | {
        "data": samples.digest,
        "weights": weights,
        "epochs": len(seconds),
        "seconds_per_epoch": float(seconds.median()) if len(seconds) else None,
        "training_seconds": float(seconds.sum()),
    }
    directory.write_json("provenance.json", made)
    directory.write_text("DONE", "")


@contextmanager
def _device(job: Job) -> Iterator[Any]:
    """Yield Lightning's `devices`: where the machine has several GPUs, one that nobody has."""
    name, _, index = job.machine.device.partition(":")
    if index:
        yield [int(index)]
    elif name in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1:
        from skinlesion.training.devices import own_gpu

        with own_gpu() as free:
            yield [free]
    else:
        yield 1


@contextmanager
def _memory(job: Job) -> Iterator[None]:
    """Say in one line that a step does not fit."""
    try:
        yield
    except torch.OutOfMemoryError:
        asked = job.machine.evaluation_batch
        evaluated = f" or machine.evaluation_batch={asked}" if asked else ""
        raise SkinlesionError(
            f"a step does not fit into the GPU's memory with batch_size={job.batch_size}"
            f"{evaluated}: try a smaller one. Part of it may be taken by other processes."
        ) from None


def _weights_digest(weights: str) -> str:
    if weights in ("imagenet", "none") or not Path(weights).is_file():
        return weights
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quiet() -> None:
    """Silence what Lightning and timm tell every run and no user can act on."""
    for library in ("pytorch_lightning", "timm"):
        logging.getLogger(library).setLevel(logging.WARNING)
    quiet = ("does not have many workers", "(LeafSpec|tracing)", "is not empty", "eval mode at")
    for pattern in quiet:
        warnings.filterwarnings("ignore", f".*{pattern}.*")
    pd.set_option("display.width", shutil.get_terminal_size().columns)
