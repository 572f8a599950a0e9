"""The model card: what a model is, how it was made, how good it is, and what it is not for.

The text is templates/card.md; its front matter is what the Hugging Face hub reads
(https://huggingface.co/docs/hub/model-cards).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup
from omegaconf import OmegaConf

from skinlesion.data.ham10000 import full_name
from skinlesion.evaluation.measured import Measured
from skinlesion.evaluation.metrics import metric_at
from skinlesion.evaluation.subgroups import run_groups
from skinlesion.runs.directory import RunDirectory
from skinlesion.serving.export import FORMATS
from skinlesion.serving.model import LesionModel
from skinlesion.templates import environment

TEMPLATES = Path(__file__).parents[1] / "templates"
DATA = {"ham10000": "HAM10000", "drawn": "drawn pictures", "own": "own images"}
HUB = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro.auc": "Mean AUC"}


def model_card(
    directory: RunDirectory, model: LesionModel, part: Measured, record: Mapping[str, Any]
) -> str:
    """Return the card of a run's model; the record is what `export.json` holds."""
    text = markdown(
        "card.md",
        card_data=_card_data(part, record).to_yaml(),
        record=record,
        model=model,
        network=model.description["network"],
        part=part,
        calibrated=part.scaled(model.temperature),
        formats=FORMATS,
        config=OmegaConf.to_container(directory.config),
        counts=pd.read_csv(directory.path / "split.csv")["split"].value_counts().to_dict(),
        groups=run_groups(directory, part.predictions),
        leak=directory.read_json("metrics.json")["leak"].get(part.name, {}),
        made=directory.read_json("provenance.json"),
    )
    return str(ModelCard(text))


def markdown(name: str, **context: Any) -> str:
    """Fill a template; what a run says is escaped."""
    templates = environment(TEMPLATES, "md")
    templates.filters |= {
        "code": lambda text: Markup(" ".join(text.replace("`", "'").split())),
        "full_name": full_name,
        "latency": latency,
        "title_of": lambda address: metric_at(address)[1],
    }
    return templates.get_template(name).render(context)


def latency(about: Mapping[str, Any]) -> str:
    """Return a file's latency as text: median and quartiles in ms."""
    if (found := about.get("latency_ms")) is None:
        return "not measured"
    median, low, high = (
        f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
        for value in (found["median"], found["q25"], found["q75"])
    )
    return f"{median} ({low}-{high})"


def _card_data(part: Measured, record: Mapping[str, Any]) -> ModelCardData:
    exported = ["onnx"] if {"onnx", "int8"} & set(record["files"]) else []
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=record["data"],
            dataset_name=DATA[record["data"]],
            dataset_split=part.name,
            metric_type=address.replace(".", "_"),
            metric_name=name,
            metric_value=round(part.value(address), 4),
        )
        for address, name in HUB.items()
    ]
    return ModelCardData(
        license="cc-by-nc-4.0" if record["data"] == "ham10000" else "unknown",
        library_name="skinlesion",
        pipeline_tag="image-classification",
        tags=["dermoscopy", "skin-lesion", "pytorch", *exported, record["backbone"]],
        model_name=record["run"],
        eval_results=results if record["trained"] else None,
    )
