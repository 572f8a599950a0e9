"""One run's folder of exported files, with a model card and a record of all that was measured."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from skinlesion.data.ham10000 import CLASSES
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.files import replacing
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import read_predictions
from skinlesion.runs.provenance import provenance
from skinlesion.serving.export.card import model_card
from skinlesion.serving.export.formats import FORMATS
from skinlesion.serving.export.measure import AtHand, images_at_hand, latencies, measure, quality
from skinlesion.serving.export.parity import BATCHES, Runtime, check_parity, torch_runtime
from skinlesion.serving.model import LesionModel, load_run

RECORD, CARD = "export.json", "README.md"
OURS = {RECORD, CARD, *(known.file for known in FORMATS.values())}


@dataclass(frozen=True)
class Export:
    """A run that is exported.

    Attributes:
        directory: the run.
        model: its model.
        part: its reported part.
        images: what the files are tested on.
        record: what `export.json` holds.
        folder: where the files are in the end.
    """

    directory: RunDirectory
    model: LesionModel
    part: Measured
    images: AtHand
    record: dict[str, Any]
    folder: Path

    def write(self, folder: Path) -> None:
        """Write the record and the card, which say the same."""
        card = model_card(self.directory, self.model, self.part, self.record)
        for name, text in ((RECORD, json.dumps(self.record, indent=2) + "\n"), (CARD, card)):
            with replacing(folder / name) as path:
                path.write_text(text, encoding="utf-8")


def export_run(
    path: Path,
    out: Path | None,
    formats: Sequence[str],
    data: Path | None,
    tell: Callable[[str], object],
) -> Export:
    """Export a run; its folder then holds these formats, the card and the record.

    Args:
        path: the run directory.
        out: folder to make the run's folder in; None for `export/` in the run directory.
        formats: of FORMATS.
        data: where the run's images are; None for where it had them.
        tell: is told what is done, and what cannot be.

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
    if images.missing:
        tell(f"{name}: the images are not at hand: {images.missing}. Parity is checked on noise.")
    if images.training is None and "int8" in formats:
        tell(f"{name}: no {FORMATS['int8'].file}, which is calibrated on training images.")
        formats = [kind for kind in formats if kind != "int8"]
    folder = path / "export" if out is None else out / name
    record = _record(directory, model, part, images, name)
    export = Export(directory, model, part, images, record, folder)
    with _replacing_folder(folder) as beside:
        answers: dict[str, Measured] = {}
        for kind, known in FORMATS.items():
            if kind in formats or (kind == "onnx" and "int8" in formats):  # which is made of it
                tell(f"{name}: {known.file}")
                record["files"][kind] = _write_file(kind, export, beside, answers)
        for kind in set(record["files"]) - set(formats):
            del record["files"][kind]
            (beside / FORMATS[kind].file).unlink()
        export.write(beside)
    return export


def time_exports(exports: Sequence[Export], repeats: int) -> None:
    """Measure how long one image takes with each file, all in turn, and write it down.

    Args:
        exports: whose records and cards are written again.
        repeats: how often each is called.
    """
    calls: dict[tuple[Path, str], Callable[[], object]] = {}
    for export in exports:
        image, metadata = export.images.held_out.batch(0, 1)
        for kind in export.record["files"]:
            run = open_runtime(kind, export.folder, export.model, threads=1)
            calls[export.folder, kind] = partial(run, image, metadata)
    found = latencies(calls, repeats)
    for export in exports:
        for kind, about in export.record["files"].items():
            about["latency_ms"] = found[export.folder, kind]
        export.write(export.folder)


def open_runtime(
    kind: str, folder: Path, model: LesionModel, threads: int | None = None
) -> Runtime:
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


def _write_file(
    kind: str, export: Export, folder: Path, answers: dict[str, Measured]
) -> dict[str, Any]:
    """Write a file into a folder, test it, and return what was found.

    `answers` holds the reported part as the files written so far answer it.
    """
    model, part, images, trained = (
        export.model,
        export.part,
        export.images,
        export.record["trained"],
    )
    path, about = folder / FORMATS[kind].file, {}
    if kind == "safetensors":
        model.save(path)
        answers[kind] = part
    elif kind == "phone":
        from skinlesion.serving.export.phone import write_pte

        write_pte(model, path)
    else:
        from skinlesion.serving.export.onnx import quantize, write_onnx

        if kind == "onnx":
            write_onnx(model, path)
        else:
            assert images.training is not None  # or int8 is not asked for
            source = folder / FORMATS["onnx"].file
            about["quantisation"] = quantize(source, path, images.training)
    run = open_runtime(kind, folder, model)
    if kind != "int8":
        few = images.held_out.batch(0, max(BATCHES))
        about["parity"] = check_parity(path.name, torch_runtime(model), run, *few) | {
            "images": len(few[0]),
            "batches": [size for size in BATCHES if size <= len(few[0])],
        }
    if kind in ("onnx", "int8") and trained and not images.missing:
        answers[kind] = measure(run, images.held_out, part, f"measuring {path.name}")
    about["quality"] = quality(answers[kind]) if trained and kind in answers else None
    if kind == "int8" and kind in answers:
        about["against_float32"] = _cost(answers["onnx"], answers["int8"])
    return about | {"mb": path.stat().st_size / 1e6}


def _cost(exact: Measured, rounded: Measured) -> dict[str, float]:
    """Return what eight bits change."""
    same = exact.probabilities.argmax(axis=1) == rounded.probabilities.argmax(axis=1)
    metrics = ("accuracy", "balanced_accuracy")
    differences = {name: rounded.value(name) - exact.value(name) for name in metrics}
    return differences | {"same_answer": float(same.mean())}


def _record(
    directory: RunDirectory, model: LesionModel, part: Measured, images: AtHand, name: str
) -> dict[str, Any]:
    config, made = directory.config, provenance()
    for package in ("onnx", "onnxruntime", "onnxscript", "executorch"):
        made["packages"][package] = version(package) if find_spec(package) else None
    ham10000 = [*config.data.tables] == ["HAM10000_metadata"] and model.classes == CLASSES
    drawn = config.data.get("demo") is not None
    limits = [
        config.trainer.get(f"limit_{name}_batches", 1.0) for name in ("train", "val", "predict")
    ]
    return {
        "run": name,
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
