"""(f) What a hundred times the images cost: start-up, memory, images a second.

The table's rows are repeated, each time as other images of other lesions; all of them point to the
rows of the one cache file that there is.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from skinlesion.bench.pipeline import Training
from skinlesion.bench.process import Fresh
from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting
from skinlesion.bench.timing import PeakMemory, now
from skinlesion.data.encoding import MetadataEncoder
from skinlesion.data.module import LesionDataModule
from skinlesion.data.samples import Samples
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split, leak_report
from skinlesion.data.table import table_digest
from skinlesion.training.build import build_loaders
from skinlesion.training.compute import resolve

BACKBONE = "mobilenet_v3_small"  # the shortest step, so the one that a slower loader delays most
TIMES, ROUNDS = (1, 10, 100), 3
SECONDS = 5.0  # of the loader alone
STEPS = 40


def run(setting: Setting, backbone: str) -> Rows:
    """Measure each size in a fresh process, the sizes in turn; return a row for each."""
    # Where the images live on the device, its memory bounds their number.
    config = setting.job(BACKBONE, "data.resident=false", "scheduler=none")
    samples = setting.samples(config)
    rounds: list[dict[int, dict[str, float]]] = []
    for _ in range(ROUNDS):
        measured = {}
        for times in TIMES:
            with Fresh(_prepare, config, samples) as measure:
                measured[times] = measure(times)
        rounds.append(measured)
    return [_row(times, rounds) for times in TIMES]


def _row(times: int, rounds: list[dict[int, dict[str, float]]]) -> dict[str, Any]:
    middle = {name: median(r[times][name] for r in rounds) for name in rounds[0][times]}
    beside = {
        f"{name}_ratio": median(r[times][name] / r[1][name] for r in rounds)
        for name in ("loader", "training")
    }
    beyond = median(r[times]["peak"] - r[1]["peak"] for r in rounds)
    return {"times": times, **middle, **beside, "beyond": beyond}


def _prepare(config: DictConfig, samples: Samples) -> Callable[[int], dict[str, float]]:
    return lambda times: measure_size(config, samples, times)


def measure_size(config: DictConfig, samples: Samples, times: int) -> dict[str, float]:
    """Return images, seconds of start-up, images/s of loader and training, MB at the peak.

    Args:
        config: the job's.
        samples: those of the archive.
        times: how often they are repeated.
    """
    compute = resolve(config)
    compute.apply()
    with PeakMemory() as memory:
        frame, rows = repeat(samples, times)
        began = now()
        grown = prepare(frame, rows, samples, config)
        next(iter(build_loaders(config, grown, compute).train_dataloader()))
        startup = now() - began
        training = Training(config, grown)
        loader = images_per_second(training.loaders, SECONDS)
        step = training.seconds_per_step(min(STEPS, training.most))
    return {
        "images": len(grown.frame),
        "startup": startup,
        "loader": loader,
        "training": config.batch_size / step,
        "peak": memory.peak / 1e6,
    }


def repeat(samples: Samples, times: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the table of every image so many times, not split yet, and the rows of the cache."""
    table = samples.frame.drop(columns="split")
    named = ("image_id", "lesion_id")
    copies = [
        table.assign(**{column: table[column] + f"-{copy}" for column in named})
        for copy in range(times)
    ]
    return pd.concat(copies, ignore_index=True), np.tile(samples.rows, times)


def prepare(table: pd.DataFrame, rows: np.ndarray, samples: Samples, config: DictConfig) -> Samples:
    """Return the samples of a repeated table, by the steps of `skinlesion.data.samples`."""
    schema = Schema.from_config(config.data)
    frame = Split(**config.split).apply(table, schema.classes)
    position = pd.Series(rows, index=table["image_id"].tolist())
    trained = frame[frame["split"] == "train"]
    return Samples(
        frame=frame,
        images=samples.images,
        rows=position[frame["image_id"]].to_numpy(),
        classes=schema.classes,
        encoder=MetadataEncoder.fit(trained, schema.properties, config.missing_metadata),
        digest=table_digest(table),
        leak=leak_report(frame, schema.classes),
    )


def images_per_second(loaders: LesionDataModule, seconds: float) -> float:
    """Return the images that the training loader yields a second, epoch after epoch."""
    loader, images, began = loaders.train_dataloader(), 0, 0.0
    while True:
        for batch in loader:
            if not began:  # the first batch is part of the start-up
                began = now()
                continue
            images += len(batch["label"])
            if (passed := now() - began) > seconds:
                return images / passed


MEASUREMENT = Measurement(
    name="growth",
    title="A hundred times the images",
    how=f"The table's rows 1, 10 and 100 times, pointing to the rows of one cache file, each size "
    f"in a fresh process, {ROUNDS} rounds in turn, medians. Start-up is from the repeated table "
    "(split, leak, encoder, digest) to the first batch; memory is what the process owns at its "
    f"peak, without the pages of the cache; training is that of {BACKBONE}, images from the host.",
    columns={
        "times": "times",
        "images": "images",
        "startup": "start-up, s",
        "peak": "peak memory, MB",
        "beyond": "beyond 1 time, MB",
        "loader": "loader alone, images/s",
        "loader_ratio": "to 1 time",
        "training": "training, images/s",
        "training_ratio": "training to 1 time",
    },
    each=False,
    run=run,
)
