"""The whole network: backbone, soft attention, head and metadata branch (paper section 4.4).

The head follows the released code, where the paper is silent: 2x2 max pools of t and of the
attended t, concatenation, ReLU, dropout, flatten; then the metadata, and one dense layer.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinlesion.models.backbone import Backbone
from skinlesion.models.metadata import MetadataMLP


class Classifier(nn.Module):
    """Logits from an image and its metadata.

    Args:
        backbone: image → feature map t.
        attention: called with the channels of t, gives the soft attention; None for none.
        metadata: the metadata branch; None for none.
        classes: C, the number of classes.
        dropout: probability of dropping a feature before the dense layer.

    Shape:
        image (B, 3, H, W) uint8, metadata (B, M) float → logits (B, C).
    """

    def __init__(
        self,
        backbone: Backbone,
        attention: Callable[[int], nn.Module] | None,
        metadata: MetadataMLP | None,
        classes: int,
        dropout: float = 0.5,
    ) -> None:
        """Join the parts; the dense layer's width follows from the shape of t."""
        super().__init__()
        channels, height, width = backbone.feature_shape()
        self.backbone = backbone
        self.attention = attention(channels) if attention else None
        self.metadata = metadata
        self.dropout = nn.Dropout(dropout)
        pooled = (1 + (attention is not None)) * channels * -(-height // 2) * -(-width // 2)
        self.dense = nn.Linear(pooled + (metadata.width if metadata else 0), classes)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        """Return logits (B, C); the metadata is not read where there is no metadata branch."""
        t = self.backbone(image)  # (B, C, h, w)
        maps = [pool(t)]  # (B, C, ⌈h/2⌉, ⌈w/2⌉)
        if self.attention is not None:
            maps.append(pool(self.attention(t)))
        features = self.dropout(torch.cat(maps, dim=1).relu()).flatten(1)  # (B, 2C⌈h/2⌉⌈w/2⌉)
        if self.metadata is not None:
            features = torch.cat([features, self.metadata(metadata)], dim=1)  # (B, … + 4096)
        return self.dense(features)  # (B, classes)


def pool(t: Tensor) -> Tensor:
    """2x2 max pool that keeps an odd last row and column (TensorFlow's "same" padding)."""
    return F.max_pool2d(t, kernel_size=2, stride=2, ceil_mode=True)
