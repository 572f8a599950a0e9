"""DropBlock (Ghiasi et al. 2018, arXiv:1810.12890): squares of feature maps are 0 in training."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from timm.layers import DropBlock2d
from torch import nn

from skinlesion.errors import SkinlesionError, listing, validated


@dataclass(frozen=True, config={"extra": "forbid"})
class DropBlock:
    """The value of backbone.drop_block.

    Attributes:
        after: modules of timm's model without weights, such as an activation.
        size: side of a square, in positions.
        probability: share of the positions that is dropped.
    """

    after: tuple[str, ...]
    size: int = Field(strict=True, ge=1)
    probability: float = Field(ge=0, lt=1)


def add_drop_block(trunk: Any, values: Mapping[str, Any]) -> None:
    """Put it into a cut backbone; SkinlesionError if that has no such module without weights."""
    drop = validated(DropBlock, values, "backbone.drop_block")
    called = [node.target for node in trunk.graph.nodes if node.op == "call_module"]
    free = [name for name in called if not [*trunk.get_submodule(name).parameters()]]
    if absent := [name for name in drop.after if name not in free]:
        raise SkinlesionError(
            f"backbone.drop_block.after: the cut backbone has no module without weights "
            f"{listing(absent)}, but for example {listing(free[:-5:-1])}."
        )
    for name in drop.after:
        block = DropBlock2d(drop.probability, drop.size)
        trunk.set_submodule(name, nn.Sequential(trunk.get_submodule(name), block))
