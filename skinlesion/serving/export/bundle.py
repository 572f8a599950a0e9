"""One run's folder of exported files, with a model card and a record of all that was measured."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from skinlesion.data.ham10000 import CLASSES
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import read_predictions
from skinlesion.runs.provenance import provenance
from skinlesion.serving.export import FORMATS
from skinlesion.serving.export.card import model_card
from skinlesion.serving.export.images import AtHand, images_at_hand
from skinlesion.serving.export.measure import (
    Runtime,
    answers,
    latencies,
    parity,
    quality,
    torch_runtime,
)
from skinlesion.serving.model import LesionModel, load_run

RECORD, CARD = "export.json", "README.md"
OURS = {RECORD, CARD, *(known.file for known in FORMATS.values())}


def export_run(
    path: Path,
    out: Path | None,
    formats: Sequence[str],
    data: Path | None,
    repeats: int,
    tell: Callable[[str], object],
) -> tuple[Path, dict[str, Any]]:
    """Export a run; its folder then holds these formats, the card and the record.

    Args:
        path: the run directory.
        out: folder to make the run's folder in; None for `export/` in the run directory.
        formats: of FORMATS.
        data: where the run's images are; None for where it had them.
        repeats: how often each file is timed; 0 for not at all.
        tell: is told what is done, and what cannot be.

    Returns:
        The folder, and what `export.json` in it holds.

    Raises:
        SkinlesionError: if the run cannot be loaded, its images are not in `data`, or an exported
            file does not compute what the network does. What was there before is then left as it
            was.
    """
    if path.is_file():
        raise SkinlesionError(f"{path} is a file: expected a run directory, which says more.")
    model, directory = load_run(path), RunDirectory(path)
    key, seed = path.resolve().parts[-2:]
    name = f"{model.description['network']['backbone']['name']}-{key}-{seed}"
    part = Measured.reported(read_predictions(directory.predictions))
    images = images_at_hand(directory, model, part, data)

    def say(what: str) -> None:
        tell(f"{name}: {what}")

    if images.missing:
        say(f"the images are not at hand: {images.missing}. Parity is checked on noise.")
    if images.training is None and "int8" in formats:
        say(f"no {FORMATS['int8'].file}, which is calibrated on training images.")
        formats = [kind for kind in formats if kind != "int8"]
    record = {"run": name} | _record(directory, model, part, images)
    measured = part if record["trained"] else None
    folder = path / "export" if out is None else out / name
    with _replacing_folder(folder) as beside:
        files = record["files"] = _write_files(model, measured, images, formats, beside, say)
        if repeats:
            one = images.held_out.batch(0, 1)
            runs = {kind: open_file(kind, beside, model, threads=1) for kind in files}
            calls = {kind: partial(run, *one) for kind, run in runs.items()}
            for kind, found in latencies(calls, repeats).items():
                files[kind]["latency_ms"] = found
        card = model_card(directory, model, part, record)
        (beside / CARD).write_text(card, encoding="utf-8")
        (beside / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return folder, record


def open_file(kind: str, folder: Path, model: LesionModel, threads: int | None = None) -> Runtime:
    """Return an exported file as it runs.

    Args:
        kind: one of FORMATS.
        folder: where the file is.
        model: the model that was exported.
        threads: how many to use; None for the runtime's own choice.
    """
    path = folder / FORMATS[kind].file
    if kind == "safetensors":
        return torch_runtime(load_run(path))
    if kind == "phone":
        from skinlesion.serving.export.phone import pte_runtime

        return pte_runtime(path, bool(model.properties), threads)
    from skinlesion.serving.export.onnx import onnx_runtime

    return onnx_runtime(path, threads)


def _write_files(
    model: LesionModel,
    part: Measured | None,
    images: AtHand,
    formats: Sequence[str],
    folder: Path,
    say: Callable[[str], object],
) -> dict[str, dict[str, Any]]:
    """Write the files, test them, and return what was found, by format.

    `part` is None for a run whose quality is not worth measuring.
    """
    files: dict[str, dict[str, Any]] = {}
    found = {"safetensors": part}
    for kind, known in FORMATS.items():
        if kind not in formats and not (kind == "onnx" and "int8" in formats):  # made of it
            continue
        path = folder / known.file
        say(f"exporting {path.name}")
        about = files[kind] = _write_file(kind, path, model, images)
        run = open_file(kind, folder, model)
        if kind != "int8":
            about["parity"] = parity(path.name, torch_runtime(model), run, images.held_out)
        if kind in ("onnx", "int8") and part is not None and not images.missing:
            found[kind] = answers(run, images.held_out, part, f"measuring {path.name}")
        measured = found.get(kind)
        about["quality"] = quality(measured) if measured else None
        if kind == "int8" and measured and (exact := found["onnx"]):
            about["against_float32"] = _cost(exact, measured)
        about["mb"] = path.stat().st_size / 1e6
    for kind in set(files) - set(formats):
        (folder / FORMATS[kind].file).unlink()
        del files[kind]
    return files


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


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside, and put it in the place of this one once the block has succeeded.

    What lies in the old one and is not ours is kept. Whatever happens, nothing is left beside.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        for path in folder.iterdir() if folder.exists() else ():
            if path.name not in OURS:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
