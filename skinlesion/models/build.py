"""A network from plain values, as they stand in a config and in a checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from skinlesion.errors import SkinlesionError, listing
from skinlesion.models.backbone import Backbone
from skinlesion.models.classifier import Classifier
from skinlesion.models.initialise import initialise
from skinlesion.models.metadata import GessertMLP, MetadataMLP
from skinlesion.models.soft_attention import ReleasedSoftAttention, SoftAttention
from skinlesion.models.weights import BackboneSpec

ATTENTIONS: Mapping[str, Callable[..., nn.Module] | None] = {
    "paper": SoftAttention,
    "released": ReleasedSoftAttention,
    "none": None,
}
BRANCHES: Mapping[str, Callable[..., MetadataMLP | GessertMLP] | None] = {
    "paper": MetadataMLP,
    "gessert": GessertMLP,
    "none": None,
}


def build_classifier(
    backbone: Mapping[str, Any],
    attention: Mapping[str, Any],
    metadata: Mapping[str, Any],
    classes: int,
    properties: Sequence[int],
    dropout: float = 0.5,
    pooling: str = "max",
    hidden: int | None = None,
    initialiser: str = "keras",
) -> Classifier:
    """Build the network, without pretrained weights.

    Args:
        backbone: the fields of a `BackboneSpec`.
        attention: `name` (paper, released, none) and the arguments of that soft attention.
        metadata: `name` (paper, gessert, none) and the arguments of that metadata branch.
        classes: number of classes.
        properties: encoded features of each property of the metadata; empty: there is no metadata.
        dropout: see `Classifier`.
        pooling: see `Classifier`.
        hidden: see `Classifier`.
        initialiser: see `skinlesion.models.initialise`.

    Raises:
        SkinlesionError: if a name or an argument is unknown, the backbone cannot be built, or
            there is a metadata branch and no metadata.
    """
    try:
        attend, attend_options = _choose("attention", attention, ATTENTIONS)
        branch, branch_options = _choose("metadata", metadata, BRANCHES)
        if branch and not properties:
            raise SkinlesionError(
                f"metadata.name={metadata['name']}, but the data has no metadata (data.properties "
                "is empty): metadata=none, or declare its properties."
            )
        network = Classifier(
            Backbone(BackboneSpec.from_config(backbone)),
            attention=(lambda channels: attend(channels, **attend_options)) if attend else None,
            metadata=branch(properties, **branch_options) if branch else None,
            classes=classes,
            dropout=dropout,
            pooling=pooling,
            hidden=hidden,
        )
        initialise(network, initialiser)
    except (TypeError, ValueError, RuntimeError) as error:  # of the layers, for such arguments
        raise SkinlesionError(f"the network cannot be built: {error}") from None
    return network


def _choose(axis: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[Any, dict]:
    options = dict(values)
    name = options.pop("name", None)
    if name not in known:
        raise SkinlesionError(f"{axis}.name={name}: expected one of {', '.join(known)}.")
    if known[name] is None and options:
        raise SkinlesionError(f"{axis}.name=none takes no arguments, found {listing([*options])}.")
    return known[name], options
