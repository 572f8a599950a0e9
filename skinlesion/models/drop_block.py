"""DropBlock (Ghiasi et al. 2018, arXiv:1810.12890): squares of feature maps are 0 in training."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from timm.layers import DropBlock2d
from torch import Tensor, nn

from skinlesion.errors import SkinlesionError, listing, validated


@dataclass(frozen=True, config={"extra": "forbid"})
class DropBlock:
    """The value of backbone.drop_block.

    Attributes:
        after: modules of timm's model without weights, such as an activation.
        size: side of a square, in positions.
        probability: share of the positions that is dropped.
        ramp: steps in which it grows to that from 0; None: it is so from the first.
    """

    after: tuple[str, ...]
    size: int = Field(strict=True, ge=1)
    probability: float = Field(ge=0, lt=1)
    ramp: int | None = Field(default=None, strict=True, ge=1)


class GrowingDropBlock(DropBlock2d):
    """timm's, behind the module `name`, with what `drop` says.

    Raises:
        SkinlesionError: if it is given no feature map; in evaluation too, before anything is long.
    """

    def __init__(self, name: str, drop: DropBlock) -> None:
        super().__init__(drop.probability, drop.size)
        self.name, self.drop = name, drop

    def at_step(self, step: int) -> None:
        """Set the probability of a step, counted from 0."""
        share = min(step / self.drop.ramp, 1.0) if self.drop.ramp else 1.0
        self.drop_prob = self.drop.probability * share

    def forward(self, t: Tensor) -> Tensor:
        """Return a feature map (B, C, h, w), in training with squares of it 0."""
        if t.ndim != 4:
            raise SkinlesionError(
                f"backbone.drop_block.after: {self.name} gives a tensor {tuple(t.shape)}, expected "
                "a feature map (B, C, h, w): name another module."
            )
        return super().forward(t)


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
        block = nn.Sequential(trunk.get_submodule(name), GrowingDropBlock(name, drop))
        trunk.set_submodule(name, block)
