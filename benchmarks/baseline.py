"""Ours beside the usual way."""

import io
import os
import time
from collections.abc import Callable, Iterable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.setting import AHEAD, WARM_UP, Rows, Setting, Step, Training, read
from benchmarks.timing import ROUNDS, in_subprocess, now, summary
from skinlesion.data.archive import ImageArchive
from skinlesion.data.samples import Batch, Samples

WORKERS = min(os.cpu_count() or 1, 8)


def run(setting: Setting, backbone: str) -> Rows:
    """Measure training end to end, and the loader alone."""
    plain, seconds = ("augment=none", "scheduler=none"), setting.seconds
    words = setting.words(backbone, *plain)
    usual = setting.words(backbone, *plain, "machine=plain", "precision=32-true")
    job, names = read(words), ("ours, images/s", "baseline, images/s")
    measured = [
        (in_subprocess(our_rates, words, seconds), in_subprocess(usual_rates, usual, seconds))
        for _ in range(ROUNDS)
    ]
    about = {"batch": job.batch_size, "pixels": job.backbone["input_size"], "workers": WORKERS}
    return [
        {"what": what} | about | summary(names, [(ours[what], its[what]) for ours, its in measured])
        for what in ("training", "loader")
    ]


def our_rates(words: list[str], seconds: float) -> dict[str, float]:
    """Return images a second of training, and of the loader alone, as a run has them."""
    training = Training(read(words))
    rate = 1e3 * training.job.batch_size / training.milliseconds(seconds)
    training.loaders.trainer = training.trainer()  # whose device decides where batches come from
    loader = training.loaders.train_dataloader()
    return {"training": rate, "loader": images_per_second(loader, seconds)}


def usual_rates(words: list[str], seconds: float) -> dict[str, float]:
    """Return images a second of training, and of the loader alone, as they usually are."""
    step = Step(read(words))
    backbone: Any = step.module.network.backbone
    backbone.forward = lambda image: backbone.trunk(image)["t"]  # images come normalised
    loader = DataLoader(
        Jpegs(step.job.machine.data, step.samples, backbone.spec),
        batch_size=step.job.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=step.device.type == "cuda",
    )

    def train(batch: Batch) -> None:
        step.batch = {k: value.to(step.device, non_blocking=True) for k, value in batch.items()}
        step()

    rate = images_per_second(loader, seconds, train)
    return {"training": rate, "loader": images_per_second(loader, seconds)}


class Jpegs(Dataset[dict[str, Any]]):
    """The training images as they lie in the archive, each decoded when it is asked for."""

    archive: ImageArchive | None = None

    def __init__(self, root: Path, samples: Samples, spec: Any) -> None:
        self.root, self.samples = root, samples
        self.trained = np.flatnonzero(samples.frame["split"] == "train")
        normalise = (transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std))
        self.transform = transforms.Compose([transforms.Resize(spec.input_size), *normalise])

    def __len__(self) -> int:
        return len(self.trained)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Each worker opens its own: processes that share an open zip disturb one another.
        self.archive = self.archive or ImageArchive(self.root)
        sample = self.trained[index]
        file = io.BytesIO(self.archive.read(self.samples.frame["image_id"].iloc[sample]))
        image = Image.open(file).convert("RGB")
        image = transforms.functional.center_crop(image, min(image.size))
        metadata, label = self.samples.metadata[sample], self.samples.labels[sample]
        return {"image": self.transform(image), "metadata": metadata, "label": label}


def images_per_second(
    loader: Iterable[Batch], seconds: float, step: Callable[[Batch], None] = lambda batch: None
) -> float:
    """Return the rate of a loader and of what is done with its batches, epoch after epoch."""
    batches = (batch for _ in count() for batch in loader)
    for batch in islice(batches, WARM_UP + AHEAD * WORKERS):
        step(batch)
    images, began = 0, now()
    while time.perf_counter() - began < seconds:
        batch = next(batches)
        step(batch)
        images += len(batch["label"])
    return images / (now() - began)
