"""Metadata branches: the paper's, and the one of Gessert et al. that it cites (section 4.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MetadataMLP(nn.Module):
    """Dense layers with ReLU on the encoded metadata.

    Args:
        properties: encoded features of each property (HAM10000: age 1, sex 4, localization 16).
        width: units of each dense layer (paper: 4,096).
        layers: how many (paper: one; the notebook behind Table 9's Dense(512) has two).

    Shape:
        metadata (B, sum of properties) → (B, width).
    """

    def __init__(self, properties: Sequence[int], width: int = 4096, layers: int = 1) -> None:
        super().__init__()
        for name, value in (("width", width), ("layers", layers)):
            if value < 1:
                raise ValueError(f"metadata.{name}={value}: expected at least 1")
        inputs = (sum(properties), *[width] * (layers - 1))
        self.layers = nn.ModuleList(nn.Linear(count, width) for count in inputs)
        self.width = width

    def forward(self, metadata: Tensor) -> Tensor:
        """Return the metadata's representation (B, width), non-negative."""
        for layer in self.layers:
            metadata = layer(metadata).relu()  # (B, width)
        return metadata


class EncodedMetadata(nn.Identity):
    """The encoded metadata as it is, (B, sum of properties) → the same."""

    def __init__(self, properties: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(properties)


class GessertMLP(nn.Module):
    """Two dense layers, each with batch norm, ReLU and dropout (Gessert et al. 2020).

    In training each property of a sample is encoded as missing, all zeros, with probability
    `missing` (doi:10.1016/j.mex.2020.100864, arXiv:1910.03910).

    Args:
        properties: encoded features of each property (HAM10000: age 1, sex 4, localization 16).
        width: units of each dense layer.
        dropout: probability of dropping a unit.
        missing: probability of dropping a property.

    Shape:
        metadata (B, sum of properties) → (B, width).
    """

    def __init__(
        self,
        properties: Sequence[int],
        width: int = 256,
        dropout: float = 0.4,
        missing: float = 0.1,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"metadata.width={width}: expected at least 1")
        if not 0 <= missing < 1:
            raise ValueError(f"metadata.missing={missing}: expected a probability below 1")
        self.width, self.missing = width, missing
        self.owner: Tensor  # (M,) which property a feature belongs to
        owner = torch.tensor([i for i, size in enumerate(properties) for _ in range(size)])
        self.register_buffer("owner", owner, persistent=False)
        self.layers = nn.Sequential(
            *self._layer(sum(properties), width, dropout), *self._layer(width, width, dropout)
        )

    @staticmethod
    def _layer(inputs: int, width: int, dropout: float) -> list[nn.Module]:
        return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]

    def forward(self, metadata: Tensor) -> Tensor:
        """Return the metadata's representation (B, width), non-negative."""
        if self.training:
            properties = int(self.owner[-1]) + 1
            kept = torch.rand(len(metadata), properties, device=metadata.device) >= self.missing
            metadata = metadata * kept[:, self.owner]  # (B, M)
        return self.layers(metadata)  # (B, width)
