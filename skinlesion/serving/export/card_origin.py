"""The model card's part on origin: data, training, limits and licence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from skinlesion.serving.export.text import percent, table
from skinlesion.runs.directory import RunDirectory

SEEN = {
    "val": "validation part, which also selected the checkpoint",
    "test": "test part, which selected nothing",
}
PROTOCOLS = {"paper": "by image, as the paper does", "lesion": "by lesion, none in two parts"}
LIMITS = (
    "It is no medical device: neither tested nor approved for diagnosis, triage or screening.",
    "It gives one of its classes for any picture, also one that shows none of them, no lesion or "
    "no skin. There is no class for anything else.",
    "Its probabilities were checked on images like those it was trained on, and on no others.",
    "One seed of training: another one comes out differently.",
)
LIMITS_OF_HAM10000 = (
    "It is for dermoscopic images, taken through a dermatoscope, and not for ordinary photographs.",
    "HAM10000 comes from one hospital in Austria and one practice in Australia, and its table does "
    "not say which skin types are in it: how the model does on other populations, devices and "
    "clinics is not known.",
)


def data(directory: RunDirectory, record: Mapping[str, Any]) -> str:
    """Return what it was trained and measured on, and the leak."""
    metrics, part = directory.read_json("metrics.json"), record["part"]
    source = {
        "ham10000": "HAM10000 (Tschandl, Rosendahl, Kittler 2018, doi:10.7910/DVN/DBW86T): "
        "dermoscopic images from Vienna, Austria, and Queensland, Australia",
        "drawn": "Pictures drawn by a program (`data=demo`), no photographs of skin",
        "own": f"Images with the table {', '.join(directory.config.data.tables)}",
    }[record["data"]]
    counts = pd.read_csv(directory.path / "split.csv")["split"].value_counts()
    parts = ", ".join(f"{count:,} images in {name}" for name, count in counts.items())
    leak, protocol = metrics["leak"].get(part, {}), metrics["protocol"]
    said = (
        f"**Leak: {leak['leaked']:,} of the {leak['images']:,} images of the {part} part "
        f"({percent(leak['share'])}) show a lesion of which another photograph was trained on, so "
        "that its metrics are better than on new lesions.**"
        if leak.get("leaked")
        else f"No lesion of the {part} part was trained on."
    )
    return (
        f"## Data\n\n{source}. {parts}. Split `{protocol}`: {PROTOCOLS.get(protocol, protocol)}. "
        f"{said} Metrics are those of the {SEEN[part]}."
    )


def training(directory: RunDirectory, record: Mapping[str, Any]) -> str:
    """Return the table of how it was trained."""
    config, made = directory.config, directory.read_json("provenance.json")
    commits = ", ".join(dict.fromkeys(commit or "unknown" for commit in made["commits"]))
    minutes = made["training_seconds"] / 60
    values = {
        "commit": commits + (", with uncommitted changes" if made["dirty"] else ""),
        "weights to begin with": _weights(config, made),
        "epochs": f"{record['epochs']} of at most {config.trainer.max_epochs}",
        "batch size": config.batch_size,
        "optimizer": _arguments(config.optimizer),
        "schedule": _arguments(config.scheduler),
        "loss": _arguments(config.loss),
        "augmentation": _arguments(config.augment),
        "dropout": config.dropout,
        "seed": config.seed,
        "hardware": f"{made['gpu'] or made['cpu']}, {minutes:.0f} minutes",
        "torch": made["packages"]["torch"],
    }
    rows = [["", "value"], *([name, str(value)] for name, value in values.items())]
    return f"## Training\n\n{table(rows, left=2)}"


def limits(directory: RunDirectory, record: Mapping[str, Any]) -> str:
    """Return what it is not for, and how its metrics mislead."""
    points = [*LIMITS, *(LIMITS_OF_HAM10000 if record["data"] == "ham10000" else ())]
    if record["data"] == "drawn":
        points.append("The pictures are drawn: its metrics say nothing about skin.")
    if directory.read_json("metrics.json")["leak"].get(record["part"], {}).get("leaked"):
        points.append("Its metrics are raised by the leak described under Data.")
    if record["part"] == "val":
        points.append("The images it is measured on also selected the checkpoint.")
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points)


def licence(directory: RunDirectory, record: Mapping[str, Any]) -> str:
    """Return what is known of licences, and no more."""
    images = {
        "ham10000": "HAM10000 is licensed CC BY-NC 4.0, for non-commercial use with attribution: "
        "keep to it with what was trained on it.",
        "drawn": "The pictures were drawn by this software.",
        "own": "The licence of the training images is not recorded here: ask whoever holds them.",
    }[record["data"]]
    weights = (
        "Training began from scratch."
        if directory.config.weights == "none"
        else "The weights that training began with have a licence of their own, which is not "
        "recorded here."
    )
    return f"## Licence\n\n{images} {weights}"


def _weights(config: DictConfig, made: Mapping[str, Any]) -> str:
    if config.weights == "none":
        return "none, from scratch"
    if config.weights == "imagenet":
        return f"ImageNet, timm/{config.backbone.timm_model}.{config.backbone.pretrained}"
    return f"{Path(config.weights).name}, SHA-256 {made['weights']}"


def _arguments(node: DictConfig | None) -> str:
    """Return what a node of the config instantiates, with its arguments."""
    if node is None:
        return "none"
    values: Any = OmegaConf.to_container(node, resolve=True)
    name = str(values.get("_target_", values.get("name", ""))).rpartition(".")[2]
    said = ", ".join(f"{k} {v}" for k, v in values.items() if k != "name" and k[0] != "_")
    return f"{name} ({said})" if said else name
