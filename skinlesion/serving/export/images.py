"""The images of a run to test its files with, or noise where they are not at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinlesion.data.pixels import to_square
from skinlesion.data.run_images import RunImages, open_run_images
from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.directory import RunDirectory
from skinlesion.serving.model import LesionModel

CALIBRATION = 300  # training images, to calibrate eight bits with
FEW = 8  # images: of noise, and to recognise a run's images by
CLOSE = 0.1  # of a probability: bfloat16 is off by a tenth of it


@dataclass(frozen=True)
class Images:
    """Images with their metadata, read when they are needed.

    Attributes:
        ids: of N images.
        metadata: (N, M) float32, encoded.
        read: from an id to pixels (S, S, 3) uint8.
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

    They are in the folder `data`, or where the run had them; if they are not there any more, noise.

    Raises:
        SkinlesionError: if `data` is given and the run's images are not there.
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
    if absent := [image_id for image_id in ids if image_id not in found.table.index]:
        raise SkinlesionError(f"{found.archive.root} lacks images of the run: {listing(absent)}")
    metadata = model.encoder.encode(found.table.loc[ids])
    return Images(ids, metadata, lambda image_id: to_square(found.pixels(image_id), model.size))


def _check(found: RunImages, held_out: Images, model: LesionModel, part: Measured) -> None:
    """Refuse images that are not the run's: other labels, or answers than the run's predictions."""
    expected = part.predictions.frame[["lesion_id", "label"]].to_numpy()
    same = (found.table.loc[[*held_out.ids], ["lesion_id", "dx"]].to_numpy() == expected).all()
    if same:
        image, metadata = held_out.batch(0, FEW)
        probabilities = model.probabilities(image.transpose(0, 2, 3, 1), metadata)
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
