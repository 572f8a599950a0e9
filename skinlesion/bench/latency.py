"""(g) Inference, host to host: latency of one image, images a second of many, beside Table 11."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting
from skinlesion.data.batch import Batch
from skinlesion.data.module import LesionDataset
from skinlesion.models.classifier import Classifier
from skinlesion.reporting.published import read_published
from skinlesion.training.build import build_network
from skinlesion.training.compute import Compute, resolve

BATCH = 64
SECONDS = 20.0  # of the throughput on a CPU, where one batch of the largest network takes as long
# Which row of Table 11 a backbone is.
TABLE_11 = {
    "mobilenet_v3_large": "table9_240",
    "densenet201": "md_densenet201",
    "inception_resnet_v2": "md_inception_resnet_v2",
}


def run(setting: Setting, backbone: str) -> Rows:
    """Return a row for float32 and one for the device's default, if that is another."""
    as_used = "compute.turned=false"  # as a trained network is loaded
    config = setting.job(backbone, as_used)
    default = resolve(config)
    plain = resolve(setting.job(backbone, as_used, "compute.precision=32-true"))
    default.apply()
    samples = setting.samples(config)
    network = build_network(config, default).to(setting.device).eval()
    fetch = LesionDataset(samples).__getitems__
    draws = [(0, i % len(samples.frame)) for i in range(BATCH)]
    one, many = fetch(draws[:1]), fetch(draws)
    calls = 200 if setting.device.type == "cuda" else 30
    rows = []
    for compute in (plain, default) if default.precision != plain.precision else (plain,):
        predict = predictor(network, compute, setting.device)
        latency = np.array(timed(predict, one, calls))
        seconds = timed(predict, many, calls, SECONDS)
        rows.append(
            {
                "precision": compute.precision,
                "median": 1e3 * float(np.median(latency)),
                "p95": 1e3 * float(np.percentile(latency, 95)),
                "calls": len(latency),
                "throughput": BATCH / float(np.median(seconds)),
                "batches": len(seconds),
                **printed(backbone),
            }
        )
    return rows


def predictor(
    network: Classifier, compute: Compute, device: torch.device
) -> Callable[[Batch], Tensor]:
    """Return what turns a batch on the host into probabilities (B, C) on the host."""

    @torch.inference_mode()
    def predict(batch: Batch) -> Tensor:
        image, metadata = batch["image"].to(device), batch["metadata"].to(device)
        with compute.autocast():
            logits = network(image.contiguous(memory_format=compute.memory_format), metadata)
        return logits.float().softmax(dim=1).cpu()  # (B, C), and waits for the device

    return predict


def timed(
    predict: Callable[[Batch], Tensor], batch: Batch, calls: int, seconds: float = float("inf")
) -> list[float]:
    """Return the seconds of each call: after a warm-up, so many, or as many as begin in time."""
    predict(batch)
    taken: list[float] = []
    while len(taken) < calls and (not taken or sum(taken) < seconds):
        start = time.perf_counter()
        predict(batch)
        taken.append(time.perf_counter() - start)
    return taken


def printed(backbone: str) -> dict[str, Any]:
    """Return what Table 11 prints as this backbone's prediction time, and what it is."""
    cell = read_published().get((11, TABLE_11.get(backbone, ""), "seconds_per_epoch"))
    if cell is None:
        return {"table11": None, "source": None}
    return {"table11": cell.published, "source": cell.source}


MEASUREMENT = Measurement(
    name="latency",
    title="Inference from host to host",
    how="From a uint8 batch on the host to probabilities on the host, in eval mode: latency of one "
    f"image, and images a second of batches of {BATCH}. Beside it the paper's Table 11, which "
    "calls prediction time what its notebooks show to be the seconds of a training epoch.",
    columns={
        "precision": "precision",
        "median": "latency at batch 1, median, ms",
        "p95": "95th percentile, ms",
        "calls": "calls",
        "throughput": f"images/s at batch {BATCH}",
        "batches": "batches",
        "table11": "Table 11 'Time Prediction', s/epoch",
        "source": "which is",
    },
    each=True,
    run=run,
)
