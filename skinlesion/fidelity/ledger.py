"""The parameter ledger: every parameter that we have and Keras has not, or the other way, by cause.

    python -m skinlesion.fidelity.ledger

Networks are built on the meta device, which counts without computing anything. What Keras has is in
keras_backbones.json, a pin for each backbone of conf/backbone/.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import OmegaConf
from torch import nn
from tqdm import tqdm

from skinlesion.cli import report_errors
from skinlesion.data.ham10000 import CLASSES, PROPERTIES
from skinlesion.errors import SkinlesionError, validated
from skinlesion.fidelity.pins import PINS, pins
from skinlesion.models.backbone import Backbone
from skinlesion.models.classifier import build_classifier
from skinlesion.models.weights import BackboneSpec

CONF = Path(__file__).parents[2] / "conf/backbone"
AGE_NORMALISATION = 3  # Keras' Normalization layer counts its mean, variance and count
TABLE_9 = "mobilenet_v3_large"
CAUSES = {
    "statistics": "running means and variances of batch norms: parameters to Keras, buffers to us",
    "biases": "of a ResNet's convolutions, before batch norms, which take them out: only Keras has",
    "scales": "of Inception-ResNet's batch norms: only timm has",
    "gamma": "of soft attention: in the paper, not in the released code",
    "age": "mean, variance and count of Keras' Normalization layer: in our checkpoint's encoder",
}


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        backbone: the config's name.
        pin: Keras' cut, from keras_backbones.json.
        shape: (C, h, w) of our feature map.
        ours: our parameters.
        theirs: Keras' parameters, its batch norms' statistics included.
        causes: how many of ours come from what, negative where Keras has more.
    """

    backbone: str
    pin: dict[str, Any]
    shape: tuple[int, ...]
    ours: int
    theirs: int
    causes: dict[str, int]

    @property
    def unexplained(self) -> int:
        """Parameters that no cause explains."""
        return self.ours - self.theirs - sum(self.causes.values())

    @property
    def agrees(self) -> bool:
        """Whether shape and parameters are Keras'."""
        return self.shape == tuple(self.pin["shape"]) and self.unexplained == 0


def find_pin(backbone: str, cut: str) -> dict[str, Any]:
    """Return the pin of a cut.

    Raises:
        SkinlesionError: if there is none.
    """
    for pin in pins().get(backbone, {}).get("cuts", ()):
        if pin["cut"] == cut:
            return pin
    raise SkinlesionError(
        f"{backbone} cut at {cut} has no pin: say in {PINS} what Keras has there, or it cannot be "
        "told whether this is the authors' network."
    )


def backbones() -> dict[str, dict[str, Any]]:
    """Return the fields of every file of conf/backbone/, by the backbone's name."""
    files = sorted(CONF.rglob("*.yaml"))
    if not files:
        raise SkinlesionError(f"{CONF}: no backbones. The ledger needs the project's own folder.")
    every: list[Any] = [OmegaConf.to_container(OmegaConf.load(file)) for file in files]
    return {fields["name"]: fields for fields in every}


def network_entry(fields: dict[str, Any], attention: str = "paper") -> Entry:
    """Compare the whole network, with soft attention and metadata."""
    pin = find_pin(fields["name"], fields["cut"])
    with torch.device("meta"):
        network = build_classifier(
            fields, {"name": attention}, {"name": "paper"}, len(CLASSES), PROPERTIES
        )
        shape = network.backbone.feature_shape()
    return Entry(
        backbone=fields["name"],
        pin=pin,
        shape=shape,
        ours=sum(p.numel() for p in network.parameters()),
        theirs=pin["network"]["parameters"],
        causes=_causes_in_the_trunk(network.backbone)
        | {
            "gamma": sum(p.numel() for name, p in network.named_parameters() if "gamma" in name),
            "age": -AGE_NORMALISATION,
        },
    )


def trunk_entry(fields: dict[str, Any]) -> Entry:
    """Compare the backbone up to its cut."""
    pin = find_pin(fields["name"], fields["cut"])
    with torch.device("meta"):
        backbone = Backbone(validated(BackboneSpec, fields, "backbone"))
        shape = backbone.feature_shape()
    return Entry(
        backbone=fields["name"],
        pin=pin,
        shape=shape,
        ours=sum(p.numel() for p in backbone.parameters()),
        theirs=pin["parameters"],
        causes=_causes_in_the_trunk(backbone),
    )


def _causes_in_the_trunk(backbone: Backbone) -> dict[str, int]:
    """Count, module by module, what the two frameworks keep differently."""
    modules = list(backbone.trunk.modules())
    norms = [m for m in modules if isinstance(m, nn.BatchNorm2d)]
    causes = {"statistics": -sum(2 * m.num_features for m in norms)}  # ours: buffers
    match pins()[backbone.spec.name].get("apart"):
        case "convolution_biases":  # before a batch norm, where they are without effect
            without = [m for m in modules if isinstance(m, nn.Conv2d) and m.bias is None]
            causes["biases"] = -sum(m.out_channels for m in without)
        case "batch_norm_scales":
            causes["scales"] = sum(m.weight.numel() for m in norms)
    return causes


def _table(entries: Iterator[Entry], total: int) -> tuple[pd.DataFrame, bool]:
    rows, agree = [], True
    for entry in tqdm(entries, total=total, leave=False, disable=None):
        rows.append(
            {
                "backbone": entry.backbone,
                "Table 9": entry.pin["slice"],
                "index": f"[{entry.pin['index']}]",
                "Keras layer": entry.pin["layer"],
                "our cut": entry.pin["cut"],
                "C x h x w": " x ".join(map(str, entry.shape)),
                "ours": entry.ours,
                "Keras": entry.theirs,
                **{cause: entry.causes.get(cause, 0) for cause in CAUSES},
                "unexplained": entry.unexplained,
            }
        )
        agree &= entry.agrees
    return pd.DataFrame(rows), agree


def _print(title: str, table: pd.DataFrame) -> None:
    written = table.map(lambda value: value if isinstance(value, str) else f"{value:,}")
    print(f"\n{title}\n\n{written.to_string(index=False)}")


def main() -> None:
    """Print the ledger; exit with 1 where something is unexplained."""
    every = backbones()
    for fields in every.values():
        find_pin(fields["name"], fields["cut"])
    trained = [fields for name, fields in every.items() if "derived" not in pins()[name]]
    networks, agree = _table(map(network_entry, trained), len(trained))
    _print(
        "The nine backbones that the authors trained, each with soft attention, metadata and head",
        networks.drop(columns="Table 9"),
    )
    cuts = [every[TABLE_9] | {"cut": pin["cut"]} for pin in pins()[TABLE_9]["cuts"]]
    trunks, agree_too = _table(map(trunk_entry, cuts), len(cuts))
    _print(
        "The cuts of Table 9, the backbone alone",
        trunks.drop(columns=["backbone", "biases", "scales", "gamma", "age"]),
    )
    print("\n" + "\n".join(f"{cause:<12}{meaning}" for cause, meaning in CAUSES.items()))
    if not (agree and agree_too):
        sys.exit("\nerror: a shape or a parameter is not Keras'")
    print("\nNo parameter is unexplained.")


if __name__ == "__main__":
    with report_errors():
        main()
