"""Seconds an epoch, beside the paper's."""

import tempfile
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks.setting import Rows, Setting, Step
from benchmarks.timing import python, timed
from skinlesion.reporting.published import read_published

EPOCH = 8962  # training images of HAM10000 under split=paper
PAPER = {  # backbone → row of Table 11
    "mobilenet_v3_large": "table9_240",
    "densenet201": "md_densenet201",
    "inception_resnet_v2": "md_inception_resnet_v2",
}


def run(setting: Setting, backbone: str) -> Rows:
    """Train three epochs by train.py, and read its history."""
    step = Step(setting.job(backbone))
    images, size = step.images, step.job.batch_size
    limits = ["trainer.max_epochs=3", "trainer.limit_predict_batches=1"]
    if setting.device.type != "cuda":
        # An epoch takes five times as long as other figures are timed.
        checks = int(5 * setting.seconds / 9 / timed(step, setting.seconds).median)
        checks = max(min(checks, images // size // 9), 1)
        images = min(images, 9 * checks * size)
        limits += [f"trainer.limit_train_batches={9 * checks}"]
        limits += [f"trainer.limit_val_batches={checks}", f"machine.evaluation_batch={size}"]
    del step  # another process needs the memory
    with tempfile.TemporaryDirectory() as runs:
        python("train.py", *setting.words(backbone, *limits, f"machine.runs={runs}"))
        (history,) = Path(runs).rglob("history.csv")
        seconds = pd.read_csv(history)["seconds"].tolist()[1:]
    whole = [value / images * EPOCH for value in seconds]
    paper = read_published().get((11, PAPER.get(backbone, ""), "seconds_per_epoch"))
    row = {"batch": size, "images of an epoch": images, "epoch with validation, s": median(whole)}
    row |= {"lowest to highest, s": [min(whole), max(whole)]}
    if paper and paper.value:
        row |= {"paper, s": paper.value, "paper ÷ ours": paper.value / median(whole)}
    return [row]
