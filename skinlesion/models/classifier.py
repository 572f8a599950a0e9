"""The whole network: backbone, soft attention, head and metadata branch (paper section 4.4).

The head follows the released code, where the paper is silent: 2x2 max pools of t and of the
attended t, concatenation, ReLU, flatten, dropout; then the metadata, and one dense layer.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinlesion.errors import SkinlesionError, listing
from skinlesion.models.backbone import Backbone
from skinlesion.models.dropout import Dropout
from skinlesion.models.metadata import GessertMLP, MetadataMLP


class Classifier(nn.Module):
    """Logits from an image and its metadata.

    Args:
        backbone: image → feature map t.
        attention: called with the channels of t, gives the soft attention; None for none.
        metadata: the metadata branch; None for none.
        classes: C, the number of classes.
        dropout: probability of dropping a feature of the image before the dense layer.
        pooling: `max`, 2x2 with stride 2 (released code), or `average`, over all positions.
        hidden: units of a dense layer with ReLU before the last one (Table 9's Dense(512)); None
            for none.

    Shape:
        image (B, 3, H, W) uint8, metadata (B, M) float → logits (B, C).

    Raises:
        SkinlesionError: if the cut gives a vector where soft attention needs a map.
    """

    def __init__(
        self,
        backbone: Backbone,
        attention: Callable[[int], nn.Module] | None,
        metadata: MetadataMLP | GessertMLP | None,
        classes: int,
        dropout: float = 0.5,
        pooling: str = "max",
        hidden: int | None = None,
    ) -> None:
        """Join the parts; the dense layer's width follows from the shape of t."""
        super().__init__()
        if pooling not in POOLS:
            raise ValueError(f"pooling={pooling}: expected one of {listing([*POOLS])}")
        shape = backbone.feature_shape()
        if len(shape) != 3 and (attention or len(shape) != 1):
            raise SkinlesionError(
                f"backbone.cut={backbone.spec.cut} of {backbone.spec.timm_model} gives a tensor "
                f"(B, {', '.join(map(str, shape))}), but soft attention and pooling need a feature "
                "map (B, C, h, w): choose a node further from the end, or attention=none."
            )
        self.backbone = backbone
        self.attention = attention(shape[0]) if attention else None
        self.metadata = metadata
        self.dropout = Dropout(dropout)
        self.pool = POOLS[pooling]
        t = torch.empty(1, *shape)
        width = self._pooled(t).shape[1] + (metadata.width if metadata else 0)
        if hidden is not None and hidden < 1:
            raise ValueError(f"hidden={hidden}: expected at least 1, or null for none")
        self.hidden = None if hidden is None else nn.Linear(width, hidden)
        self.dense = nn.Linear(width if hidden is None else hidden, classes)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        """Return logits (B, C); the metadata is not read where there is no metadata branch."""
        features = self._pooled(self.backbone(image))  # (B, F)
        if self.metadata is not None:
            features = torch.cat([features, self.metadata(metadata)], dim=1)  # (B, F + M')
        if self.hidden is not None:
            features = self.hidden(features).relu()  # (B, hidden)
        return self.dense(features)  # (B, classes)

    def _pooled(self, t: Tensor) -> Tensor:
        """Return what the dense layer sees of t (B, C, h, w): (B, 2C⌈h/2⌉⌈w/2⌉) with attention."""
        if t.ndim == 2:  # the backbone's own head has pooled; as in Table 9's last row
            return t
        maps = [self.pool(t)]  # (B, C, ⌈h/2⌉, ⌈w/2⌉)
        if self.attention is not None:
            maps.append(self.pool(self.attention(t)))
        # Flat, what is dropped does not depend on how the maps lie in memory.
        return self.dropout(torch.cat(maps, dim=1).relu().flatten(1))


def max_pool(t: Tensor) -> Tensor:
    """2x2 max pool that keeps an odd last row and column (TensorFlow's "same" padding)."""
    return F.max_pool2d(t, kernel_size=2, stride=2, ceil_mode=True)


def average_pool(t: Tensor) -> Tensor:
    """Mean over all positions, (B, C, 1, 1)."""
    return t.mean(dim=(2, 3), keepdim=True)


POOLS: Mapping[str, Callable[[Tensor], Tensor]] = {"max": max_pool, "average": average_pool}
