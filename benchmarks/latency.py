"""Inference from host to host."""

from functools import partial

import torch

from benchmarks.setting import Rows, Setting, Step
from benchmarks.timing import timed
from skinlesion.training.config import resolve


def run(setting: Setting, backbone: str) -> Rows:
    """Return a row for each precision."""
    rows: Rows = []
    for precision in dict.fromkeys(("32-true", resolve(setting.job(backbone)).precision)):
        step = Step(setting.job(backbone, f"precision={precision}"))
        one, many = (torch.arange(n) % len(step.batch["label"]) for n in (1, 64))
        on_host = {name: value.cpu() for name, value in step.batch.items()}
        latency, rate = (
            timed(partial(step.predict, {k: v[index] for k, v in on_host.items()}), setting.seconds)
            for index in (one, many)
        )
        rows.append(
            {
                "precision": precision,
                "pixels": step.job.backbone["input_size"],
                "one image, ms": 1e3 * latency.median,
                "its interquartile range, ms": 1e3 * latency.iqr,
                "images/s in batches of 64": 64 / rate.median,
            }
        )
    return rows
