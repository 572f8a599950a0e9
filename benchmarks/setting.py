"""What is measured: jobs, their training step alone, and their training by Lightning."""

import logging
import time
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from benchmarks.timing import now
from skinlesion.cli import CONF
from skinlesion.data.module import LesionDataModule
from skinlesion.data.samples import Batch
from skinlesion.errors import SkinlesionError
from skinlesion.training.build import build, build_trainer, open_data
from skinlesion.training.config import Job, read_job, resolve

DEFAULTS = ("weights=none", "preprocess=paper")  # speed does not depend on either
# At 32 images, InceptionResNetV2 would want 15 GB and NASNetLarge 30 GB of a CPU's memory.
SMALLER_ON_CPU = {"inception_resnet_v2": 16, "nasnet_large": 8}
WARM_UP = 2  # batches
AHEAD = 2  # batches that a worker of torch's DataLoader fetches before they are asked for

Rows = list[dict[str, Any]]  # of a result, by heading


@dataclass(frozen=True)
class Setting:
    """Under which settings is measured."""

    overrides: tuple[str, ...] = ()  # of the config, as typed
    batch: int | None = None  # images a step; None: what the device and the backbone bear
    seconds: float = 3.0  # for which a figure is timed in each round

    @cached_property
    def device(self) -> torch.device:
        """Where is computed."""
        return torch.device(resolve(read(_latest(*DEFAULTS, *self.overrides))).device)

    def words(self, backbone: str, *overrides: str) -> list[str]:
        """Return the overrides of a job."""
        usual = 128 if self.device.type == "cuda" else SMALLER_ON_CPU.get(backbone, 32)
        typed = (*DEFAULTS, f"batch_size={self.batch or usual}", *self.overrides)
        return _latest(*typed, f"backbone={backbone}", *overrides)

    def job(self, backbone: str, *overrides: str) -> Job:
        """Return the config of a job."""
        return read(self.words(backbone, *overrides))


def read(words: list[str]) -> Job:
    """Return the job of these overrides, as train.py reads it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return read_job(compose("config", words))


def _latest(*words: str) -> list[str]:
    """Return of two words for a key the later: Hydra takes an axis once."""
    return list({word.partition("=")[0]: word for word in words}.values())


class _Built:
    """What a run builds of a job."""

    def __init__(self, job: Job) -> None:
        self.job, self.compute = job, resolve(job)
        self.compute.apply()
        self.device, data = torch.device(self.compute.device), open_data(job)
        self.images, size = sum(data.counts), job.batch_size
        if self.images < 2 * size:
            expected = f"expected two batches of {size} at least: take a smaller --batch"
            raise SkinlesionError(f"{self.images} training images: {expected} or more images.")
        parts = build(job, self.compute, data)
        self.module, self.augment = parts.module, parts.augment
        self.samples = data.load(job.machine.cache, job.backbone["input_size"])


class Step(_Built):
    """A training step on one batch that is on the device already: what a job can reach at best."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.module.to(self.device).train()
        self.module.configure_model()
        loaders = LesionDataModule(self.samples, job.batch_size, seed=job.seed)
        fetched = next(iter(loaders.train_dataloader()))
        self.batch: Batch = {name: value.to(self.device) for name, value in fetched.items()}

    def __call__(self) -> None:
        """Take the step."""
        self.compute.apply()  # another may have been compared
        self.module.optimizer.zero_grad()
        self.loss().backward()
        self.module.optimizer.step()

    def loss(self) -> Tensor:
        """Return the loss of the batch."""
        with self.compute.autocast():
            return self.module.loss(self.module.logits(self.batch), self.batch["label"])

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Tensor:
        """Return a batch's probabilities (B, C) on the host."""
        self.module.eval()
        with self.compute.autocast():
            logits = self.module.logits({k: value.to(self.device) for k, value in batch.items()})
        self.module.train()
        return logits.float().softmax(dim=1).cpu()


class Training(_Built):
    """A job's training by Lightning, without validation, checkpoints, logger and progress bar."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        serve = partial(LesionDataModule, self.samples, job.batch_size, self.augment, job.seed)
        self.loaders = serve(job.machine.workers, self.compute.resident)
        # What workers fetched before is not timed, nor an end where they fetch nothing.
        ahead = AHEAD * self.loaders.workers if self.augment is not None else 0
        batches = self.images // job.batch_size
        self.first = min(WARM_UP + ahead, batches - 1)
        self.last = max(batches - ahead, self.first + 1)

    def milliseconds(self, seconds: float) -> float:
        """Return the mean of the steps that so many seconds hold, in the middle of an epoch."""
        clock = _Clock(self.first, self.last, seconds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer(callbacks=[clock]).fit(self.module, self.loaders)
        return 1e3 * clock.seconds_per_step

    def trainer(self, **options: Any) -> pl.Trainer:
        """Return a trainer of one epoch that saves and prints nothing."""
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        options |= {"max_epochs": 1, "limit_val_batches": 0, "logger": False}
        options |= {"enable_checkpointing": False, "enable_progress_bar": False}
        return build_trainer(self.job, self.compute, **options)


class _Clock(pl.Callback):
    """Times the steps behind the `first`, until `seconds` are over or the `last` is done."""

    def __init__(self, first: int, last: int, seconds: float) -> None:
        self.first, self.last, self.seconds = first, last, seconds
        self.began = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Wait for the device at the first step and the last one only."""
        steps = trainer.global_step - self.first
        if steps == 0:
            self.began = now()
        over = trainer.global_step == self.last or time.perf_counter() - self.began > self.seconds
        if steps > 0 and over:
            self.seconds_per_step = (now() - self.began) / steps
            trainer.should_stop = True
