"""What the two frameworks are compared on: weights, an image, cuts, and the file between them.

Everything is drawn from NumPy's RandomState, whose stream is frozen, and from names alone, so that
neither side has to send the other more than what comes out.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from skinlesion.errors import SkinlesionError
from skinlesion.fidelity.keras_weights import Weight, weights_of
from skinlesion.fidelity.pins import pins
from skinlesion.files import replacing

TOLERANCE = 1e-4
SAMPLE = 512  # values of a layer in the small file
END = "end"

# The last layer of each, which gives the logits.
_LAST = {"mobilenet_v3_large": "classifier.linear", "nasnet_mobile": "last_linear"}

# Variance of what a convolution gives over that of what it takes. With less MobileNetV3 ends in its
# own offsets, whatever the picture; with more its gates saturate, and NASNet, which adds branches,
# drowns the offsets.
GAIN = {"mobilenet_v3_large": 1.7, "nasnet_mobile": 1.0}


def cuts(backbone: str) -> dict[int | str, str]:
    """Return our cuts by Keras' index, counted from the end as the authors do, and the `END`."""
    return {pin["index"]: pin["cut"] for pin in pins()[backbone]["cuts"]} | {END: _LAST[backbone]}


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(crc32(name.encode()))


def _number(weight: Weight, gain: float) -> np.ndarray:
    draw = _random(weight.keras)
    if weight.variable in ("gamma", "moving_variance"):
        values = draw.uniform(0.5, 1.5, weight.shape)
    elif len(weight.shape) == 1:
        values = 0.1 * draw.standard_normal(weight.shape)
    else:
        inputs = weight.shape[: 2 if weight.variable == "depthwise_kernel" else -1]
        values = draw.standard_normal(weight.shape) * np.sqrt(gain / prod(inputs))
    return values.astype(np.float32)


def numbers(backbone: str) -> dict[str, np.ndarray]:
    """Return the weights that both sides are filled with, by Keras' names."""
    return {weight.keras: _number(weight, GAIN[backbone]) for weight in weights_of(backbone)}


def picture() -> np.ndarray:
    """Return the image that both sides see: (1, 224, 224, 3) uint8, noise in coarse tiles."""
    draw = _random("picture")
    tiles = draw.randint(0, 224, (28, 28, 3)).repeat(8, 0).repeat(8, 1)
    return (tiles + draw.randint(0, 32, tiles.shape)).astype(np.uint8)[None]


@dataclass(frozen=True)
class Layer:
    """What came out of one layer of Keras.

    Attributes:
        name: Keras' name of the layer.
        index: its place in Keras' list of layers.
        shape: (C, h, w), or (C,).
        peak: largest absolute value.
        mean: of all values.
        std: of all values.
        values: all values in the order of `shape`, or `SAMPLE` of them.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    peak: float
    mean: float
    std: float
    values: np.ndarray

    @classmethod
    def of(cls, name: str, index: int, output: np.ndarray) -> "Layer":
        """Describe an output (1, h, w, C) or (1, C) of Keras."""
        value = np.moveaxis(output[0], -1, 0)
        peak, mean, std = float(np.abs(value).max()), float(value.mean()), float(value.std())
        return cls(name, index, value.shape, peak, mean, std, value.ravel())

    def sampled(self) -> "Layer":
        """Return the same with `SAMPLE` of its values."""
        fields = asdict(self)
        return Layer(**fields | {"values": self.values[_places(self.values.size)]})

    def error(self, ours: np.ndarray) -> float:
        """Return how far our output is from Keras', relative to Keras' largest value.

        Args:
            ours: (C, h, w) or (C,); without the axes of one pixel is the same.

        Returns:
            The largest difference of the values, and of mean and standard deviation, which also
            speak for the values that a sample leaves out; infinite for another shape.
        """
        if ours.shape not in (self.shape, tuple(n for n in self.shape if n > 1)):
            return float("inf")
        flat = ours.ravel().astype(np.float64)
        places = slice(None) if self.values.size == flat.size else _places(flat.size)
        difference = max(
            float(np.abs(flat[places] - self.values).max()),
            abs(float(flat.mean()) - self.mean),
            abs(float(flat.std()) - self.std),
        )
        return difference / self.peak


def _places(size: int) -> np.ndarray:
    return np.sort(_random("places").permutation(size)[:SAMPLE])


Layers = dict[str, dict[int | str, Layer]]


def write(path: Path, layers: Layers, about: Mapping[str, str]) -> None:
    """Write what came out of Keras, by backbone and cut, and what it ran on."""
    arrays: dict[str, Any] = {}
    described = []
    for backbone, outputs in layers.items():
        for key, layer in outputs.items():
            arrays[f"{backbone}/{key}"] = layer.values
            fields: dict[str, Any] = asdict(layer)
            del fields["values"]
            described.append({"backbone": backbone, "cut": key, **fields})
    text = json.dumps({"about": dict(about), "layers": described}, indent=1)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, json=np.frombuffer(text.encode(), np.uint8), **arrays)


def read(path: Path) -> tuple[Layers, dict[str, str]]:
    """Read what `write` has written.

    Raises:
        SkinlesionError: if there is no such file.
    """
    if not path.is_file():
        raise SkinlesionError(f"{path}: no such file. `make keras-parity` writes it.")
    layers: Layers = {}
    with np.load(path, allow_pickle=False) as arrays:
        described = json.loads(arrays["json"].tobytes())
        for fields in described["layers"]:
            backbone, key = fields.pop("backbone"), fields.pop("cut")
            fields["shape"] = tuple(fields["shape"])
            layer = Layer(**fields, values=arrays[f"{backbone}/{key}"])
            layers.setdefault(backbone, {})[key] = layer
    return layers, described["about"]
