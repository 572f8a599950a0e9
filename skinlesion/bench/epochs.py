"""(e) Seconds an epoch on HAM10000, beside those of the paper's Table 11."""

import statistics

import pytorch_lightning as pl

from skinlesion.bench.pipeline import Training, fetched_by
from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting
from skinlesion.bench.timing import affordable, now
from skinlesion.reporting.published import read_published
from skinlesion.training.compute import resolve

TRAINED, VALIDATED = 8962, 996  # images of HAM10000 in the two parts of split=paper
PAPER = {  # backbone → row of Table 11
    "mobilenet_v3_large": "table9_240",
    "densenet201": "md_densenet201",
    "inception_resnet_v2": "md_inception_resnet_v2",
}
SECONDS = 10  # of an epoch, where a whole one would take longer than a CPU should be asked for
EPOCHS, LEAST_STEPS = 3, 4


class _Clock(pl.Callback):
    """Times the training and the validation of each epoch."""

    def __init__(self) -> None:
        self.began = self.trained = 0.0
        self.seconds: list[tuple[float, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training begins."""
        self.began = now()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training is over, validation begins."""
        self.trained = now()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Both are over."""
        self.seconds.append((self.trained - self.began, now() - self.trained))


def run(setting: Setting, backbone: str) -> Rows:
    """Measure whole epochs on a GPU, and as much of them as time allows elsewhere."""
    config = setting.job(backbone)
    resolve(config).apply()
    samples = setting.samples(config)
    training = Training(config, samples)
    loaders, clock = training.loaders, _Clock()
    parts = samples.frame["split"].value_counts()
    batches = -(-parts["train"] // config.batch_size)
    steps, checks = batches, -(-parts["val"] // loaders.evaluation_batch)
    if setting.device.type != "cuda":
        steps = affordable(setting.steps(config), SECONDS, LEAST_STEPS, batches)
        checks = min(checks, max(steps // 4, 1))
    training.fit(
        callbacks=[clock],
        max_epochs=EPOCHS,
        limit_train_batches=steps,
        limit_val_batches=checks,
    )
    trained = min(steps * config.batch_size, parts["train"])
    validated = min(checks * loaders.evaluation_batch, parts["val"])
    # The first epoch warms up.
    trains = [train / trained * TRAINED for train, _ in clock.seconds[1:]]
    whole = [
        train + check / validated * VALIDATED
        for train, (_, check) in zip(trains, clock.seconds[1:], strict=True)
    ]
    row = PAPER.get(backbone)
    printed = read_published()[11, row, "seconds_per_epoch"].value if row else None
    seconds = statistics.median(whole)
    return [
        {
            "batch": config.batch_size,
            "size": config.backbone.input_size,
            "fetched": fetched_by(loaders),
            "from": _basis(trained, validated),
            "train": statistics.median(trains),
            "seconds": seconds,
            "spread": [min(whole), max(whole)],
            "paper": printed,
            "times": printed / seconds if printed else None,
            "row": row,
        }
    ]


def _basis(trained: int, validated: int) -> str:
    """Say what was really run."""
    if (trained, validated) == (TRAINED, VALIDATED):
        return "whole epochs"
    return f"extrapolated from {trained} + {validated} images an epoch"


MEASUREMENT = Measurement(
    name="epochs",
    title="Seconds an epoch",
    how=f"An epoch of HAM10000 by the paper's split, {TRAINED:,} images, and its validation on "
    f"{VALIDATED}; the median of {EPOCHS - 1} epochs after one to warm up. Beside it the paper's "
    "own seconds, those of an epoch with its validation too, as its Table 11 prints them "
    "(mobilenet_v3_large: the row was cut at [:240], a few layers earlier).",
    columns={
        "batch": "batch",
        "size": "pixels",
        "fetched": "fetched by",
        "from": "measured",
        "train": "training, s",
        "seconds": "with validation, s",
        "spread": "lowest to highest, s",
        "paper": "paper, s",
        "times": "paper ÷ ours",
        "row": "row of Table 11",
    },
    each=True,
    run=run,
)
