"""A trained model to use, from a run directory or from one file that holds all of it.

The file is a `.safetensors` file, which holds tensors and text and cannot run code. Its header says
how the network is built and fed, what its classes are and how metadata is encoded, as the run's
checkpoint does, and the temperature.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skinlesion.data.cache import to_square
from skinlesion.data.encoding import MetadataEncoder, is_missing
from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.calibration import fit_temperature, scale
from skinlesion.runs.predictions import read_predictions
from skinlesion.files import replacing
from skinlesion.models.classifier import Classifier, build_classifier
from skinlesion.serving.images import Source, read_image
from skinlesion.runs.directory import RunDirectory

HEADER = "skinlesion"  # the header's field


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        probabilities: class → probability after temperature scaling; they sum to 1.
        raw: class → the network's own probability.
        missing: properties of the metadata that were not given.
    """

    probabilities: Mapping[str, float]
    raw: Mapping[str, float]
    missing: tuple[str, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


class LesionModel:
    """A trained network with what feeds it and what its output means.

    Args:
        description: what a checkpoint holds beside the weights: `network`, `classes`, `encoder`.
        state: the network's state dict.
        temperature: the logits are divided by it (Guo et al. 2017, arXiv:1706.04599).
        device: `cpu`, `cuda`, …

    Attributes:
        network: in evaluation mode.
        classes: names, in the order of the outputs.
        encoder: of the metadata.
        size: height and width of the network's input, in pixels.
    """

    def __init__(
        self,
        description: Mapping[str, Any],
        state: Mapping[str, torch.Tensor],
        temperature: float,
        device: str = "cpu",
    ) -> None:
        """Build the network and load its weights."""
        self.description = dict(description)
        self.classes: tuple[str, ...] = tuple(description["classes"])
        self.encoder = MetadataEncoder.from_dict(description["encoder"])
        self.temperature = temperature
        self.device = torch.device(device)
        self.network: Classifier = build_classifier(**description["network"]).eval()
        self.network.load_state_dict(state)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = self.network.backbone.spec.input_size

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the metadata that the network reads."""
        return tuple(self.encoder.properties) if self.network.metadata is not None else ()

    def predict(self, image: Source, **metadata: Any) -> Prediction:
        """Return the probabilities for one image.

        Args:
            image: a path, the bytes of a JPEG, PNG or WebP file, a Pillow image, or an array
                (H, W, 3) uint8, RGB.
            metadata: such as `age=45, sex="male", localization="back"`; what is not given, or None,
                counts as unknown.

        Raises:
            SkinlesionError: if the image cannot be read, or a property or its value is not known.
        """
        fitted = to_square(read_image(image), self.size)
        return self.predict_batch(fitted[None], [metadata])[0]

    def predict_batch(
        self, images: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]]
    ) -> list[Prediction]:
        """Return a prediction for each image.

        Args:
            images: (B, S, S, 3) uint8, RGB, of the network's input size S.
            rows: metadata of each image, by property.

        Raises:
            SkinlesionError: if a property or its value is not known.
        """
        frame = self.encoder.frame(rows)
        raw = self.probabilities(images, self.encoder.encode(frame))
        calibrated = scale(raw, self.temperature)
        return [
            Prediction(
                probabilities=dict(zip(self.classes, map(float, calibrated[i]), strict=True)),
                raw=dict(zip(self.classes, map(float, raw[i]), strict=True)),
                missing=tuple(name for name in self.properties if is_missing(row.get(name))),
            )
            for i, row in enumerate(rows)
        ]

    @torch.inference_mode()
    def probabilities(
        self, images: NDArray[np.uint8], metadata: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return the network's own probabilities (B, C).

        Args:
            images: (B, S, S, 3) uint8, RGB.
            metadata: (B, M), encoded.
        """
        logits = self.network(self.as_batch(images), torch.from_numpy(metadata).to(self.device))
        return logits.float().softmax(dim=1).cpu().numpy().astype(np.float64)

    def as_batch(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Return images (B, S, S, 3) as the network takes them, (B, 3, S, S) uint8."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)

    def save(self, path: str | Path) -> None:
        """Write all of it as one `.safetensors` file, whole or not at all."""
        from safetensors.torch import save

        state = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        said = json.dumps(self.description | {"temperature": self.temperature})
        with replacing(path) as temporary:
            # Its own save_file lets nobody else read the file.
            temporary.write_bytes(save(state, {"format": "pt", HEADER: said}))


def load_run(path: str | Path, device: str = "cpu") -> LesionModel:
    """Load a trained model.

    Args:
        path: a run directory (`runs/<backbone>/<key>/seed<k>`), its `best.ckpt`, or a file that
            `python -m skinlesion.export` wrote.
        device: where the network runs: `cpu`, `cuda`, …

    Raises:
        SkinlesionError: if there is no trained model, it is damaged or of another release.

    >>> from skinlesion import load_run
    >>> model = load_run("model.safetensors")
    >>> prediction = model.predict("lesion.jpg", age=45, sex="male", localization="back")
    >>> round(sum(prediction.probabilities.values()), 6)
    1.0
    >>> prediction.label in model.classes
    True
    >>> model.predict("lesion.jpg", age=45).missing
    ('sex', 'localization')
    """
    path = Path(path)
    _check_device(device)
    try:
        if path.suffix == ".safetensors" and path.is_file():
            description, state = _read_file(path)
            return LesionModel(description, state, description.pop("temperature"), device)
        directory = RunDirectory(path.parents[1] if path.suffix == ".ckpt" else path)
        checkpoint = torch.load(_finished(directory).best, map_location="cpu", weights_only=True)
        prefix = "network."
        state = {
            name.removeprefix(prefix): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
        description = checkpoint["hyper_parameters"]
        return LesionModel(description, state, temperature_of(directory), device)
    except SkinlesionError:
        raise
    except Exception as error:  # of torch, safetensors, json: each has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SkinlesionError(
            f"{path} cannot be loaded as a model: it is damaged, of another kind or of another "
            f"release ({reason}). Expected a run directory or a file of "
            "python -m skinlesion.export."
        ) from error


def temperature_of(directory: RunDirectory) -> float:
    """Return the temperature fitted on the validation part of a run's predictions."""
    val = read_predictions(directory.predictions).part("val")
    return fit_temperature(val.y, val.probabilities)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, torch without CUDA
        raise SkinlesionError(f"device={device}: {str(error).splitlines()[0]}") from None


def _finished(directory: RunDirectory) -> RunDirectory:
    """Return the directory if a trained model is in it.

    Raises:
        SkinlesionError: saying what is there instead.
    """
    path = directory.path
    if directory.best.exists() and directory.predictions.exists():
        return directory
    if directory.best.exists():
        raise SkinlesionError(
            f"{path} is not trained to the end (no predictions.csv): the command that began it "
            "goes on where it was cut."
        )
    if directory.predictions.exists():
        raise SkinlesionError(
            f"{path} has no weights (checkpoints/best.ckpt): it is a copy for tables only."
        )
    if not path.exists():
        raise SkinlesionError(f"{path}: no such run or file.")
    inside = sorted(str(done.parent) for done in path.rglob("DONE"))
    raise SkinlesionError(
        f"{path} is no run directory (runs/<backbone>/<key>/seed<k>) and no file of "
        "python -m skinlesion.export. "
        + (f"Runs in it: {listing(inside)}." if inside else "There is no finished run in it.")
    )


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if HEADER not in header:
            raise SkinlesionError(
                f"{path} holds weights but does not say how a model is built of them; expected a "
                "file of python -m skinlesion.export."
            )
        return json.loads(header[HEADER]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
