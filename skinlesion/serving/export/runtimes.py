"""One way to call a model, whatever runs it; and proof that two of them compute the same."""

from collections.abc import Callable, Sequence
from pathlib import Path
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
    """What an exported model returns, both (B, C) float32.

    `probabilities` are softmax(logits / temperature).
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


# image (B, 3, S, S) uint8, metadata (B, M) float32
Runtime = Callable[[NDArray[np.uint8], NDArray[np.float32]], Outputs]


class Exported(nn.Module):
    """What is exported: the network, and behind it the temperature.

    Shape:
        image (B, 3, S, S) uint8, metadata (B, M) float32 → logits and probabilities, both (B, C). A
        network without a metadata branch takes the image alone.
    """

    def __init__(self, model: LesionModel) -> None:
        """Keep the model's network, which is not copied."""
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
    if not model.properties:
        return (image,)
    return image, torch.zeros(batch, sum(model.encoder.sizes))


def torch_runtime(model: LesionModel) -> Runtime:
    """Return the model as torch runs it."""
    exported = Exported(model).eval()

    @torch.inference_mode()
    def run(image: NDArray[np.uint8], metadata: NDArray[np.float32]) -> Outputs:
        inputs = (image, metadata) if model.properties else (image,)
        found = exported(*(torch.from_numpy(array) for array in inputs))
        return Outputs(*(tensor.numpy() for tensor in found))

    return run


def onnx_runtime(path: Path, threads: int | None = None) -> Runtime:
    """Return an ONNX file as ONNX Runtime runs it on the CPU.

    Args:
        path: of the file.
        threads: how many to use; None for one a core.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    reads = [given.name for given in session.get_inputs()]

    def run(image: NDArray[np.uint8], metadata: NDArray[np.float32]) -> Outputs:
        inputs = {"image": image, "metadata": metadata}
        return Outputs(*session.run([*Outputs._fields], {name: inputs[name] for name in reads}))

    return run


class Parity(NamedTuple):
    """The largest differences between two runtimes."""

    probability: float
    logit: float


def check_parity(
    name: str,
    expected: Runtime,
    found: Runtime,
    image: NDArray[np.uint8],
    metadata: NDArray[np.float32],
    batches: Sequence[int] = BATCHES,
) -> Parity:
    """Return how far apart two runtimes are on the same images.

    Args:
        name: of what is checked, for the error.
        expected: the model under torch.
        found: the exported model.
        image: (N, 3, S, S) uint8.
        metadata: (N, M).
        batches: sizes of the batches that are tried, each from the first image on.

    Raises:
        SkinlesionError: if a probability differs by more than `TOLERANCE`, or a logit by more than
            that times the largest logit, where it is above 1.
    """
    worst, largest = np.zeros(2), 1.0
    for size in batches:
        wanted = expected(image[:size], metadata[:size])
        got = found(image[:size], metadata[:size])
        apart = [
            np.abs(got.probabilities - wanted.probabilities).max(),
            np.abs(got.logits - wanted.logits).max(),
        ]
        worst = np.maximum(worst, apart)  # NaN stays
        largest = max(largest, float(np.abs(wanted.logits).max()))
    parity = Parity(*map(float, worst))
    # Written so that NaN is a failure.
    if not (parity.probability <= TOLERANCE and parity.logit <= TOLERANCE * largest):
        raise SkinlesionError(
            f"{name} does not compute what the network does: probabilities differ by up to "
            f"{parity.probability:.1e} and logits by up to {parity.logit:.1e}, expected at most "
            f"{TOLERANCE:g} and {TOLERANCE * largest:.1e}. Nothing was written; another release of "
            "torch or of the runtime may do better."
        )
    return parity
