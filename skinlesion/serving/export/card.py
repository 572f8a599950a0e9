"""The model card: what a model is, how it was made, how good it is, and what it is not for.

Its front matter is what the Hugging Face hub reads (https://huggingface.co/docs/hub/model-cards).
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from skinlesion.evaluation.bootstrap import value_at
from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import Predictions, read_predictions
from skinlesion.serving.answer import full_name
from skinlesion.serving.export.card_origin import data, licence, limits, training
from skinlesion.serving.export.card_quality import calibration, quality, rounded
from skinlesion.serving.export.card_use import contract, files, use
from skinlesion.serving.model import LesionModel
from skinlesion.runs.directory import RunDirectory

DATA = {"ham10000": "HAM10000", "drawn": "drawn pictures", "own": "own images"}
HUB = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro.auc": "Mean AUC"}


def model_card(directory: RunDirectory, model: LesionModel, record: Mapping[str, Any]) -> str:
    """Return the text of a model card.

    Args:
        directory: the run.
        model: its model.
        record: what `export.json` holds.
    """
    part = read_predictions(directory.predictions).part(record["part"])
    sections = [
        _front_matter(part, record),
        f"# {record['run']}",
        _what(model, record),
        files(record),
        use(model, record),
        contract(model),
        data(directory, record),
        training(directory, record),
        quality(part, record),
        rounded(record),
        calibration(part, model, record),
        limits(directory, record),
        licence(directory, record),
        _made(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(part: Predictions, record: Mapping[str, Any]) -> str:
    exported = ["onnx"] if {"onnx", "int8"} & set(record["files"]) else []
    values: dict[str, Any] = {
        "license": "cc-by-nc-4.0" if record["data"] == "ham10000" else "unknown",
        "library_name": "skinlesion",
        "pipeline_tag": "image-classification",
        "tags": ["dermoscopy", "skin-lesion", "pytorch", *exported, record["backbone"]],
    }
    if record["trained"]:
        measured = evaluate(part.y, part.probabilities, part.classes)
        metrics = [
            {
                "type": address.replace(".", "_"),
                "name": name,
                "value": round(value_at(measured, address), 4),
            }
            for address, name in HUB.items()
        ]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {
                "name": DATA[record["data"]],
                "type": record["data"],
                "split": record["part"],
            },
            "metrics": metrics,
        }
        values["model-index"] = [{"name": record["run"], "results": [result]}]
    return f"---\n{OmegaConf.to_yaml(OmegaConf.create(values))}---"


def _what(model: LesionModel, record: Mapping[str, Any]) -> str:
    network = model.description["network"]
    attention = network["attention"]["name"]
    parts = [
        f"{record['backbone']} up to the node `{network['backbone']['cut']}`",
        "no soft attention" if attention == "none" else f"soft attention ({attention})",
        f"a branch for {', '.join(model.properties)}" if model.properties else "no metadata",
    ]
    warning = "**For research. It is no medical device and must not guide care.**"
    if not record["trained"]:
        warning += (
            " **It is not trained: its run saw a few batches, and its answers mean nothing.**"
        )
    return (
        f"{warning}\n\nA classifier of skin lesions from *skinlesion*, an experiment suite that "
        "reproduces *Balanced and Optimized Skin Cancer Classification Model using Soft Attention "
        f"and Metadata* (Hoang Khoi Do, 2022): {', '.join(parts)}; {record['parameters']:,} "
        f"parameters. Its classes: {', '.join(map(full_name, model.classes))}."
    )


def _made(record: Mapping[str, Any]) -> str:
    packages, commit = record["made_with"]["packages"], record["made_with"]["commit"]
    names = ("skinlesion", "torch", "timm", "onnx", "onnxruntime", "executorch")
    used = [f"{name} {packages[name]}" for name in names if packages.get(name)]
    at = f", commit {commit}" if commit else ""
    return f"Exported with {', '.join(used)}{at}. All that was measured: `export.json`."
