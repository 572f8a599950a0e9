"""Age, sex and localization as 21 numbers (paper section 4.1; order of the released code).

    [age 1 | sex 1 + 3 | localization 1 + 15]

The first column of a category is for values that training has not seen. What is unknown is a
category of its own (the paper, section 4.1), or it and all unseen values are zeros (Gessert et al.,
cited there).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

VOCABULARY = {
    "sex": ("female", "male", "unknown"),
    "localization": (
        *("abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand"),
        *("lower extremity", "neck", "scalp", "trunk", "unknown", "upper extremity"),
    ),
}
MISSING = ("category", "zero")


@dataclass(frozen=True)
class MetadataEncoder:
    """Encodes metadata with what was learnt from the training rows.

    Attributes:
        age_mean: mean age of the training rows, in years.
        age_std: population standard deviation of their age, in years.
        seen: for each category, the values that training has seen.
        missing: one of MISSING, how unknown values are encoded.
    """

    age_mean: float
    age_std: float
    seen: dict[str, tuple[str, ...]]
    missing: str = "category"

    @classmethod
    def fit(cls, frame: pd.DataFrame, missing: str = "category") -> "MetadataEncoder":
        """Learn the statistics from the training rows (age, sex, localization)."""
        age = frame["age"].to_numpy(float)
        std = float(np.nanstd(age)) if np.isfinite(age).any() else 0.0
        return cls(
            age_mean=float(np.nanmean(age)) if np.isfinite(age).any() else 0.0,
            age_std=std or 1.0,
            seen={
                column: tuple(value for value in values if (frame[column] == value).any())
                for column, values in VOCABULARY.items()
            },
            missing=missing,
        )

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the encoded rows (N, 21) float32; a missing age counts as the mean."""
        age = (frame["age"].to_numpy(float) - self.age_mean) / self.age_std
        columns = [np.nan_to_num(age)[:, None]]
        for column, values in VOCABULARY.items():
            known = {value: i for i, value in enumerate(values, 1) if value in self.seen[column]}
            code = frame[column].map(known).fillna(0).to_numpy(int)
            encoded = np.eye(len(values) + 1)[code]
            if self.missing == "zero":
                encoded[:, [0, 1 + values.index("unknown")]] = 0
            columns.append(encoded)
        return np.hstack(columns).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, for a checkpoint."""
        return asdict(self) | {"seen": {k: list(v) for k, v in self.seen.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MetadataEncoder":
        """Restore an encoder from `to_dict`."""
        return cls(**(values | {"seen": {k: tuple(v) for k, v in values["seen"].items()}}))
