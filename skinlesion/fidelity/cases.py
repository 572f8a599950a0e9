"""What the two frameworks are compared on: weights, an image, cuts, and the file between them.

Everything is drawn from NumPy's RandomState, whose stream is frozen, and from names alone, so that
neither side has to send the other more than what comes out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing

PINS = Path(__file__).with_name("keras_backbones.json")
TOLERANCE = 1e-4
SAMPLE = 512  # values of a layer in the small file
END = "end"  # the last layer, which gives the logits
_LAST = {"mobilenet_v3_large": "classifier.linear", "nasnet_mobile": "last_linear"}

# Variance of what a convolution gives over that of what it takes. With less MobileNetV3 ends in its
# own offsets, whatever the picture; with more its gates saturate, and NASNet, which adds branches,
# drowns the offsets.
GAIN = {"mobilenet_v3_large": 1.7, "nasnet_mobile": 1.0}


@cache
def pins() -> dict[str, Any]:
    """Return what Keras has at the authors' cuts, by the backbone's name."""
    pinned: dict[str, Any] = json.loads(PINS.read_text(encoding="utf-8"))
    return {name: pin for name, pin in pinned.items() if name != "_source"}


def cuts(backbone: str) -> dict[int | str, str]:
    """Return our cuts by Keras' index, counted from the end as the authors do, and the `END`."""
    return {pin["index"]: pin["cut"] for pin in pins()[backbone]["cuts"]} | {END: _LAST[backbone]}


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(crc32(name.encode()))


def numbers(backbone: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return the weights that both sides are filled with, of these shapes by Keras 2's names."""
    drawn = {}
    for name, shape in shapes.items():
        draw, variable = _random(name), name.rpartition("/")[2]
        if variable in ("gamma", "moving_variance"):
            values = draw.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = 0.1 * draw.standard_normal(shape)
        else:
            inputs = prod(shape[: 2 if variable == "depthwise_kernel" else -1])
            values = draw.standard_normal(shape) * np.sqrt(GAIN[backbone] / inputs)
        drawn[name] = values.astype(np.float32)
    return drawn


def picture() -> np.ndarray:
    """Return the image that both sides see: (1, 224, 224, 3) uint8, noise in coarse tiles."""
    draw = _random("picture")
    tiles = draw.randint(0, 224, (28, 28, 3)).repeat(8, 0).repeat(8, 1)
    return (tiles + draw.randint(0, 32, tiles.shape)).astype(np.uint8)[None]


@dataclass(frozen=True)
class Layer:
    """What came out of one layer of Keras: `shape` is (C, h, w) or (C,), in that order `values`.

    These are all, or `SAMPLE` of them; `peak`, the largest absolute one, `mean` and `std` are of
    all. `index` is the layer's place in Keras' list of layers.
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
        """Keep an output (1, h, w, C) or (1, C) of Keras."""
        value = np.moveaxis(output[0], -1, 0)
        peak, mean, std = float(np.abs(value).max()), float(value.mean()), float(value.std())
        return cls(name, index, value.shape, peak, mean, std, value.ravel())

    def error(self, ours: np.ndarray) -> float:
        """Return how far our output is from Keras', relative to Keras' largest value.

        That is the largest difference of the values, and of mean and standard deviation, which also
        speak for the values that a sample leaves out; infinite for another shape than (C, h, w) or
        (C,), where the axes of one pixel do not count.
        """
        if ours.shape not in (self.shape, tuple(n for n in self.shape if n > 1)):
            return float("inf")
        flat = ours.ravel().astype(np.float64)
        seen = flat if self.values.size == flat.size else flat[_places(flat.size)]
        moments = flat.mean() - self.mean, flat.std() - self.std
        return float(max(np.abs(seen - self.values).max(), *np.abs(moments))) / self.peak


def _places(size: int) -> np.ndarray:
    return np.sort(_random("places").permutation(size)[:SAMPLE])


@dataclass(frozen=True)
class Reference:
    """What came out of Keras, by backbone and cut, and the shapes of its weights, by their names.

    `about` says what it ran on.
    """

    about: dict[str, str]
    weights: dict[str, dict[str, Sequence[int]]]
    layers: dict[str, dict[int | str, Layer]]

    def write(self, path: Path, sampled: bool = False) -> None:
        """Write it, with all values or a sample of them."""
        arrays: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        for backbone, outputs in self.layers.items():
            for key, layer in outputs.items():
                fields = asdict(layer)
                values = fields.pop("values")
                arrays[f"{backbone}/{key}"] = values[_places(values.size)] if sampled else values
                rows.append({"backbone": backbone, "cut": key, **fields})
        content = {"about": self.about, "weights": self.weights, "layers": rows}
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, json=text, **arrays)

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """Read what `write` has written; SkinlesionError if there is no such file."""
        if not path.is_file():
            raise SkinlesionError(f"{path}: no such file. `make keras-parity` writes it.")
        layers: dict[str, dict[int | str, Layer]] = {}
        with np.load(path, allow_pickle=False) as arrays:
            content = json.loads(arrays["json"].tobytes())
            for row in content["layers"]:
                backbone, key = row.pop("backbone"), row.pop("cut")
                row |= {"shape": tuple(row["shape"]), "values": arrays[f"{backbone}/{key}"]}
                layers.setdefault(backbone, {})[key] = Layer(**row)
        return cls(content["about"], content["weights"], layers)
