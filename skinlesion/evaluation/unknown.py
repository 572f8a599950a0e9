"""How well lesions of classes that were never trained are told from known ones, by `unknown.csv`.

The unknown are the positive class: AUROC is the share of pairs of an unknown and a known image that
a score puts in order, AUPR the average precision of finding the unknown (chance: their share), and
FPR at 95 % TPR the share of the known that is flagged where 95 % of the unknown are.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.bootstrap import drawn, interval
from skinlesion.evaluation.metrics import Floats, Sample, auc, average_precision, falling
from skinlesion.runs.predictions import Predictions
from skinlesion.text import aligned, number
from skinlesion.text import interval as between

SCORES = ("isolation_forest", "mahalanobis", "energy", "max_softmax")
GROUPS = ("known", "unknown")


def fpr_at_95(s: Sample) -> Floats:
    """Return the share of negatives, class 0, flagged where 95 % of the positives are: (D,).

    The threshold is the highest score at which that many are; ties are flagged together.
    """
    flagged, found = falling(s, s.probabilities[:, 1], s.y == 1)  # (K, D) each
    first = (20 * found >= 19 * s.support[:, 1]).argmax(axis=0)  # (D,)
    wrong = np.take_along_axis(flagged - found, first[None], axis=0)[0]
    return np.where(s.support.all(axis=1), wrong / np.maximum(s.support[:, 0], 1), np.nan)


MEASURES = {
    "auroc": ("AUROC", lambda s: auc(s)[:, 1]),
    "aupr": ("AUPR", lambda s: average_precision(s)[:, 1]),
    "fpr95": ("FPR at 95 % TPR", fpr_at_95),
}


def measure(frame: pd.DataFrame) -> dict[str, Any]:
    """Return, as plain numbers for JSON, what each score is worth, with 95 % intervals by lesion.

    Args:
        frame: a row an image: `image_id`, `lesion_id`, `label`, `unknown` (0 or 1) and SCORES, each
            of which is larger for what is more unknown.
    """
    positive = frame["unknown"] == 1
    found: dict[str, Any] = {
        "classes": sorted(frame.loc[positive, "label"].unique()),
        "images": {"known": int((~positive).sum()), "unknown": int(positive.sum())},
        "lesions": int(frame.loc[positive, "lesion_id"].nunique()),
    }
    group = frame.assign(label=np.where(positive, *GROUPS[::-1]))
    for name in SCORES:
        rank = np.unique(frame[name], return_inverse=True)[1]
        share = (rank + 1) / (rank.max() + 2)  # a probability in the same order, with the same ties
        part = Predictions(group.assign(known=1 - share, unknown=share), GROUPS)
        once, (sample,) = Sample(part.y, part.probabilities, GROUPS), drawn([part])
        found[name] = {
            measured: {"value": float(of(once)[0]), "interval": [*interval(of(sample))]}
            for measured, (_, of) in MEASURES.items()
        }
    return found


def measure_file(run: Path) -> dict[str, Any]:
    """Return what `measure` does of a run's `unknown.csv`; SkinlesionError if it cannot be read."""
    path = run / "unknown.csv"
    try:
        frame = pd.read_csv(path, dtype={"image_id": str, "lesion_id": str, "label": str})
        return measure(frame)
    except (OSError, ValueError, KeyError) as error:
        raise SkinlesionError(f"{path} cannot be read as scores: {error}") from None


def unknown_table(found: dict[str, Any]) -> str:
    """Lay out what `measure` returns as plain text."""
    count = found["images"]
    rows: list[list[str] | None] = [["score", *(title for title, _ in MEASURES.values())], None]
    for name in SCORES:
        cells = [found[name][measured] for measured in MEASURES]
        texts = [f"{number(cell['value'])} ({between(cell['interval'])})" for cell in cells]
        rows.append([name.replace("_", " "), *texts])
    return (
        f"unknown: {count['unknown']:,} images of {', '.join(found['classes'])}, which were never "
        f"trained on ({found['lesions']:,} lesions), among {count['known']:,} of the test part\n"
        f"{aligned(rows)}\npositive: unknown; AUPR by chance "
        f"{number(count['unknown'] / sum(count.values()))}; 95 % intervals by lesion"
    )
