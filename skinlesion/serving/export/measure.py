"""What an exported file is worth: that it computes the same, how well it does, and how fast.

It is measured on the held-out images of the run, or on noise where they are not at hand.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from skinlesion.data.pixels import to_square
from skinlesion.data.run_images import RunImages, open_run_images
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.directory import RunDirectory
from skinlesion.serving.model import LesionModel

CALIBRATION = 300  # training images, to calibrate eight bits with
FEW = 8  # images: of noise, and to recognise a run's images by
CLOSE = 0.1  # of a probability: bfloat16 is off by a tenth of it
TOLERANCE = 1e-4
BATCHES = (1, 2, 5, 8)  # sizes that parity is checked with
BATCH = 32
WARM_UP = 5  # calls before the clock is looked at


@dataclass(frozen=True)
class Images:
    """N images, which `read` reads by their ids when they are needed, (S, S, 3) uint8.

    Their metadata is encoded, (N, M) float32.
    """

    ids: Sequence[str]
    metadata: NDArray[np.float32]
    read: Callable[[str], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the images (B, 3, S, S) and the metadata (B, M) from one place to another."""
        image = np.stack([self.read(image_id) for image_id in self.ids[start:stop]])
        return np.ascontiguousarray(image.transpose(0, 3, 1, 2)), self.metadata[start:stop]


class AtHand(NamedTuple):
    """The images of the reported part, in its order, and some of the training part.

    Where they are missing, `missing` says why, and what is held out is noise.
    """

    held_out: Images
    training: Images | None = None
    missing: str = ""


def images_at_hand(
    directory: RunDirectory, model: LesionModel, part: Measured, data: Path | None
) -> AtHand:
    """Return the images of a run, and of its reported part.

    They are in the folder `data`, or a SkinlesionError says why not; None: where the run had them;
    if they are not there any more, noise.
    """
    try:
        found = open_run_images(directory.config, data)
        held_out = _images(found, model, part.predictions.frame["image_id"].tolist())
        _check(found, held_out, model, part)
        split = pd.read_csv(directory.path / "split.csv", dtype=str, keep_default_na=False)
        training = split.loc[split["split"] == "train", "image_id"].to_numpy()
        some = np.random.default_rng(0).permutation(len(training))[:CALIBRATION]
        return AtHand(held_out, _images(found, model, training[some].tolist()))
    except SkinlesionError as error:
        if data is not None:
            raise
        missing = f"{error} (--data FOLDER says where the images are)"
        return AtHand(_noise(model), missing=missing)


def _images(found: RunImages, model: LesionModel, ids: list[str]) -> Images:
    """Return some of a run's images, encoded as the model does, with its own statistics."""
    metadata = model.encoder.encode(found.only(ids).table)
    return Images(ids, metadata, lambda image_id: to_square(found.pixels(image_id), model.size))


def _check(found: RunImages, held_out: Images, model: LesionModel, part: Measured) -> None:
    """Refuse images that are not the run's: other labels, or answers than the run's predictions."""
    expected = part.predictions.frame[["lesion_id", "label"]].to_numpy()
    same = (found.table.loc[[*held_out.ids], ["lesion_id", "dx"]].to_numpy() == expected).all()
    if same:
        image, metadata = held_out.batch(0, FEW)
        probabilities = model.answers(image.transpose(0, 2, 3, 1), metadata)
        same = np.abs(probabilities - part.probabilities[:FEW]).max() <= CLOSE
    if not same:
        raise SkinlesionError(
            f"{found.archive.root} holds other images or metadata than the run was trained on"
        )


def _noise(model: LesionModel) -> Images:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (FEW, model.size, model.size, 3), dtype=np.uint8)
    metadata = random.standard_normal((FEW, sum(model.encoder.sizes))).astype(np.float32)
    return Images([*map(str, range(FEW))], metadata, lambda index: pixels[int(index)])


class Outputs(NamedTuple):
    """What an exported model returns, both (B, C): logits, and softmax(logits / temperature)."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


# image (B, 3, S, S) uint8, metadata (B, M) float32
Runtime = Callable[[NDArray[np.uint8], NDArray[np.float32]], Outputs]


class Exported(nn.Module):
    """What is exported: the network, which is not copied, and behind it the temperature.

    Shape:
        image (B, 3, S, S) uint8, metadata (B, M) float32 → logits and probabilities, both (B, C). A
        network without a metadata branch takes the image alone.
    """

    def __init__(self, model: LesionModel) -> None:
        super().__init__()
        self.network = model.network
        self.temperature = model.temperature

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits and the calibrated probabilities."""
        given: Any = metadata
        logits = self.network(image, given)  # (B, C)
        return logits, (logits / self.temperature).softmax(dim=1)


def example(model: LesionModel, batch: int) -> tuple[Tensor, ...]:
    """Return inputs of an `Exported` to trace it with: image (B, 3, S, S) and metadata (B, M)."""
    image = torch.zeros(batch, 3, model.size, model.size, dtype=torch.uint8)
    return (image, torch.zeros(batch, sum(model.encoder.sizes))) if model.properties else (image,)


def torch_runtime(model: LesionModel) -> Runtime:
    """Return the model as torch runs it."""
    exported = Exported(model).eval()

    @torch.inference_mode()
    def run(image: NDArray[np.uint8], metadata: NDArray[np.float32]) -> Outputs:
        inputs = (image, metadata) if model.properties else (image,)
        found = exported(*(torch.from_numpy(array) for array in inputs))
        return Outputs(*(tensor.numpy() for tensor in found))

    return run


def parity(name: str, expected: Runtime, found: Runtime, images: Images) -> dict[str, Any]:
    """Return the largest differences between two runtimes, on the first images.

    Raises:
        SkinlesionError: if a probability differs by more than `TOLERANCE`, or a logit by more than
            that times the largest logit, where it is above 1.
    """
    image, metadata = images.batch(0, max(BATCHES))
    batches = [size for size in BATCHES if size <= len(image)]
    probability, logit, largest = 0.0, 0.0, 1.0
    for size in batches:
        wanted, got = (run(image[:size], metadata[:size]) for run in (expected, found))
        apart = [np.abs(a - b).max() for a, b in zip(got, wanted, strict=True)]
        logit, probability = np.maximum((logit, probability), apart).tolist()  # NaN stays
        largest = max(largest, float(np.abs(wanted.logits).max()))
    # Written so that NaN is a failure.
    if not (probability <= TOLERANCE and logit <= TOLERANCE * largest):
        raise SkinlesionError(
            f"{name} does not compute what the network does: probabilities differ by up to "
            f"{probability:.1e} and logits by up to {logit:.1e}, expected at most {TOLERANCE:g} "
            f"and {TOLERANCE * largest:.1e}. Nothing was written; another release of torch or of "
            "the runtime may do better."
        )
    return {"probability": probability, "logit": logit, "images": len(image), "batches": batches}


def answers(run: Runtime, images: Images, part: Measured, name: str) -> Measured:
    """Return a part as an exported file answers its images."""
    batches = range(0, len(images), BATCH)
    starts = tqdm(batches, f"measuring {name}", unit="batch", disable=None)
    found = [run(*images.batch(start, start + BATCH)).probabilities for start in starts]
    probabilities = np.concatenate(found).astype(np.float64)
    return part.answering(probabilities / probabilities.sum(axis=1, keepdims=True))


def quality(part: Measured) -> dict[str, Any]:
    """Return n, accuracy, balanced accuracy and each class's recall."""
    kept = {name: part.metrics[name] for name in ("n", "accuracy", "balanced_accuracy")}
    recall = {label: values["recall"] for label, values in part.metrics["per_class"].items()}
    return kept | {"recall": recall}


def latencies(
    calls: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, dict[str, float]]:
    """Return how long each call takes, in milliseconds: `median`, `q25`, `q75`, `repeats`.

    The calls take turns, so that what else the machine does meets all alike. torch computes with
    one thread meanwhile.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    try:
        for i in tqdm(range(WARM_UP + repeats), "timing", unit="round", disable=None):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if i >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    found = {}
    for name, values in seconds.items():
        low, middle, high = (1000 * np.quantile(values, [0.25, 0.5, 0.75])).tolist()
        found[name] = {"median": middle, "q25": low, "q75": high, "repeats": repeats}
    return found
