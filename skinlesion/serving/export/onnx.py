"""The network as an ONNX file: in float32, or with the backbone's convolutions in eight bits.

Eight bits are static quantisation (QDQ): weights are int8 with a scale for each output channel,
activations uint8 with a scale for each tensor, from the values that training images give (all but
the rarest 0.01 %). The first convolutions, soft attention, the metadata branch and the dense layer
stay in float32: docs/use.md has what every layer costs.
"""

import io
import json
import logging
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from skinlesion.errors import SkinlesionError
from skinlesion.serving.export.measure import Exported, Images, Outputs, Runtime, example
from skinlesion.serving.model import HEADER, LesionModel

PERCENTILE = 99.99
FIRST = 12  # convolutions that stay in float32, but no more than a quarter of all
BATCH = 4  # at a time: every activation of a batch is in memory at once
BACKBONE = "network.backbone."  # in the name of a weight; what was fused stands before it


def write_onnx(model: LesionModel, path: Path) -> None:
    """Write a model as one ONNX file, float32, for batches of any size.

    Inputs: `image` (batch, 3, S, S) uint8 and, for a network with a metadata branch, `metadata`
    (batch, M) float32. Outputs: `logits` and `probabilities`, both (batch, C) float32. The file
    says in its own metadata what the header of a `.safetensors` file does.
    """
    inputs = example(model, batch=2)  # of 1, the exporter would make a constant
    batch = torch.export.Dim("batch")
    with _making(path):
        program: Any = torch.onnx.export(
            Exported(model).eval(),
            inputs,
            dynamo=True,
            input_names=["image", "metadata"][: len(inputs)],
            output_names=[*Outputs._fields],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    program.model.metadata_props[HEADER] = json.dumps(model.description)
    program.save(path)


def onnx_runtime(path: Path, threads: int | None = None) -> Runtime:
    """Return an ONNX file as ONNX Runtime runs it on the CPU; None is a thread a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    reads = [given.name for given in session.get_inputs()]

    def run(image: NDArray[np.uint8], metadata: NDArray[np.float32]) -> Outputs:
        inputs = {"image": image, "metadata": metadata}
        return Outputs(*session.run([*Outputs._fields], {name: inputs[name] for name in reads}))

    return run


def quantize(source: Path, path: Path, images: Images) -> dict[str, Any]:
    """Write a file of `write_onnx` in eight bits, and return what was done, for the record.

    The images are of the training part, to calibrate with.
    """
    prepared = path.with_suffix(".prepared.onnx")
    with _making(path):
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
    graph = onnx.load(prepared)
    for index, node in enumerate(graph.graph.node):
        node.name = f"{index}_{node.op_type}"  # some have none, and they are chosen by name
    convolutions = [
        node.name
        for node in graph.graph.node
        if node.op_type == "Conv" and BACKBONE in node.input[1]
    ]
    kept = min(FIRST, len(convolutions) // 4)
    onnx.save(graph, prepared)
    reads = [given.name for given in graph.graph.input]
    with (
        tqdm(total=len(images), desc="calibrating int8", unit="img", disable=None) as bar,
        _making(path),
    ):
        quantize_static(
            prepared,
            path,
            _Reader(images, reads, bar),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_quantize=convolutions[kept:],
            op_types_to_quantize=["Conv"],
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
        )
    prepared.unlink()
    return {
        "format": "QDQ, int8 weights per channel, uint8 activations",
        "calibration": f"percentile {PERCENTILE}",
        "images": len(images),
        "convolutions": len(convolutions) - kept,
        "convolutions_left_in_float32": kept,
    }


class _Reader(CalibrationDataReader):
    """Hands out batches of images, one at a time: their number is the length."""

    def __init__(self, images: Images, reads: list[str], bar: tqdm) -> None:
        self.images, self.reads, self.bar = images, reads, bar
        self.left = iter(range(len(self)))

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        if (index := next(self.left, None)) is None:
            return None
        image, metadata = self.images.batch(BATCH * index, BATCH * (index + 1))
        self.bar.update(len(image))
        inputs: dict[str, np.ndarray] = {"image": image, "metadata": metadata}
        return {name: inputs[name] for name in self.reads}


@contextmanager
def _making(path: Path) -> Iterator[None]:
    """Silence what exporter and quantiser tell every caller, and make their errors one line."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # each has its own, also for a disk that is full
        raise SkinlesionError(
            f"{path.name} cannot be made ({textwrap.shorten(str(error), 300)}). Is there room in "
            f"{path.parent.parent.parent} and {tempfile.gettempdir()}?"
        ) from error
    finally:
        logging.disable(before)
