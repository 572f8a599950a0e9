"""A trained model to use, from a run directory or from one file that holds all of it.

The file is a `.safetensors` file, which holds tensors and text and cannot run code. Its header is a
`Description`, as JSON.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.calibration import fit_sure, fit_temperature, scale
from skinlesion.files import replacing
from skinlesion.models.classifier import Classifier, build_classifier
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.predictor import EXPECTED, HEADER, OTHER, Pixels, Prediction, Predictor

__all__ = ["HEADER", "LesionModel", "Prediction", "load_run", "run_directory"]


class LesionModel(Predictor):
    """A trained network with what feeds it and what its output means.

    Args:
        description: plain values, see `Description`.
        state: the network's state dict.

    Attributes:
        network: in evaluation mode.

    Raises:
        SkinlesionError: if the description is not within its limits, or a weight is not finite.
    """

    def __init__(
        self, description: Mapping[str, Any], state: Mapping[str, Tensor], device: str = "cpu"
    ) -> None:
        super().__init__(description)
        if broken := [name for name, value in state.items() if not value.isfinite().all()]:
            raise SkinlesionError(
                f"weights that are not finite: {listing(broken, 3)}. Its training diverged."
            )
        self.device = torch.device(device)
        self.network = _network(description["network"], state)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def probabilities(self, images: Pixels, metadata: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return raw probabilities (B, C) for images (B, S, S, 3) and encoded metadata (B, M)."""
        logits = self.network(self.as_batch(images), torch.from_numpy(metadata).to(self.device))
        found = logits.float().softmax(dim=1)
        if not found.isfinite().all():
            raise SkinlesionError("the network's answer is not finite.")
        return found.cpu().numpy().astype(np.float64)

    def as_batch(self, images: Pixels) -> Tensor:
        """Return images (B, S, S, 3) as the network takes them, (B, 3, S, S) uint8."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)

    def save(self, path: Path) -> None:
        """Write all of it as one `.safetensors` file, whole or not at all."""
        state = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        header = {"format": "pt", HEADER: json.dumps(self.description)}
        with replacing(path) as temporary:
            # Its own save_file lets nobody else read the file.
            temporary.write_bytes(save(state, header))


def load_run(path: str | Path, device: str = "cpu") -> LesionModel:
    """Load a trained model.

    Args:
        path: a run directory (`runs/<backbone>/<key>/seed<k>`), its `best.ckpt`, or a file that
            `skinlesion export` wrote.
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
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, torch without CUDA
        raise SkinlesionError(f"device={device}: {str(error).splitlines()[0]}") from None
    read = _read_file if path.suffix == ".safetensors" and path.is_file() else _read_run
    try:
        return LesionModel(*read(path), device)
    except pickle.UnpicklingError:  # torch's own message advises to run the code that is in it
        why = OTHER.format("the checkpoint holds more than tensors and plain values")
    except Exception as error:  # of torch, safetensors, json: each has its own
        why = " ".join(str(error).split())[:800] or type(error).__name__
        why = why if isinstance(error, SkinlesionError) else OTHER.format(why)
    raise SkinlesionError(f"{path} cannot be loaded as a model: {why}")


def _network(described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Classifier:
    """Return the network of some weights; no memory is taken before they are known to fit."""
    with torch.device("meta"):
        network = build_classifier(**described)
    wanted = network.state_dict()
    found = {n: v.to(wanted[n].dtype) if n in wanted else v for n, v in state.items()}
    network.load_state_dict(found, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):  # which are no weights, but computed
        network = build_classifier(**described)
        network.load_state_dict(found)
    return network.eval()


def run_directory(path: Path) -> RunDirectory:
    """Return the run that a path means: its directory, or one of its checkpoints."""
    return RunDirectory(path.absolute().parents[1] if path.suffix == ".ckpt" else path)


def _read_run(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    directory = run_directory(path)
    if not directory.path.exists():
        raise SkinlesionError(f"no such run or file. {EXPECTED}")
    weights, answers = directory.best.exists(), directory.predictions.exists()
    if weights and not answers:
        raise SkinlesionError(
            "it is not trained to the end (no predictions.csv): the command that began it goes on "
            "where it was cut."
        )
    if answers and not weights and (head := directory.values.get("head")):
        what = f"a head's (head.estimator={head['estimator']['_target_']})"
        raise SkinlesionError(f"it is {what}, which is not kept: such a run is for tables only.")
    if answers and not weights:
        raise SkinlesionError("it has no weights (checkpoints/best.ckpt): a copy for tables only.")
    if not weights and path.is_file():
        raise SkinlesionError(f"it is a file, but none that holds a whole model. {EXPECTED}")
    if not weights:
        inside = sorted(str(done.parent) for done in path.rglob("DONE"))
        runs = f"Runs in it: {listing(inside)}" if inside else "There is no finished run in it"
        raise SkinlesionError(f"it is no run directory. {runs}. {EXPECTED}")
    checkpoint = torch.load(directory.best, map_location="cpu", weights_only=True)
    whole, prefix = checkpoint["state_dict"], "network."
    state = {name.removeprefix(prefix): whole[name] for name in whole if name.startswith(prefix)}
    val = read_predictions(directory.predictions).part("val")
    temperature = fit_temperature(val.y, val.probabilities)
    sure = fit_sure(val.y, scale(val.probabilities, temperature))
    fitted = {"temperature": temperature, "sure": sure}
    return checkpoint["hyper_parameters"] | fitted, state


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    if HEADER not in header:
        raise SkinlesionError(
            f"it holds weights but does not say how a model is built of them. {EXPECTED}"
        )
    return json.loads(header[HEADER]), load_file(path)
