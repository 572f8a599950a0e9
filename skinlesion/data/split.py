"""Three protocols, never mixed: which images train, select the checkpoint, and are reported.

- by image (`split=paper`): as published; the held-out tenth selects and is reported.
- by lesion (`split=lesion`): no lesion is in two parts; the test part never selects anything.
- official (`split=official`): train and val by lesion; test is a set of its own (`data.test`).

Each can be a fold of a k-fold split: the part that is reported is then fold `fold` of `folds`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from skinlesion.errors import SkinlesionError, listing
from skinlesion.runs.predictions import PARTS

UNKNOWN = "unknown"  # the part of the images whose class is kept out of training


@dataclass(frozen=True, config={"extra": "forbid"})
class Split:
    """How the table is divided, stratified by diagnosis: the protocol `name`, drawn by a seed.

    Attributes:
        by: what is never divided.
        val_fraction: share of the units that selects the checkpoint.
        test_fraction: share of the units that is only reported; 0 for none.
        folds: number of folds; None for a single draw.
        fold: which fold is reported, 0 … folds - 1.
        join: pairs of images whose lesions count as one (`skinlesion data duplicates`).
        drop_missing_age: leave out images without an age, as the paper does.
    """

    name: str
    by: Literal["image", "lesion"]
    seed: int = Field(ge=0)
    val_fraction: float = Field(gt=0, lt=1)
    test_fraction: float = Field(ge=0, lt=1)
    folds: int | None = Field(default=None, ge=2)
    fold: int = Field(default=0, ge=0)
    join: list[tuple[str, str]] | None = None
    drop_missing_age: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "Split":
        val, test = self.val_fraction, self.test_fraction
        if val + test >= 1:
            expected = "expected something left to train on"
            raise ValueError(f"val_fraction={val}, test_fraction={test}: {expected}")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold={self.fold}: expected one from 0 to {self.folds - 1}")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of this protocol; the last one is the one reported."""
        return PARTS if self.test_fraction else PARTS[:2]

    def apply(self, frame: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
        """Return a table as of `read_table` with a column `split` in {train, val, test}.

        Images of other classes than these are in none of them, but in `unknown`.

        Raises:
            SkinlesionError: if a class is too small to be in every part.
        """
        if self.drop_missing_age and "age" in frame:
            frame = frame[frame["age"].notna()].reset_index(drop=True)
        lesion = frame.set_index("image_id")["lesion_id"]
        for one, other in self.join or ():
            if unknown := {one, other} - {*lesion.index}:
                raise SkinlesionError(f"split.join: no image {', '.join(sorted(unknown))}")
            lesion = lesion.replace(lesion[other], lesion[one])
        frame = frame.assign(lesion_id=lesion.to_numpy())
        column = f"{self.by}_id"
        unit, _ = pd.factorize(frame[column])  # (N,) in the order of their first rows, as `units`
        units = frame.drop_duplicates(column)
        counts = units["dx"].value_counts().reindex(list(classes), fill_value=0)
        least = max(len(self.parts), self.folds or 0)
        if self.folds is not None:
            # One of two folds takes half of the units, and the other parts share the rest.
            least = max(least, 2 * (len(self.parts) - 1))
        if (small := counts[counts < least]).size:
            found = [f"{name} has {count}" for name, count in small.items()]
            raise SkinlesionError(
                f"a class would be missing from a part of split={self.name}, which needs at least "
                f"{least} {self.by}s of each class: {listing(found, 12)}"
            )
        rng = np.random.default_rng(self.seed)
        part = np.full(len(units), UNKNOWN, object)
        first_fold = 0
        for name in classes:
            drawn = rng.permutation(np.flatnonzero(units["dx"] == name))
            n = len(drawn)
            if self.folds is None:
                most = n - len(self.parts) + 1  # every part after this one gets a unit too
                reported = np.arange(n) < _share(n, self.test_fraction or self.val_fraction, most)
            else:
                # Classes start at different folds, so that the folds are of one size in all.
                reported = (np.arange(n) + first_fold) % self.folds == self.fold
                first_fold += n
            rest = drawn[~reported]
            held = _share(n, self.val_fraction, len(rest) - 1) if self.test_fraction else 0
            part[drawn[reported]] = self.parts[-1]
            part[rest[:held]], part[rest[held:]] = "val", "train"
        # A joined lesion may have images of both.
        return frame.assign(split=np.where(frame["dx"].isin(classes), part[unit], UNKNOWN))


def leak_report(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Count the held-out images whose lesion is also in training.

    Returns:
        For each held-out part: `images`, `leaked`, `share`, and `per_class` with the same three.
    """
    trained = frame.loc[frame["split"] == "train", "lesion_id"].unique()

    def count(leaked: pd.Series) -> dict[str, Any]:
        found = int(leaked.sum())
        return {"images": len(leaked), "leaked": found, "share": found / max(len(leaked), 1)}

    report = {}
    for part in PARTS[1:]:
        rows = frame[frame["split"] == part]
        if len(rows):
            leaked = rows["lesion_id"].isin(trained)
            per_class = {name: count(leaked[rows["dx"] == name]) for name in classes}
            report[part] = count(leaked) | {"per_class": per_class}
    return report


def split_summary(frame: pd.DataFrame, split: Split, classes: Sequence[str]) -> str:
    """Return the split's sizes and its leak report as text for the console."""
    lines = [f"split={split.name}: {len(frame):,} images"]
    leak = leak_report(frame, classes)
    for part in (part for part in PARTS if (frame["split"] == part).any()):
        rows = frame[frame["split"] == part]
        counts = rows["dx"].value_counts()
        sizes = "/".join(str(counts.get(name, 0)) for name in classes)
        lines.append(f"  {part:<5} {len(rows):>6,}  {'/'.join(classes)} = {sizes}")
    if (counts := frame.loc[frame["split"] == UNKNOWN, "dx"].value_counts()).size:
        sizes = f"{'/'.join(counts.index)} = {'/'.join(map(str, counts))}"
        lines.append(f"  never trained, met only at test: {counts.sum():,}  {sizes}")
    for part, found in leak.items():
        shares = ", ".join(f"{c} {100 * n['share']:.0f} %" for c, n in found["per_class"].items())
        lines.append(
            f"  leak: {found['leaked']:,} of {found['images']:,} {part} images "
            f"({100 * found['share']:.1f} %) show a lesion that is also in training"
            + (f": {shares}" if found["leaked"] else "")
        )
    return "\n".join(lines)


def _share(n: int, fraction: float, most: int) -> int:
    return min(max(1, round(n * fraction)), most)
