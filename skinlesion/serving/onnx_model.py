"""A trained model from `model.onnx` or `model.int8.onnx`, without torch: it starts in a moment."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import softmax
from skinlesion.serving.predictor import EXPECTED, HEADER, OTHER, Pixels, Predictor


class OnnxModel(Predictor):
    """An exported file as ONNX Runtime runs it on the CPU.

    Raises:
        SkinlesionError: if the file is no ONNX, or does not say what it is within the limits.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is said once, and here
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        header = self.session.get_modelmeta().custom_metadata_map
        if HEADER not in header:
            raise SkinlesionError(f"it does not say what its inputs and outputs mean. {EXPECTED}")
        super().__init__(json.loads(header[HEADER]))
        wanted = {"image": [3, self.size, self.size], "logits": [len(self.classes)]}
        if self.properties:
            wanted["metadata"] = [sum(self.encoder.sizes)]
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self._reads = [given.name for given in inputs]
        found = {place.name: place.shape[1:] for place in (*inputs, *outputs)}
        found.pop("probabilities", None)
        if found != wanted:
            raise SkinlesionError(f"its network is not the one that it describes. {EXPECTED}")

    def fitted(self, image: Pixels) -> Pixels:
        """Return an image (H, W, 3) as the network takes it, (S, S, 3)."""
        return to_square_without_torch(image, self.size)

    def probabilities(self, images: Pixels, metadata: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return raw probabilities (B, C) for images (B, S, S, 3) and encoded metadata (B, M)."""
        given = {"image": np.ascontiguousarray(images.transpose(0, 3, 1, 2)), "metadata": metadata}
        (logits,) = self.session.run(["logits"], {name: given[name] for name in self._reads})
        if not np.isfinite(logits).all():
            raise SkinlesionError("the network's answer is not finite.")
        return softmax(logits.astype(np.float64))


def load_onnx(path: Path) -> OnnxModel:
    """Load an exported `.onnx` file.

    Raises:
        SkinlesionError: if there is none, it is damaged, of another origin or of another release.
    """
    try:
        if not path.is_file():
            raise SkinlesionError(f"no such run or file. {EXPECTED}")
        return OnnxModel(path)
    except ImportError:
        why = "ONNX Runtime is not installed: pip install onnxruntime."
    except Exception as error:  # of ONNX Runtime, json: each has its own
        why = " ".join(str(error).split())[:300] or type(error).__name__
        why = why if isinstance(error, SkinlesionError) else OTHER.format(why)
    raise SkinlesionError(f"{path} cannot be loaded as a model: {why}")


def to_square_without_torch(image: np.ndarray, size: int) -> np.ndarray:
    """Return what `to_square` does, a few values in 100,000 off by one, in four times its time.

    It is for a model.onnx, which is used where there is no torch.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    scale = np.float32(side) / np.float32(size)
    place = scale * (np.arange(size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    place = np.maximum(place, 0)  # pixels' centres lie at halves
    first = place.astype(int)
    second, share = np.minimum(first + 1, side - 1), (place - first).astype(np.float32)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    across, down = share[:, None], share[:, None, None]

    def row(place: np.ndarray) -> np.ndarray:  # only those that are looked at: (size, size, 3)
        found = square[place]
        return found[:, first] * (1 - across) + found[:, second] * across

    return np.rint(row(first) * (1 - down) + row(second) * down).astype(np.uint8)
