"""Metadata as numbers (paper section 4.1; order of the released code). HAM10000's are 21:

    [age 1 | sex 1 + 3 | localization 1 + 15]

The first column of a category is for values that training has not seen. What is unknown is a
category of its own (the paper, section 4.1), or it and all unseen values are zeros (Gessert et al.,
cited there). A number is standardised; a missing one counts as the mean.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.schema import UNKNOWN, Range, Values, matching
from skinlesion.errors import SkinlesionError

MISSING = ("category", "zero")


@dataclass(frozen=True)
class Number:
    """A number, with what was learnt of it.

    Attributes:
        low: smallest value that can be.
        high: largest value that can be.
        mean: of the training rows.
        std: population standard deviation of the training rows; 1 where they are all alike.
    """

    low: float
    high: float
    mean: float
    std: float

    @property
    def size(self) -> int:
        """Features of the encoding."""
        return 1

    @classmethod
    def fit(cls, column: pd.Series, declared: Range) -> "Number":
        """Learn from the training rows."""
        values = column.to_numpy(float)
        known = np.isfinite(values).any()
        std = float(np.nanstd(values)) if known else 0.0
        mean = float(np.nanmean(values)) if known else 0.0
        return cls(declared.low, declared.high, mean, std or 1.0)

    def encode(self, column: pd.Series, missing: str) -> np.ndarray:
        """Return (N, 1)."""
        return np.nan_to_num((column.to_numpy(float) - self.mean) / self.std)[:, None]

    def read(self, name: str, value: Any) -> float:
        """Return a value as a person types it; NaN where it is missing."""
        if is_missing(value):
            return float("nan")
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not self.low <= number <= self.high:
            raise SkinlesionError(
                f"{name}={value}: expected a number from {self.low:g} to {self.high:g}."
            )
        return number


@dataclass(frozen=True)
class Category:
    """One of several values, with those that training has seen.

    Attributes:
        values: in the order of encoding, `unknown` among them.
        seen: those of the training rows.
    """

    values: tuple[str, ...]
    seen: tuple[str, ...]

    @property
    def size(self) -> int:
        """Features of the encoding."""
        return 1 + len(self.values)

    @classmethod
    def fit(cls, column: pd.Series, declared: Values) -> "Category":
        """Learn from the training rows."""
        found = set(column.unique())
        seen = tuple(value for value in declared.values if value in found)  # noqa: PD011  no table
        return cls(declared.values, seen)

    def encode(self, column: pd.Series, missing: str) -> np.ndarray:
        """Return (N, 1 + values)."""
        known = {value: i for i, value in enumerate(self.values, 1) if value in self.seen}
        code = column.map(known).fillna(0).to_numpy(int)
        encoded = np.zeros((len(code), self.size), np.float32)
        encoded[np.arange(len(code)), code] = 1
        if missing == "zero":
            encoded[:, [0, 1 + self.values.index(UNKNOWN)]] = 0
        return encoded

    def read(self, name: str, value: Any) -> str:
        """Return a value as a person types it; `unknown` where it is missing."""
        if is_missing(value):
            return UNKNOWN
        # 3.0 is how pandas reads a 3 in a column with gaps.
        whole = isinstance(value, float) and value.is_integer()
        text = str(int(value) if whole else value).strip()
        if (found := matching(text, self.values)) is None:
            near = difflib.get_close_matches(text.lower(), self.values, n=1)
            raise SkinlesionError(
                f"{name}={value}: expected one of {', '.join(self.values)}."
                + (f" Did you mean {near[0]}?" if near else "")
            )
        return found


@dataclass(frozen=True)
class MetadataEncoder:
    """Encodes metadata with what was learnt from the training rows.

    Attributes:
        properties: what is encoded, in order.
        missing: one of MISSING, how unknown values of a category are encoded.
    """

    properties: Mapping[str, Number | Category]
    missing: str = "category"

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        properties: Mapping[str, Range | Values],
        missing: str = "category",
    ) -> "MetadataEncoder":
        """Learn the statistics from the training rows.

        Args:
            frame: a column for each property.
            properties: as a `Schema` declares them.
            missing: see the attribute.
        """
        fitted: dict[str, Number | Category] = {
            name: Number.fit(frame[name], declared)
            if isinstance(declared, Range)
            else Category.fit(frame[name], declared)
            for name, declared in properties.items()
        }
        return cls(fitted, missing)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Encoded features of each property; HAM10000: (1, 4, 16)."""
        return tuple(known.size for known in self.properties.values())

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the encoded rows (N, sum of sizes) float32.

        Args:
            frame: a column for each property; NaN is a missing number, `unknown` a missing value of
                a category.
        """
        encoded = np.empty((len(frame), sum(self.sizes)), np.float32)
        start = 0
        for name, known in self.properties.items():
            encoded[:, start : start + known.size] = known.encode(frame[name], self.missing)
            start += known.size
        return encoded

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Return values as a person types them as a table that `encode` takes.

        Args:
            rows: property → a number or text. What is None, NaN, empty or absent is missing. Spaces
                around a text and capitals do not matter.

        Raises:
            SkinlesionError: naming the property, the value and what was expected.
        """
        for row in rows:
            for name in row:
                if name not in self.properties:
                    raise SkinlesionError(self._no_such(str(name)))
        return pd.DataFrame(
            {
                name: [known.read(name, row.get(name)) for row in rows]
                for name, known in self.properties.items()
            },
            index=range(len(rows)),
        )

    def _no_such(self, name: str) -> str:
        if not self.properties:
            return f"{name}: this model knows no metadata, so give none."
        near = difflib.get_close_matches(name.lower(), self.properties, n=1)
        return (
            f"{name}: there is no such property, expected one of {', '.join(self.properties)}."
            + (f" Did you mean {near[0]}?" if near else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists, for a checkpoint."""
        return {
            "properties": {
                name: {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(known).items()}
                for name, known in self.properties.items()
            },
            "missing": self.missing,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MetadataEncoder":
        """Restore an encoder from `to_dict`."""
        properties: dict[str, Number | Category] = {
            name: Category(tuple(known["values"]), tuple(known["seen"]))
            if "values" in known
            else Number(**known)
            for name, known in values["properties"].items()
        }
        return cls(properties, values["missing"])


def is_missing(value: Any) -> bool:
    """Return whether a value, as a person types it, says nothing: None, NaN or blank."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (bool(pd.api.types.is_scalar(value)) and bool(pd.isna(value)))
