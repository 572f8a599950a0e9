"""How good a run is on some of its patients: by age, sex, site, or what else is known of an image.

Groups differ in their classes (the young have few melanomas), so each class has its recall, and
balanced accuracy is over those of which the group has FEWEST lesions. Lesions are drawn once for
all groups (`skinlesion.evaluation.bootstrap`), so that one can be subtracted from another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.bootstrap import Floats, drawn, interval
from skinlesion.evaluation.measured import DRAWS
from skinlesion.evaluation.metrics import Sample, macro, recall
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import COLUMNS, Predictions
from skinlesion.text import aligned, counted, number
from skinlesion.text import interval as between

UNKNOWN, YOUNG, MIDDLE, OLD = "unknown", "under 40", "40-60", "over 60"
MOST = 30  # values of a property that are groups
FEWEST = 10  # lesions of a class; the recall of fewer says next to nothing


class Recall(NamedTuple):
    """The recall of a class in a group, or the mean over classes: once, and on every draw (D,)."""

    label: str
    group: str
    images: int
    lesions: int
    value: float
    draws: Floats
    size: float  # mean classes of an answer, NaN where it is one

    def __str__(self) -> str:
        if self.lesions < FEWEST:
            return f"too few: {counted(self.lesions, 'lesion')}"
        size = "" if np.isnan(self.size) else f", {self.size:.2f} classes"
        return f"{number(self.value)} ({between(interval(self.draws))}){size}"


def groups_of(name: str, values: pd.Series) -> pd.Series:
    """Return the group of each text or missing value: a band of `age`, else the value itself."""
    if name != "age":
        return values.fillna(UNKNOWN).str.lower()
    age = pd.to_numeric(values, errors="coerce")
    bands = np.select([age < 40, age <= 60, age > 60], [YOUNG, MIDDLE, OLD], UNKNOWN)
    return pd.Series(bands, values.index)


def subgroups(part: Predictions, groups: pd.Series) -> list[Recall]:
    """Return the recall of each class in each group that has it, and then the means over classes.

    `groups` (n,) has the group of each row. An image may come several times, from several runs.
    """
    found: dict[str, list[Recall]] = {label: [] for label in (*part.classes, "")}
    names = sorted({*groups}, key=lambda name: (name == UNKNOWN, name != YOUNG, name))
    rows = [part.frame[(groups == name).to_numpy()] for name in names]
    parts = [Predictions(own.reset_index(drop=True), part.classes) for own in rows]
    for name, own, sample in zip(names, parts, drawn(parts, DRAWS), strict=True):
        by_class = own.frame.groupby("label")["lesion_id"].nunique()
        lesions = by_class.reindex(part.classes, fill_value=0).to_numpy()  # (C,)
        once, enough = Sample(own.y, own.probabilities, own.classes), lesions >= FEWEST
        for label, of in zip(found, [*np.eye(len(lesions), dtype=bool), enough], strict=True):
            if lesions[of].any() and (label or enough.sum() > 1):
                title = label or f"mean over {enough.sum()} of {len(lesions)} classes"
                counts = int(once.support[0, of].sum()), int(lesions[of].sum())
                value, draws = (macro(recall(s)[:, of]) for s in (once, sample))
                size = own.frame["size"][of[own.y]].mean() if "size" in own.frame else np.nan
                found[label].append(Recall(title, name, *counts, value[0], draws, size))
    return [row for rows in found.values() for row in rows]


def run_groups(directory: RunDirectory, part: Predictions) -> str:
    """Lay out a run's reported part by every property that its split.csv has; empty if by none."""
    if not (directory.path / "split.csv").is_file():
        return ""
    cells = pd.read_csv(directory.path / "split.csv", dtype=str).set_index("image_id")
    known = cells.drop(columns=[*COLUMNS, "dx"], errors="ignore")
    known = known[[name for name in known if name == "age" or known[name].nunique() <= MOST]]
    return by_groups([part], known).strip() if len(known.columns) else ""


def by_groups(parts: Sequence[Predictions], known: pd.DataFrame, what: str = "sensitivity") -> str:
    """Lay `subgroups` of runs taken together out as text, by each column of what is known.

    `known` has a row for each image, by its id. Melanoma of the young against the old goes first.
    Raises SkinlesionError if it lacks an image.
    """
    frame, texts = pd.concat([part.frame for part in parts], ignore_index=True), []
    if absent := [*frame.loc[~frame["image_id"].isin(known.index), "image_id"]]:
        raise SkinlesionError(f"--by: the table has no row for {listing(absent)}.")
    for name, values in known.loc[frame["image_id"]].items():
        groups = groups_of(str(name), values)
        found = subgroups(Predictions(frame, parts[0].classes), groups)
        texts += [f"\nby {name} ({parts[0].splits[0]}, {counted(len(parts), 'run')})"]
        mel = {row.group: row for row in found if row.label.lower() == "mel"}
        if (young := mel.get(YOUNG)) and (old := mel.get(OLD)):
            texts += [f"melanoma {what}: {YOUNG} {young}; {OLD} {old}"]
            if min(young.lesions, old.lesions) >= FEWEST:
                apart = between(interval(young.draws - old.draws), "+")
                texts[-1] += f"; difference {number(young.value - old.value, '+')} {apart}"
        enough = [row for row in found if row.lesions >= FEWEST]
        cells = [[r.label, r.group, f"{r.images:,}", f"{r.lesions:,}", str(r)] for r in enough]
        head = [f"{what} of", str(name), "images", "lesions", "95 % interval"]
        texts += [aligned([head, None, *cells], left=2)] if cells else []
        few = [f"{r.label} {r.group} {r.lesions}" for r in found if r.lesions < FEWEST]
        texts += [f"too few lesions, below {FEWEST}: {', '.join(few)}"] if few else []
    return "\n".join(texts)
