"""The model card's part on use: the files, how to load them, what goes in and comes out."""

from collections.abc import Mapping
from typing import Any

from skinlesion.data.encoding import Category, Number
from skinlesion.serving.export.formats import ABOUT, FILES
from skinlesion.serving.export.text import latency, table
from skinlesion.serving.model import LesionModel

EXAMPLES = {"age": "45", "sex": '"male"', "localization": '"back"'}
PYTHON = """\
from skinlesion import load_run

model = load_run("{file}")
prediction = model.predict("lesion.jpg"{metadata})
prediction.label, prediction.probabilities"""
ONNX = """\
import numpy as np
import onnxruntime
from PIL import Image
from skinlesion.data.cache import to_square

session = onnxruntime.InferenceSession("{file}")
pixels = np.asarray(Image.open("lesion.jpg").convert("RGB"))
image = to_square(pixels, {size}).transpose(2, 0, 1)[None]  # (1, 3, {size}, {size}) uint8
{metadata}logits, probabilities = session.run(None, {inputs})"""

INPUTS = '{"image": image, "metadata": metadata}'


def files(record: Mapping[str, Any]) -> str:
    """Return the table of the files, and how its numbers were measured."""
    rows = [["file", "for", "MB", "latency, ms", "largest difference from PyTorch"]]
    tried: Mapping[str, Any] | None = None
    for kind, about in record["files"].items():
        tried = about.get("parity", tried)
        rows.append(
            [
                f"`{FILES[kind]}`",
                ABOUT[kind],
                f"{about['mb']:.2f}",
                latency(about),
                _difference(kind, about.get("parity")),
            ]
        )
    said = (
        f"Latency: one image, one thread of {record['made_with']['cpu'] or 'a processor'}, from "
        "pixels to probabilities, median and quartiles."
    )
    if tried:
        what = (
            "images of noise, because the data was not at hand"
            if record["tried_on"] == "noise"
            else f"images of the {record['part']} part"
        )
        sizes = ", ".join(map(str, tried["batches"]))
        said += f" Differences: on {tried['images']} {what}, in batches of {sizes}."
    return f"## Files\n\n{table(rows, left=2)}\n\n{said}"


def _difference(kind: str, parity: Mapping[str, Any] | None) -> str:
    if kind == "int8":
        return "rounded, see Quality"
    if parity is None:
        return "none, the same weights"
    return f"{parity['probability']:.0e} of a probability, {parity['logit']:.0e} of a logit"


def use(model: LesionModel, record: Mapping[str, Any]) -> str:
    """Return how the files are loaded, as code."""
    sections = ["## Use"]
    if "safetensors" in record["files"]:
        names = [name for name in model.properties if name.isidentifier()]
        said = "".join(f", {name}={EXAMPLES.get(name)}" for name in names)
        sections.append(_code(PYTHON.format(file=FILES["safetensors"], metadata=said)))
    for kind in ("onnx", "int8"):
        if kind in record["files"]:
            fill = f"metadata = np.zeros((1, {sum(model.encoder.sizes)}), np.float32)"
            code = ONNX.format(
                file=FILES[kind],
                size=model.size,
                metadata=f"{fill}  # to be filled in as said below\n" if model.properties else "",
                inputs=INPUTS if model.properties else '{"image": image}',
            )
            sections.append(_code(code))
            break
    return "\n\n".join(sections) if sections[1:] else ""


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def contract(model: LesionModel) -> str:
    """Return what goes in and comes out, exactly."""
    size, classes = model.size, model.classes
    sections = [
        "## Input and output",
        f"`image`: (batch, 3, {size}, {size}) uint8, RGB, pixels as decoded: the network "
        "normalises them itself. It is the central square of the photograph, resized bilinearly "
        "without antialiasing and rounded (`torch.nn.functional.interpolate` with "
        "`align_corners=False`; Pillow's `resize` smooths, and differs).",
    ]
    if model.properties:
        rows, place = [["column", "value"]], 0
        for name, known in model.encoder.properties.items():
            last = place + known.size - 1
            columns = f"{place}" if last == place else f"{place}-{last}"
            rows.append([columns, _encoding(name, known, place, model.encoder.missing)])
            place = last + 1
        sections += [f"`metadata`: (batch, {place}) float32:", table(rows, left=2)]
    sections.append(
        f"`logits` and `probabilities`: (batch, {len(classes)}) float32, in the order "
        f"{', '.join(classes)}. The probabilities are softmax(logits / {model.temperature:.4f})."
    )
    return "\n\n".join(sections)


def _encoding(name: str, known: Number | Category, place: int, missing: str) -> str:
    """Return what the columns of a property hold, the first of which is `place`."""
    if isinstance(known, Number):
        return f"({name} - {known.mean:.6g}) / {known.std:.6g}; 0 if unknown"
    named = [
        f"{place + i} {value}" for i, value in enumerate(known.values, 1) if value in known.seen
    ]
    unseen = [value for value in known.values if value not in known.seen]
    others = f"{place} any other value" + (f" ({', '.join(unseen)})" if unseen else "")
    said = f"{name}, one of them 1 and the others 0: {', '.join([others, *named])}"
    return f"{said}; all 0 if unknown or any other value" if missing == "zero" else said
