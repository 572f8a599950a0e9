"""What a model's file says of itself, and within what limits: the file may come from a stranger."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, Strict, model_validator

from skinlesion.data.encoding import UNKNOWN
from skinlesion.models.spec import BackboneSpec

MOST = 8192  # units of a layer
Size = Annotated[int, Strict(), Field(ge=1, le=MOST)]
Finite = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=1000)]


class _Module(BaseModel):
    """Soft attention, or the metadata branch; which other arguments it has, its class says."""

    name: str
    maps: Size = 1
    width: Size = 1
    layers: Annotated[int, Strict(), Field(ge=1, le=8)] = 1


class _Network(BaseModel, extra="forbid"):
    """The arguments of `build_classifier`."""

    backbone: BackboneSpec
    attention: _Module
    metadata: _Module
    classes: Size
    properties: list[Size]
    dropout: Annotated[Finite, Field(ge=0, le=1)] = 0.5
    pooling: str = "max"
    hidden: Size | None = None
    hidden_norm: str | None = None


class _Property(BaseModel, extra="forbid"):
    """A number or a category of `MetadataEncoder`."""

    low: Finite = 0.0
    high: Finite = 0.0
    mean: Finite = 0.0
    std: Annotated[Finite, Field(gt=0)] = 1.0
    values: Names = []
    seen: Names = []

    @model_validator(mode="after")
    def _values_agree(self) -> "_Property":
        if self.values and not {UNKNOWN, *self.seen} <= {*self.values}:
            raise ValueError(f"expected {UNKNOWN} and all that was seen among the values")
        return self


class _Encoder(BaseModel, extra="forbid"):
    properties: dict[Name, _Property]
    missing: Literal["category", "zero"]


class Description(BaseModel):
    """What a model is made of, beside its weights: what a checkpoint holds, and a temperature.

    Attributes:
        network: how it is built.
        classes: in the order of the outputs.
        encoder: how metadata becomes numbers.
        temperature: the logits are divided by it (Guo et al. 2017, arXiv:1706.04599).
        region: what it saw of each image (`skinlesion.data.region`); None: all of it.
        tta: how it was measured (`skinlesion.data.views`); None: each image as it is.
        sure: see `skinlesion.evaluation.calibration.fit_sure`; None: not fitted.
    """

    network: _Network
    classes: Annotated[Names, Field(min_length=2)]
    encoder: _Encoder
    temperature: Annotated[Finite, Field(ge=0.01, le=100)]
    region: Name | None = None
    tta: Literal["flips", "crops"] | None = None
    sure: Annotated[Finite, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _sizes_agree(self) -> "Description":
        if not len({*self.classes}) == len(self.classes) == self.network.classes:
            raise ValueError(f"expected {self.network.classes} classes whose names differ")
        columns = [1 + len(known.values) for known in self.encoder.properties.values()]
        if columns != self.network.properties or sum(columns) > MOST:
            raise ValueError(f"expected an encoder of {self.network.properties} columns")
        return self
