"""One run's folder of exported files, with a model card and a record of all that was measured."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from skinlesion.data.ham10000 import CLASSES
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.files import replacing_folder
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import read_predictions
from skinlesion.runs.provenance import provenance
from skinlesion.serving.export import FORMATS, measure
from skinlesion.serving.export.card import model_card
from skinlesion.serving.export.measure import AtHand, Runtime
from skinlesion.serving.model import LesionModel, load_run

RECORD, CARD = "export.json", "README.md"
OURS = {RECORD, CARD, *(known.file for known in FORMATS.values())}


def export_run(
    run: Path, out: Path | None, formats: Sequence[str], data: Path | None, repeats: int
) -> tuple[Path, dict[str, Any]]:
    """Export a run in some of FORMATS; return its folder, with the card, and the record.

    The folder is made in `out`; None: `export/` in the run directory. The run's images are in
    `data`; None: where it had them. Each file is timed `repeats` times, or not at all.

    Raises:
        SkinlesionError: if the run cannot be loaded, its images are not in `data`, or a file does
            not compute what the network does. What was there before is then left as it was.
    """
    if run.is_file():
        raise SkinlesionError(f"{run} is a file: expected a run directory, which says more.")
    model, directory = load_run(run), RunDirectory(run)
    key, seed = run.resolve().parts[-2:]
    name = f"{model.description['network']['backbone']['name']}-{key}-{seed}"
    part = Measured.reported(read_predictions(directory.predictions))
    images = measure.images_at_hand(directory, model, part, data)

    def say(what: str) -> None:
        tqdm.write(f"{name}: {what}", file=sys.stderr)

    if images.missing:
        say(f"the images are not at hand: {images.missing}. Parity is checked on noise.")
    if images.training is None and "int8" in formats:
        say(f"no {FORMATS['int8'].file}, which is calibrated on training images.")
        formats = [kind for kind in formats if kind != "int8"]
    record = {"run": name} | _record(directory, model, part, images)
    folder = run / "export" if out is None else out / name
    with replacing_folder(folder, OURS) as beside:
        measured = {"safetensors": part} if record["trained"] else {}
        held_out, expected = images.held_out, measure.torch_runtime(model)
        for kind in formats:
            path = beside / FORMATS[kind].file
            say(f"exporting {path.name}")
            about = record["files"][kind] = _write_file(kind, path, model, images)
            file = _open_file(kind, path, model)
            if kind != "int8":
                about["parity"] = measure.parity(path.name, expected, file, held_out)
            if kind in ("onnx", "int8") and record["trained"] and not images.missing:
                measured[kind] = measure.answers(file, held_out, part, path.name)
            about["quality"] = measure.quality(measured[kind]) if kind in measured else None
            if kind == "int8" and kind in measured:
                about["against_float32"] = _cost(measured["onnx"], measured["int8"])
            about["mb"] = path.stat().st_size / 1e6
        if repeats:
            one = held_out.batch(0, 1)
            calls = {
                kind: partial(_open_file(kind, beside / FORMATS[kind].file, model, threads=1), *one)
                for kind in formats
            }
            for kind, found in measure.latencies(calls, repeats).items():
                record["files"][kind]["latency_ms"] = found
        card = model_card(directory, model, part, record)
        (beside / CARD).write_text(card, encoding="utf-8")
        (beside / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return folder, record


def _write_file(kind: str, path: Path, model: LesionModel, images: AtHand) -> dict[str, Any]:
    """Write a file, and return what was done to the model, if anything."""
    if kind == "safetensors":
        model.save(path)
    elif kind == "phone":
        from skinlesion.serving.export.phone import write_pte

        write_pte(model, path)
    else:
        from skinlesion.serving.export.onnx import quantize, write_onnx

        if kind == "int8":
            assert images.training is not None  # or int8 is not asked for
            source = path.with_name(FORMATS["onnx"].file)
            return {"quantisation": quantize(source, path, images.training)}
        write_onnx(model, path)
    return {}


def _open_file(kind: str, path: Path, model: LesionModel, threads: int | None = None) -> Runtime:
    """Return an exported file of a model as it runs; None is the runtime's own choice."""
    if kind == "safetensors":
        return measure.torch_runtime(load_run(path))
    if kind == "phone":
        from skinlesion.serving.export.phone import pte_runtime

        return pte_runtime(path, bool(model.properties), threads)
    from skinlesion.serving.export.onnx import onnx_runtime

    return onnx_runtime(path, threads)


def _cost(exact: Measured, rounded: Measured) -> dict[str, float]:
    """Return what eight bits change."""
    same = exact.probabilities.argmax(axis=1) == rounded.probabilities.argmax(axis=1)
    metrics = ("accuracy", "balanced_accuracy")
    differences = {name: rounded.value(name) - exact.value(name) for name in metrics}
    return differences | {"same_answer": float(same.mean())}


def _record(
    directory: RunDirectory, model: LesionModel, part: Measured, images: AtHand
) -> dict[str, Any]:
    config, made = directory.config, provenance()
    for package in ("onnx", "onnxruntime", "onnxscript", "executorch"):
        made["packages"][package] = version(package) if find_spec(package) else None
    ham10000 = [*config.data.tables] == ["HAM10000_metadata"] and model.classes == CLASSES
    drawn = config.data.get("demo") is not None
    limits = [config.trainer.get(f"limit_{of}_batches", 1.0) for of in ("train", "val", "predict")]
    return {
        "backbone": model.description["network"]["backbone"]["name"],
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "input_size": model.size,
        "classes": [*model.classes],
        "temperature": model.temperature,
        # On all its images: for Lightning 1.0 is all batches, and 1 is one (`debug=fast`).
        "trained": all(isinstance(limit, float) and limit == 1.0 for limit in limits),
        "data": "drawn" if drawn else "ham10000" if ham10000 else "own",
        "epochs": directory.read_json("provenance.json")["epochs"],
        "part": part.name,
        "images": len(part.y),
        "tested_on": "noise" if images.missing else "held-out images",
        "files": {},
        "provenance": made,
    }
