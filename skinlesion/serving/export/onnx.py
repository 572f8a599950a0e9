"""The network as an ONNX file, float32, for batches of any size."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from skinlesion.serving.export.runtimes import Exported, Outputs, example
from skinlesion.serving.model import HEADER, LesionModel


def write_onnx(model: LesionModel, path: Path) -> None:
    """Write a model as one ONNX file.

    Inputs: `image` (batch, 3, S, S) uint8 and, for a network with a metadata branch, `metadata`
    (batch, M) float32. Outputs: `logits` and `probabilities`, both (batch, C) float32. The file
    says in its own metadata what the classes are and how metadata is encoded, as the header of a
    `.safetensors` file does.
    """
    inputs = example(model, batch=2)  # of 1, the exporter would make a constant
    batch = torch.export.Dim("batch")
    with quiet():
        program: Any = torch.onnx.export(
            Exported(model).eval(),
            inputs,
            dynamo=True,
            input_names=["image", "metadata"][: len(inputs)],
            output_names=[*Outputs._fields],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    said = model.description | {"temperature": model.temperature}
    program.model.metadata_props[HEADER] = json.dumps(said)
    program.save(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what exporter and quantiser tell every caller and no user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
