"""What any trained model does, whatever computes its network: read, encode, predict, calibrate.

Neither torch nor pandas is needed for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinlesion.data.encoding import MetadataEncoder, is_missing
from skinlesion.data.pixels import AnyImage, read_image, to_square
from skinlesion.data.views import mean_over_views
from skinlesion.errors import SkinlesionError, validated
from skinlesion.evaluation.calibration import scale
from skinlesion.serving.description import Description

Pixels = NDArray[np.uint8]

HEADER = "skinlesion"  # where a file keeps its Description
EXPECTED = (
    "Expected a run directory (runs/<backbone>/<key>/seed<k>) or a file of skinlesion export."
)
OTHER = f"it is damaged, of another kind or of another release ({{}}). {EXPECTED}"


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        probabilities: class → probability after temperature scaling.
        raw: class → the network's own probability.
        missing: properties of the metadata that were not given.
        sure: whether the largest probability reaches what at most 5 % of the answers on the
            validation images were wrong with; None where that is not known.
    """

    probabilities: Mapping[str, float]
    raw: Mapping[str, float]
    missing: tuple[str, ...]
    sure: bool | None = None

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


class Predictor(ABC):
    """A trained network with what feeds it and what its output means.

    Args:
        description: plain values, see `Description`.

    Attributes:
        classes: names, in the order of the outputs.
        encoder: of the metadata.
        temperature: the logits are divided by it.
        size: height and width of the network's input, in pixels.
        region: what it saw of each image, by the lesion's mask; None: all of it.
        tta: over which views of an image (`skinlesion.data.views`) its answer is the mean, at first
            those that it was measured with; may be set.

    Raises:
        SkinlesionError: if the description is not within its limits.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        checked = validated(Description, dict(description))
        self.description = dict(description)
        self.classes: tuple[str, ...] = tuple(description["classes"])
        self.encoder = MetadataEncoder.from_dict(description["encoder"])
        self.temperature: float = description["temperature"]
        self.size, self.region = checked.network.backbone.input_size, checked.region
        self.tta: str | None = checked.tta
        self.sure = checked.sure
        if checked.network.backbone.mask:
            raise SkinlesionError(
                "this model wants each lesion's mask as a fourth channel (data.region="
                "fourth_channel), which a picture does not have: its predictions are in its run."
            )
        reads = checked.network.metadata.name != "none"
        self.properties = tuple(self.encoder.properties) if reads else ()  # what the network reads

    @abstractmethod
    def probabilities(self, images: Pixels, metadata: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return raw probabilities (B, C) for images (B, S, S, 3) and encoded metadata (B, M)."""

    def place(self, label: str) -> int:
        """Return where a class is among the outputs; SkinlesionError if there is no such class."""
        if label not in self.classes:
            expected = f"expected {', '.join(self.classes)}"
            raise SkinlesionError(f"there is no class {label}: {expected}.")
        return self.classes.index(label)

    def answers(self, images: Pixels, metadata: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the same as the mean over the views of each image."""
        return mean_over_views(lambda view: self.probabilities(view, metadata), images, self.tta)

    def fitted(self, image: Pixels) -> Pixels:
        """Return an image (H, W, 3) as the network takes it, (S, S, 3)."""
        return to_square(image, self.size)

    def predict(self, image: AnyImage, **metadata: Any) -> Prediction:
        """Return the probabilities for one image.

        Args:
            image: see `read_image`.
            metadata: such as `age=45, sex="male", localization="back"`; what is not given, or None,
                counts as unknown.

        Raises:
            SkinlesionError: if the image cannot be read, or a property or its value is not known.
        """
        fitted = self.fitted(read_image(image))
        return self.predict_batch(fitted[None], [metadata])[0]

    def predict_batch(self, images: Pixels, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """Return a prediction for each image.

        Args:
            images: (B, S, S, 3) uint8, RGB, of the network's input size S.
            rows: metadata of each image, by property.

        Raises:
            SkinlesionError: if a property or its value is not known, or an answer is not finite.
        """
        raw = self.answers(images, self.encoder.encode_typed(rows))
        calibrated = scale(raw, self.temperature)
        return [
            Prediction(
                probabilities=dict(zip(self.classes, calibrated[i].tolist(), strict=True)),
                raw=dict(zip(self.classes, raw[i].tolist(), strict=True)),
                missing=tuple(name for name in self.properties if is_missing(row.get(name))),
                sure=None if self.sure is None else bool(calibrated[i].max() >= self.sure),
            )
            for i, row in enumerate(rows)
        ]
