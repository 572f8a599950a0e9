"""The network's convolutions in eight bits: static quantisation of the ONNX file (QDQ).

Weights are int8 with a scale for each output channel, activations uint8 with a scale for each
tensor, from the values that training images give (all but the rarest 0.01 %).

What stays in float32: the first convolutions, soft attention, the metadata branch and the dense
layer. The first convolutions hold few weights and feel rounding most: MobileNetV3Small with its
very first one alone in eight bits gives another answer for half of the images, with any of its last
40 alone for at most one in 30. What that made of a trained MobileNetV3Small (96 px, 1,003 images;
change of accuracy and of balanced accuracy, in points):

    everything in eight bits, from the smallest to the largest value   -33.3  -44.6
    the backbone's convolutions                                        -28.5  -42.0
    the same, with 99.99 % of the values                               -14.6  -31.3
    the same, without the first 8                                       -0.6   -2.4
    the same, without the first 12                                      -0.7   +1.8

The last choice on four trained MobileNetV3Small and four MobileNetV2: -1.0 to +0.2 points of
accuracy, -1.0 to +1.8 of balanced accuracy.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from skinlesion.serving.export.onnx import quiet
from skinlesion.serving.export.trial import Images

IMAGES = 300  # to calibrate with
PERCENTILE = 99.99
FIRST = 12  # convolutions that stay in float32, but no more than a quarter of all
BATCH = 4  # at a time: every activation of a batch is in memory at once
BACKBONE = "network.backbone."  # in the name of a weight; what was fused stands before it


def quantize(source: Path, path: Path, images: Images) -> dict[str, Any]:
    """Write an ONNX file of `write_onnx` with its convolutions in eight bits.

    Args:
        source: the float32 file.
        path: where to write.
        images: of the training part, to calibrate with.

    Returns:
        What was done, for the record.
    """
    prepared = path.with_suffix(".prepared.onnx")
    with quiet():
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
    with (
        tqdm(total=len(images), desc="calibrating int8", unit="img", disable=None) as bar,
        quiet(),
    ):
        quantize_static(
            prepared,
            path,
            _Reader(images, bar),
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

    def __init__(self, images: Images, bar: tqdm) -> None:
        self.images, self.bar = images, bar
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = list(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        if not self.left:
            return None
        start = BATCH * self.left.pop(0)
        image, metadata = self.images.batch(start, start + BATCH)
        self.bar.update(len(image))
        return {"image": image, "metadata": metadata} if metadata.shape[1] else {"image": image}
