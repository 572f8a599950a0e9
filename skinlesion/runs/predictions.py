"""The predictions file of a run: all that evaluation and reporting read about its quality.

A CSV with one row per image: ``image_id, lesion_id, split, label`` and then one probability column
per class, named like the class. The classes, and their order, are the columns after ``label``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError, listing
from skinlesion.files import replacing

COLUMNS = ("image_id", "lesion_id", "split", "label")
PARTS = ("train", "val", "test")
# What the images of a held-out part did in training.
SELECTED = {"val": "selected the checkpoint", "test": "selected nothing"}


@dataclass(frozen=True)
class Predictions:
    """Valid predictions: `frame` has the columns of the file, `classes` their probability columns.

    Made by :func:`read_predictions`.
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits present, in the order of the file."""
        return tuple(self.frame["split"].unique())

    def part(self, split: str) -> "Predictions":
        """Return the rows of one split; SkinlesionError if there are none."""
        rows = self.frame[self.frame["split"] == split]
        if rows.empty:
            raise SkinlesionError(
                f"no predictions for split '{split}'; there are {listing(self.splits)}"
            )
        return Predictions(rows.reset_index(drop=True), self.classes)

    @property
    def reported(self) -> str:
        """The part that the protocol reports: test where there is one, else val."""
        return max(self.splits, key=PARTS.index)

    @property
    def y(self) -> NDArray[np.int64]:
        """The true class of each row as an index into `classes`, shape (n,)."""
        return pd.Categorical(self.frame["label"], categories=self.classes).codes.astype(np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probabilities in the order of `classes`, shape (n, C), each row sums to 1."""
        return self.frame[list(self.classes)].to_numpy(dtype=np.float64)


def read_predictions(path: str | Path) -> Predictions:
    """Read and check a predictions file, or that of a run's directory.

    Raises SkinlesionError if the file is missing or no CSV, if columns are missing, it has no rows,
    a label is no class, an image comes twice in a split, a probability is not in [0, 1], or a
    row's probabilities do not sum to 1 within 1e-3 (so that files rounded to four digits pass).
    """
    path = Path(path, "predictions.csv") if Path(path).is_dir() else path
    try:
        # Nothing is read as missing: "NA" may well be the name of a class or of a lesion.
        frame = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS, str), keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' parser and decoding errors are ValueErrors
        raise SkinlesionError(f"{path} cannot be read as a predictions file: {error}") from error
    return _checked(frame, path, tolerance=1e-3)


def write_predictions(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a predictions file, whole or not at all, over any that is there.

    `frame` has the columns of the file in their order. Nine significant digits hold a float32
    exactly: metrics from the file are those of the run, ties included. Raises SkinlesionError for
    whatever :func:`read_predictions` would refuse, and for rows off a sum of 1 by more than 1e-4.
    """
    checked = _checked(frame, path, tolerance=1e-4)
    with replacing(path) as temporary:
        checked.frame.to_csv(temporary, index=False, float_format="%.9g")


def _checked(frame: pd.DataFrame, path: str | Path, tolerance: float) -> Predictions:
    head, classes = tuple(frame.columns[: len(COLUMNS)]), tuple(frame.columns[len(COLUMNS) :])
    if head != COLUMNS or len(classes) < 2:
        raise SkinlesionError(
            f"{path}: the columns are {listing(list(frame.columns), 12)}; expected "
            f"{', '.join(COLUMNS)} and then one probability column per class"
        )
    if frame.empty:
        raise SkinlesionError(f"{path} has no rows; expected one per image")

    unknown = frame.loc[~frame["label"].isin(classes), "label"].unique()
    if len(unknown):
        raise SkinlesionError(
            f"{path}: unknown label {listing(unknown.tolist())}; "
            f"the probability columns are {', '.join(classes)}"
        )
    twice = frame.loc[frame.duplicated(["image_id", "split"]), "image_id"].unique()
    if len(twice):
        raise SkinlesionError(
            f"{path}: more than one row for {listing(twice.tolist())}; expected one per image in "
            "each split"
        )

    written = frame[list(classes)]
    numbers = written.apply(pd.to_numeric, errors="coerce").astype(float)
    frame = frame.assign(**numbers)
    ids, probabilities, sums = frame["image_id"].to_numpy(), numbers.to_numpy(), numbers.sum(axis=1)
    outside = ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1)  # NaN is outside, too
    off = outside | ~(np.abs(sums - 1) <= tolerance).to_numpy()
    if off.any():
        what = f"sum to 1 within {tolerance:g} (the first to {sums[off].iloc[0]:.6g})"
        if outside.any():
            off, what = outside, "all lie in [0, 1]"
        raise SkinlesionError(
            f"{path}: the probabilities of {listing(ids[off].tolist())} do not {what}; "
            f"{_what_they_are(written, numbers, tolerance)}"
        )
    return Predictions(frame, classes)


def _what_they_are(written: pd.DataFrame, numbers: pd.DataFrame, tolerance: float) -> str:
    """Say what stands in the place of probabilities, and what to do."""
    for name in numbers:
        others = numbers.drop(columns=name)
        if (others >= 0).all(axis=None) and ((others.sum(axis=1) - 1).abs() <= tolerance).all():
            return f"the column {name} is no class: the others are shares without it; leave it out"
    if numbers.isna().any(axis=None):
        first = str(written.to_numpy()[numbers.isna()][0]).strip()
        if first.lower() in ("", "nan", "none", "null"):
            return "some are missing or NaN, as of a network that has diverged: train it again"
        if first.endswith("%"):
            return "they are percentages: write shares, 0.5 for 50%"
        return f"{first[:40]!r} is no number; expected one probability column per class"
    if np.isinf(numbers).any(axis=None):
        return "some are infinite, as of a network that has diverged: train it again"
    if ((numbers.sum(axis=1) - 100).abs() <= 100 * tolerance).all():
        return "they are percentages: divide them by 100"
    return "they may be logits: take the softmax over all classes, in float32"
