"""One way to call a model, whatever runs it; and proof that two of them compute the same."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skinlesion.errors import SkinlesionError
from skinlesion.serving.model import LesionModel

TOLERANCE = 1e-4
BATCHES = (1, 2, 5, 8)  # sizes that parity is checked with


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


def check_parity(
    name: str,
    expected: Runtime,
    found: Runtime,
    image: NDArray[np.uint8],
    metadata: NDArray[np.float32],
) -> dict[str, float]:
    """Return the largest differences between two runtimes: `probability` and `logit`.

    Args:
        name: of what is checked, for the error.
        expected: the model under torch.
        found: the exported model.
        image: (N, 3, S, S) uint8, of which the first ones are tried in batches of BATCHES.
        metadata: (N, M).

    Raises:
        SkinlesionError: if a probability differs by more than `TOLERANCE`, or a logit by more than
            that times the largest logit, where it is above 1.
    """
    probability, logit, largest = 0.0, 0.0, 1.0
    for size in BATCHES:
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
    return {"probability": probability, "logit": logit}
