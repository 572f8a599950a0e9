"""The parameter ledger: every parameter that we have and Keras has not, or the other way, by cause.

Networks are built on the meta device, which counts without computing anything. What Keras has is in
keras_backbones.json, a pin for each cut of the backbones that the authors trained.
"""

from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from skinlesion.cli import CONF
from skinlesion.data.ham10000 import CLASSES, PROPERTIES
from skinlesion.errors import SkinlesionError, validated
from skinlesion.fidelity.cases import PINS, pins
from skinlesion.models.backbone import Backbone
from skinlesion.models.classifier import build_classifier
from skinlesion.models.spec import BackboneSpec

AGE_NORMALISATION = 3  # Keras' Normalization layer counts its mean, variance and count
TABLE_9 = "mobilenet_v3_large"
CAUSES = {
    "statistics": "running means and variances of batch norms: parameters to Keras, buffers to us",
    "biases": "of a ResNet's convolutions, before batch norms, which take them out: only Keras has",
    "scales": "of Inception-ResNet's batch norms: only timm has",
    "gamma": "of soft attention: in the paper, not in the released code",
    "age": "mean, variance and count of Keras' Normalization layer: in our checkpoint's encoder",
}


def backbones() -> dict[str, dict[str, Any]]:
    """Return the fields of every file of conf/backbone/, by the backbone's name."""
    files = sorted((CONF / "backbone").rglob("*.yaml"))
    if not files:
        raise SkinlesionError(f"{CONF}: no backbones. The ledger needs the project's own folder.")
    every: list[Any] = [OmegaConf.to_container(OmegaConf.load(file)) for file in files]
    return {fields["name"]: fields for fields in every}


def count(fields: dict[str, Any], attention: str | None = "paper") -> dict[str, Any]:
    """Compare the network of a backbone's fields and of an attention with Keras'.

    Without an attention it is the backbone alone. Returned is a line of the ledger: our parameters
    and Keras' (its batch norms' statistics included), how many of ours come from which cause
    (negative where Keras has more) and from none; and whether the line `agrees`: that the shape is
    Keras' and no parameter is unexplained.
    """
    cuts = {pin["cut"]: pin for pin in pins().get(fields["name"], {}).get("cuts", ())}
    if (pin := cuts.get(fields["cut"])) is None:
        raise SkinlesionError(
            f"{fields['name']} cut at {fields['cut']} has no pin: say in {PINS} what Keras has "
            "there, or it cannot be told whether this is the authors' network."
        )
    network: Any
    with torch.device("meta"):
        if attention is None:
            network = backbone = Backbone(validated(BackboneSpec, fields, "backbone"))
        else:
            choices = {"name": attention}, {"name": "paper"}
            network = build_classifier(fields, *choices, len(CLASSES), PROPERTIES)
            backbone = network.backbone
        shape = backbone.feature_shape()
    parameters = {name: parameter.numel() for name, parameter in network.named_parameters()}
    causes = dict.fromkeys(CAUSES, 0) | _causes_in_the_trunk(backbone)
    if attention is not None:
        causes["gamma"] = parameters.get("attention.gamma", 0)
        causes["age"] = -AGE_NORMALISATION
    ours = sum(parameters.values())
    theirs = (pin if attention is None else pin["network"])["parameters"]
    unexplained = ours - theirs - sum(causes.values())
    return {
        "backbone": fields["name"],
        "Table 9": pin["slice"],
        "index": f"[{pin['index']}]",
        "Keras layer": pin["layer"],
        "our cut": pin["cut"],
        "C x h x w": " x ".join(map(str, shape)),
        "ours": ours,
        "Keras": theirs,
        **causes,
        "unexplained": unexplained,
        "agrees": unexplained == 0 and shape == tuple(pin["shape"]),
    }


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
