"""One run: prepare the data, fit, predict with the best checkpoint, evaluate, write, DONE."""

import dataclasses
import hashlib
import logging
import math
import os
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing import ProcessRaisedException

from skinlesion.data.encoding import MISSING
from skinlesion.data.module import LesionDataModule, LesionDataset
from skinlesion.data.samples import Samples
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.history import read_history
from skinlesion.evaluation.metrics import evaluate_file, summary_table
from skinlesion.evaluation.predictions import write_predictions
from skinlesion.models.weights import find_weights
from skinlesion.training.build import (
    build_loaders,
    build_module,
    build_network,
    build_trainer,
    open_archive,
    try_building,
)
from skinlesion.training.callbacks import Checkpoint, Console, History
from skinlesion.training.compute import Compute, largest_batch, resolve
from skinlesion.training.devices import own_gpu
from skinlesion.training.module import LesionModule
from skinlesion.training.provenance import provenance
from skinlesion.training.rundir import RunDirectory, find_runs, identity, run_key

log = logging.getLogger(__name__)

PROTOCOLS = {
    "val": "these images selected the checkpoint",
    "test": "these images selected nothing",
}


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
    _check(config)
    compute = resolve(config)
    compute.apply()
    config.weights = find_weights(config.weights, config.backbone.name)
    weights = _weights_digest(config.weights)
    if not config.force and (finished := _finished(config, weights)):
        log.info("%s is done; force=true runs it again.", finished.path)
        return finished
    # Whatever may be wrong is met before weights are loaded and images decoded.
    pl.seed_everything(config.seed, verbose=False)
    network = build_network(config, compute)
    try_building(config, network, compute)
    archive = open_archive(config)
    logger = _logger(config)
    network.backbone.load(config.weights)
    samples = archive.load(
        Path(config.data.cache), config.backbone.input_size, config.missing_metadata
    )
    key = run_key(config, samples.digest, weights)
    directory = RunDirectory(Path(config.runs) / config.backbone.name / key / f"seed{config.seed}")
    with directory.lock():
        if config.force:
            directory.clear()
        if not directory.done.exists():  # another process may have finished it meanwhile
            loaders = build_loaders(config, samples, compute)
            module = build_module(config, network, samples, compute)
            with own_gpu(config):
                _train(config, compute, module, loaders, logger, directory)
            _finish(config, samples, directory, weights)
    return directory


def _finished(config: DictConfig, weights: str) -> RunDirectory | None:
    """Return the finished run of this config, data and weights, without building anything."""
    candidates = [
        directory
        for directory in find_runs(
            Path(config.runs), f"{config.backbone.name}/*/seed{config.seed}"
        ).get(identity(config), [])
        if directory.done.exists() and directory.read_json("provenance.json")["weights"] == weights
    ]
    if not candidates:
        return None
    digest = open_archive(config).digest(Path(config.data.cache), config.backbone.input_size)
    for directory in candidates:
        if directory.read_json("provenance.json")["data"] == digest:
            return directory
    return None


def _train(
    config: DictConfig,
    compute: Compute,
    module: LesionModule,
    loaders: LesionDataModule,
    logger: Any,
    directory: RunDirectory,
) -> None:
    """Fit, or go on fitting, and predict the held-out parts with the best checkpoint."""
    interactive = sys.stderr.isatty()
    trainer = build_trainer(
        config,
        compute,
        default_root_dir=directory.path,
        callbacks=[
            Console(),
            History(directory.history, say=not interactive),
            instantiate(config.callbacks.early_stopping),
            instantiate(config.callbacks.best, dirpath=directory.checkpoints, filename="best"),
            Checkpoint(dirpath=directory.checkpoints, filename="last"),
        ],
        logger=logger,
        enable_progress_bar=interactive,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # all is logged by epoch; a longer interval only makes it warn
    )
    if logger:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    directory.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    _write_split(loaders.samples, directory)
    resume = directory.last if directory.last.exists() else None
    made_with = provenance()
    before = directory.read_json("provenance.json")["commits"] if resume else []
    made_with["compute"] = dataclasses.asdict(compute)
    made_with["parameters"] = sum(p.numel() for p in module.network.parameters())
    made_with["commits"] = [*before, made_with["commit"]]  # one for each time it was started
    directory.write_json("provenance.json", made_with)
    log.info("%s %s", "resuming" if resume else "training", directory.path)
    module.rebuild = partial(build_network, config, compute)
    if compute.evaluation_batch is None:
        device = trainer.strategy.root_device
        loaders.evaluation_batch = _evaluation_batch(module, loaders.samples, compute, device)
    try:
        trainer.fit(module, loaders, ckpt_path=resume, weights_only=True)
    except SystemExit as stop:
        if stop.code != 1:  # a cluster's job, which leaves in order to be queued again
            raise
        raise KeyboardInterrupt from None  # how Lightning answers Ctrl-C
    except ProcessRaisedException as error:  # all that comes of an error in a spawned process
        _, found, message = str(error).rpartition(f"{SkinlesionError.__module__}.SkinlesionError: ")
        raise SkinlesionError(message.strip()) if found else error from None
    finally:
        for process in getattr(trainer.strategy.launcher, "procs", ()):
            process.kill()  # what Ctrl-C has not reached
            process.join()
        os.environ.pop("MASTER_PORT", None)  # or Lightning would give it to a sweep's next job too
    # One process predicts, so that each sample is predicted once.
    index = trainer.strategy.root_device.index
    trainer = build_trainer(
        config,
        compute,
        devices=1 if index is None else [index],
        strategy="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=interactive,
    )
    best = torch.load(directory.best, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    parts = trainer.predict(module, loaders)
    write_predictions(_predictions(parts, loaders.samples), directory.predictions)


def _evaluation_batch(
    module: LesionModule, samples: Samples, compute: Compute, device: torch.device
) -> int:
    """Return how many images a step of validation and prediction takes on this device."""
    one = LesionDataset(samples).__getitems__([(0, 0)])
    module.to(device).eval()

    @torch.inference_mode()
    def attempt(images: int) -> None:
        batch = {name: value.to(device).repeat_interleave(images, 0) for name, value in one.items()}
        with compute.autocast():
            module.logits(batch)

    try:
        return largest_batch(attempt)
    finally:
        module.train()


def _predictions(parts: Any, samples: Samples) -> pd.DataFrame:
    """Return the table of the predictions file from Lightning's lists of batches."""
    batches = [
        batch for part in (parts if isinstance(parts[0], list) else [parts]) for batch in part
    ]
    index = torch.cat([index for index, _ in batches]).cpu().numpy()
    probabilities = torch.cat([probability for _, probability in batches]).cpu().numpy()
    frame = samples.frame.loc[index, ["image_id", "lesion_id", "split", "dx"]]
    frame = frame.rename(columns={"dx": "label"}).reset_index(drop=True)
    return frame.join(pd.DataFrame(probabilities.astype(float), columns=list(samples.classes)))


def _finish(config: DictConfig, samples: Samples, directory: RunDirectory, weights: str) -> None:
    """Write all that follows from the predictions, and DONE last of all."""
    history = read_history(directory.history)
    directory.write_json(
        "metrics.json",
        {
            "protocol": config.split.name,
            "parts": evaluate_file(directory.predictions),
            "leak": samples.leak,
        },
    )
    made_with = directory.read_json("provenance.json")
    seconds = history["seconds"]
    made_with |= {
        "data": samples.digest,
        "weights": weights,
        "epochs": len(history),
        "seconds_per_epoch": float(seconds.median()),
        "training_seconds": float(seconds.sum()),
    }
    directory.write_json("provenance.json", made_with)
    directory.write_text("DONE", "")


def _write_split(samples: Samples, directory: RunDirectory) -> None:
    """Write the split, or check it against the one that the run was begun with."""
    text = samples.frame[["image_id", "lesion_id", "dx", "split"]].to_csv(index=False)
    path = directory.path / "split.csv"
    if directory.last.exists() and path.exists() and path.read_text() != text:
        raise SkinlesionError(
            f"{path} was drawn otherwise than now, probably by another release: this run cannot be "
            "resumed. force=true starts it again."
        )
    directory.write_text("split.csv", text)


def summarise(directory: RunDirectory) -> None:
    """Log a finished run's metrics, a row per class, and where its files are."""
    metrics = directory.read_json("metrics.json")
    for part, measured in metrics["parts"].items():
        log.info("\n%s (split=%s: %s)", part, metrics["protocol"], PROTOCOLS[part])
        log.info(summary_table(measured))
    written = [directory.path / name for name in ("predictions.csv", "metrics.json")]
    written += sorted(directory.figures.glob("*.png"))
    log.info("\n%s", "\n".join(map(str, written)))


def _logger(config: DictConfig) -> Any:
    if config.logger is None:
        return False
    try:
        return instantiate(config.logger)
    except Exception as error:
        if isinstance(error.__cause__, ImportError):
            raise SkinlesionError(
                f"{config.logger._target_} needs a package that is not installed: "
                f"{error.__cause__}. pip install 'skinlesion[tensorboard]', [wandb] or [mlflow]."
            ) from None
        raise


def _weights_digest(weights: str) -> str:
    if weights in ("imagenet", "none") or not Path(weights).is_file():
        return weights
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(config: DictConfig) -> None:
    """Check the numbers that libraries would answer only after long work, or not at all.

    Raises:
        SkinlesionError: one error that names all that is wrong.
    """
    wanted: dict[str, tuple[Any, float, float]] = {
        "seed": (int, 0, math.inf),
        "data.workers": (int, 0, math.inf),
        "batch_size": (int, 1, math.inf),
        "dropout": ((int, float), 0, 1),
        "trainer.max_epochs": (int, 1, math.inf),
        "optimizer.lr": ((int, float), 0, math.inf),
        "backbone.input_size": (int, 32, math.inf),
    }
    problems = []
    for name, (kind, low, high) in wanted.items():
        value = OmegaConf.select(config, name)
        if value is None and name == "data.workers":
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            upto = "" if high == math.inf else f" to {high}"
            number = "a whole number" if kind is int else "a number"
            problems.append(f"{name}={value}: expected {number} from {low}{upto}")
    eps = OmegaConf.select(config, "optimizer.eps")
    if eps is not None and not (isinstance(eps, int | float) and 0 < eps < math.inf):
        problems.append(
            f"optimizer.eps={eps}: expected a number above 0, because Adam divides by it where a "
            "parameter never had a gradient"
        )
    if OmegaConf.select(config, "trainer.limit_val_batches") == 0:
        problems.append(
            "trainer.limit_val_batches=0: expected more, because validation selects the checkpoint"
        )
    for name, choices in (("missing_metadata", MISSING), ("batch_norm", ("timm", "keras"))):
        if config[name] not in choices:
            problems.append(f"{name}={config[name]}: expected one of {', '.join(choices)}")
    if problems:
        raise SkinlesionError("; ".join(problems))


def _quiet() -> None:
    """Silence what Lightning tells every run and no user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for pattern in (".*does not have many workers.*", ".*LeafSpec.*", ".*is not empty.*"):
        warnings.filterwarnings("ignore", pattern)
    columns = shutil.get_terminal_size().columns
    pd.set_option("display.width", columns)
