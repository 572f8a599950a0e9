"""(b) and (c) Ours beside the ordinary way, which is written out here as its baseline.

The ordinary way: a dataset that opens one JPEG at a time with PIL, torchvision's transforms, a
DataLoader with workers, float32, contiguous, eager, PyTorch's own Adam, and torch's defaults for
all else. The network is the same.
"""

import io
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from skinlesion.bench.pipeline import AHEAD, WARM_UP, Training
from skinlesion.bench.process import Fresh
from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting, Step
from skinlesion.bench.timing import affordable, in_turn, now, ratio
from skinlesion.data.archive import ImageArchive
from skinlesion.data.samples import Samples
from skinlesion.models.backbone import Backbone
from skinlesion.training.compute import resolve

WHAT = {"training": "training, end to end", "loader": "loader alone"}
SECONDS, ROUNDS = 90, 5  # of a row
LEAST_STEPS = 4
WORKERS = min(os.cpu_count() or 1, 8)


class Jpegs(Dataset[tuple[Tensor, Tensor, int]]):
    """Images as they lie in the archive, each decoded when it is asked for.

    Args:
        root: folder of the archive.
        samples: which images, with metadata and labels.
        transform: image → tensor (3, S, S) float.
    """

    def __init__(
        self, root: Path, samples: Samples, transform: Callable[[Image.Image], Tensor]
    ) -> None:
        """Take the training images."""
        frame = samples.frame
        trained = np.flatnonzero(frame["split"] == "train")
        self.ids = frame["image_id"].to_numpy()[trained].tolist()
        self.metadata = torch.from_numpy(samples.metadata[trained])  # (N, M)
        self.labels = samples.labels[trained].tolist()
        self.root, self.transform = root, transform
        self._archive: ImageArchive | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return image (3, S, S), metadata (M,) and label."""
        if self._archive is None:
            # Each worker opens its own: processes that share an open zip disturb one another.
            self._archive = ImageArchive(self.root)
        image = Image.open(io.BytesIO(self._archive.read(self.ids[index]))).convert("RGB")
        return self.transform(image), self.metadata[index], self.labels[index]


class FloatBackbone(nn.Module):
    """A backbone whose images come normalised.

    Args:
        backbone: the one that normalises by itself.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Take its trunk."""
        super().__init__()
        self.trunk, self.offset = backbone.trunk, backbone.offset

    def forward(self, image: Tensor) -> Tensor:
        """Return the feature map t (B, C, h, w) of float images (B, 3, H, W)."""
        t = self.trunk(image)["t"]  # (B, C, h, w)
        return t + self.offset if self.offset else t


def ordinary_transform(side: int, backbone: Backbone) -> Callable[[Image.Image], Tensor]:
    """Return the way from an image to what the network wants.

    Args:
        side: of the square to cut out, in pixels.
        backbone: whose size and normalisation.
    """
    spec = backbone.spec
    chain: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.CenterCrop(side),
            transforms.Resize(spec.input_size),
            transforms.ToTensor(),
            *([transforms.Lambda(_blue_first)] if spec.channels == "bgr" else []),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    return chain


def _blue_first(image: Tensor) -> Tensor:
    return image.flip(0)


def images_per_second(
    loader: Any,
    images: Callable[[Any], int],
    seconds: float,
    ahead: int,
    step: Callable[[Any], object] = lambda batch: None,
) -> float:
    """Return the rate of a loader and of what is done with its batches.

    Args:
        loader: gone through as often as necessary.
        images: batch → how many images it has.
        seconds: about how long.
        ahead: batches that workers fetch before they are asked for. So many, and two, are not
            timed at the start of a pass, and so many at its end, where nothing is fetched.
        step: what is done with a batch.
    """
    warm_up = min(WARM_UP + ahead, len(loader) - 1)
    last = max(len(loader) - ahead, warm_up + 1)
    spent, count = 0.0, 0
    while True:
        started = now()
        for i, batch in enumerate(loader, 1):
            step(batch)
            if i == warm_up:
                started = now()
            elif i > warm_up:
                count += images(batch)
                # Not now(), which would wait for the device after each batch.
                if i == last or spent + time.perf_counter() - started > seconds:
                    spent += now() - started
                    break  # before workers end, which takes a while
        if spent >= seconds:
            return count / spent


def _prepare_ours(setting: Setting, backbone: str, seconds: float) -> Callable[[str], float]:
    config = setting.job(backbone, "scheduler=none")
    resolve(config).apply()
    training = Training(config, setting.samples(config))
    training.loaders.trainer = training.trainer()  # whose device decides where batches come from
    loader = training.loaders.train_dataloader()
    steps = affordable(setting.steps(config), seconds, LEAST_STEPS, training.most)

    def measure(what: str) -> float:
        if what == "training":
            return config.batch_size / training.seconds_per_step(steps)
        return images_per_second(loader, lambda batch: len(batch["label"]), seconds, ahead=0)

    return measure


def _prepare_ordinary(setting: Setting, backbone: str, seconds: float) -> Callable[[str], float]:
    config = setting.job(backbone, "compute=plain")
    samples, root = setting.samples(config), Path(config.data.root)
    step = Step(config, samples)
    network: Any = step.module.network
    transform = ordinary_transform(min(jpeg_size(root, samples)), network.backbone)
    network.backbone = FloatBackbone(network.backbone)
    loader = DataLoader(
        Jpegs(root, samples, transform),
        batch_size=config.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        pin_memory=setting.device.type == "cuda",
    )

    def train(batch: Any) -> None:
        image, metadata, label = (tensor.to(setting.device, non_blocking=True) for tensor in batch)
        step.optimizer.zero_grad()
        step.module.loss(network(image, metadata), label).backward()
        step.optimizer.step()

    def measure(what: str) -> float:
        work = {"step": train} if what == "training" else {}
        ahead = WORKERS * AHEAD
        return images_per_second(loader, lambda batch: len(batch[2]), seconds, ahead, **work)

    return measure


def jpeg_size(root: Path, samples: Samples) -> tuple[int, int]:
    """Return width and height of an archive's first image; HAM10000's are all of one size."""
    first = samples.frame["image_id"].iloc[0]
    return Image.open(io.BytesIO(ImageArchive(root).read(first))).size


def run(setting: Setting, backbone: str) -> Rows:
    """Measure training end to end, and the loader alone."""
    config = setting.job(backbone)
    samples = setting.samples(config)
    width, height = jpeg_size(Path(config.data.root), samples)
    arguments = (setting, backbone, SECONDS / ROUNDS / 2)
    rows = []
    # Processes, because what ours sets for its process would help the ordinary way too.
    with Fresh(_prepare_ours, *arguments) as ours, Fresh(_prepare_ordinary, *arguments) as ordinary:
        for what, text in WHAT.items():
            measured = in_turn(
                {"ours": partial(ours, what), "ordinary": partial(ordinary, what)},
                rounds=ROUNDS,
                seconds=SECONDS,
                warm_up=False,
            )
            times, spread = ratio(measured["ours"], measured["ordinary"])
            rows.append(
                {
                    "what": text,
                    "jpeg": f"{width} x {height}",
                    "size": config.backbone.input_size,
                    "batch": config.batch_size,
                    "workers": WORKERS,
                    "rounds": len(measured["ours"]),
                    "ours": statistics.median(measured["ours"]),
                    "ordinary": statistics.median(measured["ordinary"]),
                    "ratio": times,
                    "spread": spread,
                }
            )
    return rows


MEASUREMENT = Measurement(
    name="ordinary",
    title="Ours and the ordinary way",
    how="Images a second, ours ÷ the ordinary way: PIL, torchvision's transforms, a DataLoader "
    "with workers; float32, contiguous, eager, torch.optim.Adam, torch's defaults. Each in a "
    "process of its own, in turn; the start of the workers is not timed.",
    columns={
        "what": "what",
        "jpeg": "JPEG, pixels",
        "size": "network's pixels",
        "batch": "batch",
        "workers": "workers (ordinary)",
        "rounds": "rounds",
        "ours": "ours, images/s",
        "ordinary": "ordinary, images/s",
        "ratio": "ours ÷ ordinary",
        "spread": "lowest to highest",
    },
    each=True,
    run=run,
)
