"""(a) How much of the step's own speed is left once batches have to be fetched and logged."""

import logging
import statistics
import warnings
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting
from skinlesion.bench.timing import affordable, in_turn, now, ratio, repeated
from skinlesion.data.module import LesionDataModule
from skinlesion.data.samples import Samples
from skinlesion.errors import SkinlesionError
from skinlesion.training.build import build_loaders, build_module, build_network, build_trainer
from skinlesion.training.compute import resolve

RECIPES = ("none", "datta")  # of conf/augment
SECONDS, ROUNDS = 60, 7  # of a row
LEAST_STEPS = 4
WARM_UP = 2  # batches
AHEAD = 2  # batches that a worker of torch's DataLoader fetches before it is asked
TARGETS = {"cpu": 0.95, "cuda": 0.97}


class Training:
    """A job's training by Lightning, without checkpoints, logger and progress bar.

    Args:
        config: the job's.
        samples: what it trains on.

    Attributes:
        loaders: what serves the batches.
        warm_up: batches at the start of an epoch that are not timed.
        most: batches of an epoch that can be timed.

    Raises:
        SkinlesionError: if there are too few images.
    """

    def __init__(self, config: DictConfig, samples: Samples) -> None:
        """Build what a run would build."""
        self.config, self.compute = config, resolve(config)
        pl.seed_everything(config.seed, verbose=False)
        self.loaders = build_loaders(config, samples, self.compute)
        network = build_network(config, self.compute)
        self.module = build_module(config, network, samples, self.compute)
        trained = int((samples.frame["split"] == "train").sum())
        batches = trained // config.batch_size
        if batches < 2:
            raise SkinlesionError(
                f"{trained} training images: expected two batches of {config.batch_size} at least; "
                "take a smaller --batch or more images."
            )
        # What workers had fetched before is not timed, nor an end where they fetch nothing.
        ahead = AHEAD * self.loaders.workers if config.augment is not None else 0
        self.warm_up = min(WARM_UP + ahead, batches - 1)
        self.most = max(batches - ahead - self.warm_up, 1)

    def seconds_per_step(self, steps: int) -> float:
        """Return the mean of so many steps, in the middle of an epoch."""
        clock = _Clock(self.warm_up)
        self.fit(
            callbacks=[clock],
            max_epochs=1,
            limit_train_batches=self.warm_up + steps,
            limit_val_batches=0,
        )
        return (clock.ended - clock.began) / steps

    def fit(self, **options: Any) -> None:
        """Train with these options of the trainer, saving and saying nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer(**options).fit(self.module, self.loaders)

    def trainer(self, **options: Any) -> pl.Trainer:
        """Return a trainer that saves and says nothing."""
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        return build_trainer(
            self.config,
            self.compute,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            **options,
        )


class _Clock(pl.Callback):
    """Times the batches after the first few, to the end of the last one."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.began = self.ended = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        """Look at the clock twice only: to look is to wait for the device."""
        if i + 1 == self.warm_up:
            self.began = now()
        elif i + 1 == trainer.num_training_batches:
            self.ended = now()


def run(setting: Setting, backbone: str) -> Rows:
    """Measure without augmentation and with it."""
    return [_row(setting, backbone, recipe) for recipe in RECIPES]


def _row(setting: Setting, backbone: str, recipe: str) -> dict[str, Any]:
    # The plateau scheduler wants a validation.
    config = setting.job(backbone, f"augment={recipe}", "scheduler=none")
    resolve(config).apply()
    step, training = setting.steps(config), Training(config, setting.samples(config))
    # A round is as many steps of the one as of the other.
    steps = affordable(step, SECONDS / ROUNDS / 2, LEAST_STEPS, training.most)
    measured = in_turn(
        {
            "training": lambda: training.seconds_per_step(steps),
            "step": lambda: repeated(step, steps),
        },
        rounds=ROUNDS,
        seconds=SECONDS,
    )
    share, spread = ratio(measured["step"], measured["training"])
    return {
        "augment": recipe,
        "fetched": fetched_by(training.loaders),
        "batch": config.batch_size,
        "size": config.backbone.input_size,
        "steps": f"{len(measured['step'])} x {steps}",
        "training": config.batch_size / statistics.median(measured["training"]),
        "step": config.batch_size / statistics.median(measured["step"]),
        "share": share,
        "spread": spread,
        "target": TARGETS.get(setting.device.type) if recipe == "none" else None,
    }


def fetched_by(loaders: LesionDataModule) -> str:
    """Return who fetches training batches, after they were asked for once."""
    if loaders.resident:
        return "device"
    count = loaders.workers if loaders.augment is not None else 0
    return f"{count} workers" if count else "main process"


MEASUREMENT = Measurement(
    name="pipeline",
    title="Share of the limit",
    how="Training by Lightning, images a second in the middle of an epoch ÷ the training step "
    "alone, outside of Lightning, on one batch that lies on the device already. In turn, the "
    "share is the median of the rounds.",
    columns={
        "augment": "augment",
        "fetched": "fetched by",
        "batch": "batch",
        "size": "pixels",
        "steps": "rounds x steps",
        "training": "training, images/s",
        "step": "step alone, images/s",
        "share": "share",
        "spread": "lowest to highest",
        "target": "wanted",
    },
    each=True,
    run=run,
)
