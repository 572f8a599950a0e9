"""What a data set is made of, as `conf/data/<name>.yaml` declares it: tables, classes, metadata."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from unicodedata import normalize

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, Strict, model_validator

from skinlesion.data.encoding import UNKNOWN, Category, Known, Number, matching
from skinlesion.errors import listing, validated
from skinlesion.files import distinct

# Columns of the table, of the split and of the predictions, and what predict() calls the image.
TAKEN = ("image_id", "lesion_id", "dx", "split", "label", "image")


def _as_name(value: Any) -> str:
    # YAML reads yes, no, on and off as truth values.
    written = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not written or not str(value).strip():
        raise ValueError("expected a name (yes and no need quotes)")
    return normalize("NFC", str(value).strip())


def _not_taken(names: Any) -> Any:
    if clash := [name for name in names if name in TAKEN]:
        raise ValueError(
            f"{listing(clash)} cannot be a name here, because files of a run have columns of these "
            f"names: {', '.join(TAKEN)}"
        )
    return names


def _with_unknown(values: list[str]) -> list[str]:
    values = [UNKNOWN if matching(value, [UNKNOWN]) else value for value in values]
    return values if UNKNOWN in values else [*values, UNKNOWN]  # what is missing needs it


Name = Annotated[str, BeforeValidator(_as_name)]
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(distinct)]
Finite = Annotated[float, Strict(), Field(allow_inf_nan=False)]

Region = Literal[
    "crop", "dilated_crop", "background_removed", "background_removed_crop", "fourth_channel"
]


class Columns(BaseModel, extra="forbid"):
    """How the table calls what every data set has.

    Attributes:
        image: the images: their ids, the files' names, or paths.
        lesion: the lesions; None: every image is a lesion of its own.
        label: the class; None: each class is a column, one of them 1 in each row.
        lesion_missing: an image without a lesion is an `error`, or a lesion of its `own`.
    """

    image: Name
    lesion: Name | None
    label: Name | None
    lesion_missing: Literal["error", "own"] = "error"


class Property(BaseModel, extra="forbid"):
    """A property of the metadata: a number within a range, or one of several values.

    Attributes:
        column: of the table; None: of the property's own name.
        range: lowest and highest number that can be.
        values: in the order of encoding, `unknown` among them.
    """

    column: Name | None = None
    range: tuple[Finite, Finite] | None = None
    values: Annotated[Names, AfterValidator(_with_unknown)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Property":
        if (self.range is None) == (self.values is None):
            expected = "expected one of range: [low, high] and values: [a, b, …]"
            raise ValueError(f"{expected}, found {'neither' if self.range is None else 'both'}")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range: expected two numbers, [lowest, highest]")
        return self


class Schema(BaseModel, extra="forbid"):
    """What a data set is made of.

    Attributes:
        tables: names of the tables in `machine.data`, with or without ending; several are joined
            by the image column.
        classes: in the order of everything that has one number for each class.
        columns: how the table calls what every data set has.
        properties: the metadata, in the order of encoding, by the name they go by here.
        limit: about how many images are used; None for all.
        resident: whether all images lie on the device; None: on a GPU with room.
        region: what of each image is shown, by its lesion's mask; None for all of it.
        unknown: classes that are kept out of training and met only at test; None for none.
        test: the forms of a test set of its own (data/test_set.py); None: there is none.
        demo: what is drawn (`skinlesion.data.demo.write_demo`); None for nothing.
    """

    tables: Names
    classes: Annotated[Names, Field(min_length=2), AfterValidator(_not_taken)]
    columns: Columns
    properties: Annotated[dict[str, Property], AfterValidator(_not_taken)]
    limit: Annotated[int, Strict(), Field(ge=1)] | None = None
    resident: bool | None = None
    region: Region | None = None
    unknown: Names | None = None
    test: list[dict[str, Any]] | None = None
    demo: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _two_are_known(self) -> "Schema":
        if no_class := [name for name in self.unknown or () if name not in self.classes]:
            expected = f"expected some of {', '.join(self.classes)}"
            raise ValueError(f"unknown: {listing(no_class)} is no class; {expected}")
        if len(self.known) < 2:
            raise ValueError(
                f"unknown: {listing(self.known)} is left; expected two classes or more"
            )
        return self

    @property
    def known(self) -> list[str]:
        """The classes that are trained, in their order."""
        return [name for name in self.classes if name not in (self.unknown or ())]

    @classmethod
    def from_config(cls, data: DictConfig | Mapping[str, Any]) -> "Schema":
        """Read the schema from `config.data`; one SkinlesionError names all that is wrong."""
        plain = OmegaConf.to_container(data, resolve=True) if OmegaConf.is_config(data) else data
        return validated(cls, plain, "data")

    @property
    def wanted(self) -> list[str]:
        """The columns of the tables that are read, in any order."""
        columns = self.columns
        label = self.classes if columns.label is None else [columns.label]
        lesion = [] if columns.lesion is None else [columns.lesion]
        properties = [declared.column or name for name, declared in self.properties.items()]
        return [*lesion, columns.image, *label, *properties]

    @property
    def untrained(self) -> dict[str, Known]:
        """What encodes the metadata, before anything was learnt."""
        return {
            name: Number(*declared.range)
            if declared.range
            else Category(tuple(declared.values or ()))
            for name, declared in self.properties.items()
        }
