"""One run's folder of exported files, with a model card and a record of all that was measured."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion.data.ham10000 import CLASSES
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import Predictions, read_predictions
from skinlesion.files import replacing
from skinlesion.serving.export.card import model_card
from skinlesion.serving.export.formats import FILES
from skinlesion.serving.export.measure import latencies, megabytes, predict_all, quality
from skinlesion.serving.export.runtimes import (
    BATCHES,
    Runtime,
    check_parity,
    onnx_runtime,
    torch_runtime,
)
from skinlesion.serving.export.trial import Trial, drawn, find_trial
from skinlesion.serving.model import LesionModel, load_run
from skinlesion.runs.provenance import provenance
from skinlesion.runs.directory import RunDirectory

RECORD = "export.json"
CARD = "README.md"
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "executorch")


@dataclass(frozen=True)
class Export:
    """A run that was exported.

    Attributes:
        directory: the run.
        model: its model.
        folder: where the files are.
        trial: what the model was tried on.
        record: what `export.json` holds.
    """

    directory: RunDirectory
    model: LesionModel
    folder: Path
    trial: Trial
    record: dict[str, Any]

    def write(self) -> None:
        """Write the record and the card, which say the same."""
        card = model_card(self.directory, self.model, self.record)
        text = json.dumps(self.record, indent=2) + "\n"
        for name, content in ((RECORD, text), (CARD, card)):
            with replacing(self.folder / name) as path:
                path.write_text(content, encoding="utf-8")


def export_run(
    path: Path,
    out: Path | None,
    formats: Sequence[str],
    data: Path | None,
    say: Callable[[str], object],
) -> Export:
    """Export a run; its folder then holds these formats, the card and the record.

    Args:
        path: the run directory.
        out: folder to make the run's folder in; None for `export/` in the run directory.
        formats: of FILES.
        data: where the run's images are; None for where it had them.
        say: is told what is done, and what cannot be.

    Raises:
        SkinlesionError: if the run cannot be loaded, its images are not in `data`, or an exported
            file does not compute what the network does. What was there before is then left as it
            was.
    """
    if path.is_file():
        raise SkinlesionError(f"{path} is a file: expected a run directory, which says more.")
    model = load_run(path)
    directory = RunDirectory(path)
    key, seed = path.resolve().parts[-2:]
    name = f"{model.description['network']['backbone']['name']}-{key}-{seed}"
    folder = path / "export" if out is None else out / name
    predictions = read_predictions(directory.predictions)
    part = predictions.part("test" if "test" in predictions.splits else "val")
    trial = find_trial(directory, model, part, data)

    def tell(what: str) -> None:
        say(f"{name}: {what}")

    if trial.missing:
        tell(f"the images are not at hand: {trial.missing}. Parity is checked on noise.")
    if trial.train is None and "int8" in formats:
        tell(f"no {FILES['int8']}, which is calibrated on training images.")
        formats = [wanted for wanted in formats if wanted != "int8"]
    record = _record(directory, model, name, part, trial)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        record["files"] = _Making(directory, model, part, trial, staging, tell).make(formats)
        folder.mkdir(exist_ok=True)
        for kind, file in FILES.items():
            if kind in record["files"]:
                os.replace(staging / file, folder / file)
            else:  # of an earlier call; the card would not know it
                (folder / file).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    export = Export(directory, model, folder, trial, record)
    export.write()
    return export


def time_exports(exports: Sequence[Export], repeats: int) -> None:
    """Measure how long one image takes with each file, all in turn, and write it down.

    Args:
        exports: whose records and cards are written again.
        repeats: how often each is called.
    """
    calls: dict[tuple[Path, str], Callable[[], object]] = {}
    for export in exports:
        image, metadata = export.trial.held_out.batch(0, 1)
        for kind in export.record["files"]:
            run = open_runtime(kind, export.folder, export.model, threads=1)
            calls[export.folder, kind] = partial(run, image, metadata)
    found = latencies(calls, repeats)
    for export in exports:
        for kind, about in export.record["files"].items():
            about["latency_ms"] = found[export.folder, kind]
        export.write()


def open_runtime(
    kind: str, folder: Path, model: LesionModel, threads: int | None = None
) -> Runtime:
    """Return an exported file as it runs; for `safetensors`, the model that was loaded from it.

    Args:
        kind: one of FILES.
        folder: where the file is.
        model: the model that was exported.
        threads: how many to use; None for the runtime's own choice.
    """
    if kind == "safetensors":
        return torch_runtime(model)
    if kind == "phone":
        from skinlesion.serving.export.phone import pte_runtime

        return pte_runtime(folder / FILES[kind], bool(model.properties), threads)
    return onnx_runtime(folder / FILES[kind], threads)


def was_trained(directory: RunDirectory) -> bool:
    """Return whether the run saw all its images in every epoch, as `debug=fast` does not."""
    trainer = directory.config.trainer
    limits = [trainer.get(f"limit_{part}_batches", 1.0) for part in ("train", "val", "predict")]
    # For Lightning 1.0 is all batches, and 1 is one.
    whole = all(isinstance(limit, float) and limit == 1.0 for limit in limits)
    return whole and not trainer.get("fast_dev_run", False)


@dataclass(frozen=True)
class _Making:
    """Writes the files into a folder, tries each, and notes what came out."""

    directory: RunDirectory
    model: LesionModel
    part: Predictions
    trial: Trial
    folder: Path
    say: Callable[[str], object]

    def make(self, formats: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return format → what was found."""
        steps = {"safetensors": self._safetensors, "phone": self._phone}
        found = {kind: step() for kind, step in steps.items() if kind in formats}
        if "onnx" in formats or "int8" in formats:
            found["onnx"], exact = self._onnx()
            if "int8" in formats:
                found["int8"] = self._int8(exact)
        found = {kind: found[kind] for kind in FILES if kind in formats}
        for kind, about in found.items():
            about["mb"] = megabytes(self.folder / FILES[kind])
        return found

    def _safetensors(self) -> dict[str, Any]:
        path = self.folder / FILES["safetensors"]
        self.model.save(path)
        few = self.trial.held_out.batch(0, max(BATCHES))
        again = torch_runtime(load_run(path))
        check_parity(path.name, torch_runtime(self.model), again, *few)
        if not was_trained(self.directory):
            return {"quality": None}
        found = quality(self.part.y, self.part.probabilities, self.model.classes)
        return {"quality": found}

    def _onnx(self) -> tuple[dict[str, Any], np.ndarray | None]:
        from skinlesion.serving.export.onnx import write_onnx

        self.say(f"exporting {FILES['onnx']}")
        write_onnx(self.model, self.folder / FILES["onnx"])
        found = self._parity("onnx")
        exact = self._predict("onnx")
        return found | {"quality": self._quality(exact)}, exact

    def _int8(self, exact: np.ndarray | None) -> dict[str, Any]:
        from skinlesion.serving.export.quantize import IMAGES, quantize

        assert self.trial.train is not None  # or int8 is not made
        source, path = self.folder / FILES["onnx"], self.folder / FILES["int8"]
        found: dict[str, Any] = {
            "quantisation": quantize(source, path, drawn(self.trial.train, IMAGES))
        }
        rounded = self._predict("int8")
        before, after = self._quality(exact), self._quality(rounded)
        found["quality"] = after
        if exact is not None and rounded is not None and before and after:
            found["against_float32"] = {
                "accuracy": after["accuracy"] - before["accuracy"],
                "balanced_accuracy": after["balanced_accuracy"] - before["balanced_accuracy"],
                "same_answer": float((exact.argmax(axis=1) == rounded.argmax(axis=1)).mean()),
            }
        return found

    def _phone(self) -> dict[str, Any]:
        from skinlesion.serving.export.phone import write_pte

        self.say(f"exporting {FILES['phone']}")
        write_pte(self.model, self.folder / FILES["phone"])
        return self._parity("phone") | {"quality": None}

    def _parity(self, kind: str) -> dict[str, Any]:
        few = self.trial.held_out.batch(0, max(BATCHES))
        run = open_runtime(kind, self.folder, self.model)
        found = check_parity(FILES[kind], torch_runtime(self.model), run, *few)
        about = {"images": len(few[0]), "batches": [n for n in BATCHES if n <= len(few[0])]}
        return {"parity": found._asdict() | about}

    def _predict(self, kind: str) -> np.ndarray | None:
        """Return the probabilities of the held-out images, if they are at hand and worth it."""
        if self.trial.missing or not was_trained(self.directory):
            return None
        run = open_runtime(kind, self.folder, self.model)
        return predict_all(run, self.trial.held_out, f"measuring {FILES[kind]}")

    def _quality(self, probabilities: np.ndarray | None) -> dict[str, Any] | None:
        if probabilities is None:
            return None
        return quality(self.trial.held_out.labels, probabilities, self.model.classes)


def _data(directory: RunDirectory, model: LesionModel) -> str:
    """Return what the run was trained on: `ham10000`, `drawn` or `own`."""
    config = directory.config.data
    if config.get("demo") is not None:
        return "drawn"
    ham10000 = [*config.tables] == ["HAM10000_metadata"] and model.classes == CLASSES
    return "ham10000" if ham10000 else "own"


def _record(
    directory: RunDirectory, model: LesionModel, name: str, part: Predictions, trial: Trial
) -> dict[str, Any]:
    made = provenance()
    for package in PACKAGES:
        try:
            made["packages"][package] = version(package)
        except PackageNotFoundError:
            made["packages"][package] = None
    return {
        "run": name,
        "backbone": model.description["network"]["backbone"]["name"],
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "input_size": model.size,
        "classes": [*model.classes],
        "temperature": model.temperature,
        "trained": was_trained(directory),
        "data": _data(directory, model),
        "epochs": directory.read_json("provenance.json")["epochs"],
        "part": part.splits[0],
        "images": len(part.y),
        "tried_on": "noise" if trial.missing else "held-out images",
        "files": {},
        "made_with": made,
    }
