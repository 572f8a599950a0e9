"""Metadata as numbers (paper section 4.1; order of the released code). HAM10000's are 21:

    [age 1 | sex 1 + 3 | localization 1 + 15]

The first column of a category is for values that training has not seen. What is unknown is a
category of its own (the paper, section 4.1), or it and all unseen values are zeros (Gessert et al.,
cited there). A number is standardised; a missing one counts as the mean.
"""

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from skinlesion.errors import SkinlesionError, validated

if TYPE_CHECKING:  # a model.onnx is used without it
    import pandas as pd

UNKNOWN = "unknown"
"""The value of a category that is missing; every category has it."""


@dataclass(frozen=True)
class Number:
    """A property that is a number, from `low` to `high`.

    `mean` and population standard deviation are of the training rows; 1 where they are all alike.
    """

    low: float
    high: float
    mean: float = 0.0
    std: float = 1.0

    size: ClassVar[int] = 1  # features of the encoding

    def fit(self, column: "pd.Series") -> "Number":
        """Learn from the training rows."""
        values = column.to_numpy(float)
        if np.isnan(values).all():
            return self
        return replace(self, mean=float(np.nanmean(values)), std=float(np.nanstd(values)) or 1.0)

    def encode(self, column: Any, missing: str) -> np.ndarray:
        """Return (N, 1); a missing number is the mean."""
        return np.nan_to_num((np.asarray(column, float) - self.mean) / self.std)[:, None]

    def read(self, name: str, value: Any) -> float:
        """Return a value as a person types it; NaN where it is missing or `unknown`."""
        if is_missing(value) or matching(str(value), [UNKNOWN]):
            return math.nan
        number = math.nan if isinstance(value, bool) else _number(value)
        if not self.low <= number <= self.high:
            raise SkinlesionError(
                f"{name}={value}: expected a number from {self.low:g} to {self.high:g}."
            )
        return number


@dataclass(frozen=True)
class Category:
    """A property that is one of `values`, in the order of encoding, `unknown` among them.

    Those of the training rows are `seen`.
    """

    values: tuple[str, ...]
    seen: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Features of the encoding: one for what training has not seen, one for each value."""
        return 1 + len(self.values)

    def fit(self, column: "pd.Series") -> "Category":
        """Learn from the training rows."""
        return replace(self, seen=tuple(value for value in self.values if (column == value).any()))

    def encode(self, column: Any, missing: str) -> np.ndarray:
        """Return (N, 1 + values)."""
        known = {value: i for i, value in enumerate(self.values, 1) if value in self.seen}
        code = np.array([known.get(value, 0) for value in column], int)
        encoded = np.zeros((len(code), self.size), np.float32)
        encoded[np.arange(len(code)), code] = 1
        if missing == "zero":
            encoded[:, [0, 1 + self.values.index(UNKNOWN)]] = 0
        return encoded

    def read(self, name: str, value: Any) -> str:
        """Return a value as a person types it; `unknown` where it is missing."""
        if is_missing(value):
            return UNKNOWN
        if (found := matching(str(value), self.values)) is None:
            expected = f"expected one of {', '.join(self.values)}."
            raise SkinlesionError(f"{name}={value}: {expected}{_nearest(str(value), self.values)}")
        return found


Known = Number | Category


@dataclass(frozen=True)
class MetadataEncoder:
    """Encodes properties in their order, with what was learnt from the training rows.

    What is unknown of a category is encoded as a `category` of its own, or as `zero`.
    """

    properties: Mapping[str, Known]
    missing: str = "category"

    @classmethod
    def fit(
        cls, frame: "pd.DataFrame", properties: Mapping[str, Known], missing: str = "category"
    ) -> "MetadataEncoder":
        """Learn from the training rows, which have a column for each property."""
        return cls({name: known.fit(frame[name]) for name, known in properties.items()}, missing)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features of each property; HAM10000: (1, 4, 16)."""
        return tuple(known.size for known in self.properties.values())

    def encode(self, columns: Any, length: int | None = None) -> np.ndarray:
        """Return the encoded rows (N, sum of sizes) float32.

        Of N values of each property a missing number is NaN, a missing value `unknown`. The length
        N is that of a DataFrame unless it is given.
        """
        length = len(columns) if length is None else length
        parts = [
            known.encode(columns[name], self.missing) for name, known in self.properties.items()
        ]
        return np.concatenate([np.empty((length, 0)), *parts], axis=1, dtype=np.float32)

    def encode_typed(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return rows as a person types them encoded, (N, sum of sizes) float32; see `read`."""
        return self.encode(self.read(rows), len(rows))

    def read(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return values as a person types them as columns: property → N numbers or values.

        What is None, NaN, empty or absent is missing. A SkinlesionError names the property, the
        value and what was expected.
        """
        for name in {name: None for row in rows for name in row}:
            if not self.properties:
                raise SkinlesionError(f"{name}: this model knows no metadata, so give none.")
            if name not in self.properties:
                raise SkinlesionError(
                    f"{name}: there is no such property, expected one of "
                    f"{', '.join(self.properties)}.{_nearest(name, self.properties)}"
                )
        return {
            name: [known.read(name, row.get(name)) for row in rows]
            for name, known in self.properties.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists, for a checkpoint."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MetadataEncoder":
        """Restore an encoder from `to_dict`."""
        return validated(cls, values, "encoder")


def is_missing(value: Any) -> bool:
    """Return whether a value, as a person types it, says nothing: None, NaN or blank."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or str(value).lower() in ("nan", "<na>", "nat")  # NumPy's and pandas'


def matching(text: str, names: Iterable[str]) -> str | None:
    """Return the name that a text means: the same but for capitals, or the same number.

    A column of 1, 2 and blanks comes out of many a program as 1.0, 2.0 and blanks.
    """
    text = text.strip().casefold()
    folded = {name.casefold(): name for name in names}
    if text in folded or not math.isfinite(number := _number(text)):
        return folded.get(text)
    return next((name for key, name in folded.items() if _number(key) == number), None)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _nearest(text: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(text.lower(), names, n=1)
    return f" Did you mean {near[0]}?" if near else ""
