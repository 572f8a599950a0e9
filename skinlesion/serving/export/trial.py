"""The images that an exported model is tried on: the run's own, or noise where they are missing."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinlesion.data.samples import Samples, check
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import Predictions
from skinlesion.serving.model import LesionModel
from skinlesion.runs.directory import RunDirectory

NOISE = 8  # images


@dataclass(frozen=True)
class Images:
    """Images with their metadata, read when they are needed.

    Attributes:
        pixels: (N_cache, S, S, 3) uint8.
        rows: (N,) which of them, in order.
        metadata: (N, M) float32, encoded.
        labels: (N,) true classes.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    metadata: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    def batch(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the images (B, 3, S, S) and the metadata (B, M) from one place to another."""
        image = self.pixels[self.rows[start:stop]].transpose(0, 3, 1, 2)
        return np.ascontiguousarray(image), self.metadata[start:stop]


@dataclass(frozen=True)
class Trial:
    """What a model is tried on.

    Attributes:
        held_out: the images of the reported part, in the order of the predictions; noise if the
            data is not at hand.
        train: the training images; None if the data is not at hand.
        missing: why the data is not at hand; empty if it is.
    """

    held_out: Images
    train: Images | None
    missing: str = ""


def find_trial(
    directory: RunDirectory, model: LesionModel, part: Predictions, data: Path | None
) -> Trial:
    """Return the images of a run.

    Args:
        directory: the run.
        model: its model.
        part: the predictions of the reported part.
        data: where the images are; None for where the run had them, and for noise if they are not
            there any more.

    Raises:
        SkinlesionError: if `data` is given and the run's data is not there.
    """
    try:
        samples = _open(directory, model, data)
    except SkinlesionError as error:
        if data is not None:
            raise
        reason = str(error).splitlines()[0].rstrip(":")
        return Trial(_noise(model), None, f"{reason} (--data FOLDER says where the images are)")
    of_part = pd.Index(samples.frame["image_id"]).get_indexer(part.frame["image_id"])
    training = np.flatnonzero(samples.frame["split"] == "train")
    return Trial(_images(samples, model, of_part), _images(samples, model, training))


def drawn(images: Images, number: int, seed: int = 0) -> Images:
    """Return so many of the images, or all if there are fewer, drawn by a seed."""
    chosen = np.random.default_rng(seed).permutation(len(images))[:number]
    return Images(
        images.pixels, images.rows[chosen], images.metadata[chosen], images.labels[chosen]
    )


def _open(directory: RunDirectory, model: LesionModel, data: Path | None) -> Samples:
    """Open the run's data, whose images are decoded at the first use only.

    Raises:
        SkinlesionError: if it is not there, or is not what the run was trained on.
    """
    config = directory.config
    root = data or config.data.get("root")
    if root is None:
        raise SkinlesionError(f"{directory.path}: its config does not say where the images are.")
    cache = Path(config.data.get("cache") or "")
    if not config.data.get("cache") or not cache.is_dir():  # the run is of another machine
        cache = Path(os.environ.get("SKINLESION_CACHE", "data/cache"))
    archive = check(
        root=Path(root),
        schema=Schema.from_config(config.data),
        cache=cache,
        size=model.size,
        split=Split(**config.split),
        limit=config.data.limit,
    )
    samples = archive.load(cache, model.size, config.missing_metadata)
    if samples.digest != directory.read_json("provenance.json")["data"]:
        raise SkinlesionError(
            f"{root} holds other images or metadata than {directory.path} was trained on."
        )
    return samples


def _images(samples: Samples, model: LesionModel, index: NDArray[np.int64]) -> Images:
    rows = samples.frame.iloc[index]
    # As the model encodes them, with its own statistics.
    metadata = model.encoder.encode(rows)
    return Images(samples.images, samples.rows[index], metadata, samples.labels[index])


def _noise(model: LesionModel) -> Images:
    random = np.random.default_rng(0)
    size, width = model.size, sum(model.encoder.sizes)
    return Images(
        pixels=random.integers(0, 256, (NOISE, size, size, 3), dtype=np.uint8),
        rows=np.arange(NOISE),
        metadata=random.standard_normal((NOISE, width)).astype(np.float32),
        labels=np.zeros(NOISE, dtype=np.int64),
    )
