"""The whole network: backbone, soft attention, head and metadata branch (paper section 4.4).

The head follows the released code, where the paper is silent: 2x2 max pools of t and of the
attended t, concatenation, ReLU, flatten, dropout; then the metadata, and one dense layer.
`build_classifier` makes it of plain values, as they stand in a config and in a checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinlesion.errors import SkinlesionError, listing, validated
from skinlesion.models.backbone import Backbone
from skinlesion.models.metadata import EncodedMetadata, GessertMLP, MetadataMLP
from skinlesion.models.soft_attention import ReleasedSoftAttention, SoftAttention
from skinlesion.models.spec import BackboneSpec

Initialiser = Literal["keras", "torch"]
Branch = MetadataMLP | GessertMLP | EncodedMetadata


class Classifier(nn.Module):
    """Logits from an image and its metadata.

    Args:
        backbone: image → feature map t.
        attention: called with the shape (C, h, w) of t, gives the soft attention, or what else
            sees t and keeps its shape; None for none.
        metadata: the metadata branch; None for none.
        classes: C, the number of classes.
        dropout: probability of dropping a feature of the image before the dense layer.
        pooling: `max`, 2x2 with stride 2 (released code), or `average`, over all positions.
        hidden: units of a dense layer with ReLU before the last one (Table 9's Dense(512)); None
            for none.
        hidden_norm: `batch`, a batch norm between that layer and its ReLU (Gessert et al. 2020);
            None for none.

    Shape:
        image (B, 3, H, W) uint8, metadata (B, M) float → logits (B, C).

    Raises:
        SkinlesionError: if the cut gives a vector where soft attention needs a map.
    """

    def __init__(
        self,
        backbone: Backbone,
        attention: Callable[[tuple[int, ...]], nn.Module] | None,
        metadata: Branch | None,
        classes: int,
        dropout: float = 0.5,
        pooling: str = "max",
        hidden: int | None = None,
        hidden_norm: str | None = None,
    ) -> None:
        super().__init__()
        if hidden_norm not in (None, "batch") or (hidden_norm and hidden is None):
            raise ValueError(
                f"hidden_norm={hidden_norm}: expected null, or batch with hidden units"
            )
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
        self.attention = attention(shape) if attention else None
        self.metadata = metadata
        self.dropout = Dropout(dropout)
        self.pool = POOLS[pooling]
        t = torch.empty(1, *shape)
        width = self._pooled(t).shape[1] + (metadata.width if metadata else 0)
        self.hidden = None if hidden is None else nn.Linear(width, hidden)
        self.hidden_norm = None if hidden_norm is None else nn.BatchNorm1d(hidden or 0)
        self.dense = nn.Linear(width if hidden is None else hidden, classes)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        """Return logits (B, C); the metadata is not read where there is no metadata branch."""
        return self.dense(self.features(image, metadata))  # (B, classes)

    def features(self, image: Tensor, metadata: Tensor) -> Tensor:
        """Return what the last layer sees (B, F)."""
        features = self.image_features(image)  # (B, F)
        if self.metadata is not None:
            features = torch.cat([features, self.metadata(metadata)], dim=1)  # (B, F + M')
        if self.hidden is not None:
            features = self.hidden(features)  # (B, hidden)
            if self.hidden_norm is not None:
                features = self.hidden_norm(features)
            features = features.relu()
        return features

    def image_features(self, image: Tensor) -> Tensor:
        """Return the pooled features of the image alone (B, F)."""
        return self._pooled(self.backbone(image))

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


class Dropout(nn.Dropout):
    """As torch's, with uniform numbers on a CPU.

    There torch draws its Bernoulli numbers one by one, in four times the time.

    Shape:
        any → the same.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, in training some of them zero and the others 1 / (1 - p) times."""
        if values.device.type != "cpu" or not self.training or self.p in (0, 1):
            return super().forward(values)
        # float32 whatever the values are: bfloat16 has 256 numbers between 0 and 1.
        kept = torch.rand_like(values, dtype=torch.float32) >= self.p
        return values * (kept / (1 - self.p)).to(values.dtype)


def _spectral(shape: tuple[int, ...], **options: Any) -> nn.Module:
    from skinlesion.models.spectral import SpectralLayer  # few runs need it

    return SpectralLayer(shape, **options)


POOLS: Mapping[str, Callable[[Tensor], Tensor]] = {"max": max_pool, "average": average_pool}
ATTENTIONS: Mapping[str, Callable[..., nn.Module] | None] = {
    "paper": lambda shape, **options: SoftAttention(shape[0], **options),
    "released": lambda shape, **options: ReleasedSoftAttention(shape[0], **options),
    "spectral": _spectral,
    "none": None,
}
BRANCHES: Mapping[str, Callable[..., Branch] | None] = {
    "paper": MetadataMLP,
    "gessert": GessertMLP,
    "encoded": EncodedMetadata,
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
    hidden_norm: str | None = None,
    initialiser: Initialiser = "keras",
) -> Classifier:
    """Build the network, without pretrained weights.

    Args:
        backbone: the fields of a `BackboneSpec`.
        attention: `name` (paper, released, spectral, none) and the arguments of that layer.
        metadata: `name` (paper, gessert, encoded, none) and the arguments of that metadata branch.
        classes: number of classes.
        properties: encoded features of each property of the metadata; empty: there is no metadata.
        dropout, pooling, hidden, hidden_norm: see `Classifier`.
        initialiser: see `initialise`.

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
            Backbone(validated(BackboneSpec, dict(backbone), where="backbone")),
            attention=(lambda shape: attend(shape, **attend_options)) if attend else None,
            metadata=branch(properties, **branch_options) if branch else None,
            classes=classes,
            dropout=dropout,
            pooling=pooling,
            hidden=hidden,
            hidden_norm=hidden_norm,
        )
        initialise(network, initialiser)
    except (TypeError, ValueError, RuntimeError) as error:  # of the layers, for such arguments
        raise SkinlesionError(f"the network cannot be built: {error}") from None
    return network


def initialise(network: Classifier, initialiser: Initialiser) -> None:
    """Start the dense layers anew.

    Soft attention starts He uniform either way, as the released code says; batch norms start alike
    in both frameworks; a backbone without pretrained weights stays as timm starts it.

    Args:
        network: the network, changed in place.
        initialiser: `keras` (Glorot uniform, bias 0) or `torch` (both within 1/√inputs).
    """
    branch = [] if network.metadata is None else network.metadata.modules()
    for layer in (network.hidden, network.dense, *branch):
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
            if initialiser == "keras":
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)


def _choose(axis: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[Any, dict]:
    options = dict(values)
    name = options.pop("name", None)
    if name not in known:
        raise SkinlesionError(f"{axis}.name={name}: expected one of {', '.join(known)}.")
    if known[name] is None and options:
        raise SkinlesionError(f"{axis}.name=none takes no arguments, found {listing([*options])}.")
    return known[name], options
