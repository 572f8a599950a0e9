"""The metadata branch (paper section 4.1): one dense layer of 4,096 with ReLU."""

from torch import Tensor, nn


class MetadataMLP(nn.Module):
    """A dense layer with ReLU on the encoded age, sex and localization.

    Args:
        features: encoded features per sample (21 for HAM10000: age 1, sex 4, localization 16).
        width: units of the dense layer (paper: 4,096).

    Shape:
        metadata (B, features) → (B, width).
    """

    def __init__(self, features: int = 21, width: int = 4096) -> None:
        """Create the dense layer."""
        super().__init__()
        if width < 1:
            raise ValueError(f"metadata.width={width}: expected at least 1")
        self.dense = nn.Linear(features, width)
        self.width = width

    def forward(self, metadata: Tensor) -> Tensor:
        """Return the metadata's representation (B, width), non-negative."""
        return self.dense(metadata).relu()  # (B, width)
