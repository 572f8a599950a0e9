"""Sets of classes in the place of one: adaptive prediction sets (APS), conformal.

Romano, Sesia and Candès 2020, arXiv:2006.02544, without their randomisation: a set has the classes
from the most probable on until their sum passes a limit, with the one that passes it; so it is
never empty, and somewhat larger than need be. The limit is that with which the sets of 1 - ALPHA of
the validation part hold the true class. As many of new images like these are then held by theirs:
on average, not in each class, nor strictly, because images of one lesion resemble each other and
that part selected the checkpoint.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from skinlesion.evaluation.measured import Measured
from skinlesion.evaluation.metrics import Floats, Ints
from skinlesion.evaluation.subgroups import by_groups
from skinlesion.runs.predictions import Predictions
from skinlesion.text import interval, number

ALPHA = 0.1


def aps_scores(probabilities: Floats) -> Floats:
    """Return each class's score, (n, C): the sum of the probabilities that go before its own."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    return np.take_along_axis(before, np.argsort(order, axis=1), axis=1)


def fit_limit(y: Ints, probabilities: Floats) -> float:
    """Return the score up to which a class is in a set: the ceil((n + 1)(1 - ALPHA))-th of n."""
    known = np.sort(aps_scores(probabilities)[np.arange(len(y)), y])
    rank = int(np.ceil((len(y) + 1) * (1 - ALPHA)))
    return float(known[rank - 1]) if rank <= len(y) else np.inf


def with_sets(val: Predictions, part: Predictions) -> Predictions:
    """Return a part as if it were right where its set has the true class, with the set's `size`."""
    sets = aps_scores(part.probabilities) <= fit_limit(val.y, val.probabilities)  # (n, C)
    covered = sets[np.arange(len(part.y)), part.y]
    answer = np.where(covered, part.y, (part.y + 1) % len(part.classes))
    sure = dict(zip(part.classes, np.eye(len(part.classes))[answer].T, strict=True))
    return Predictions(part.frame.assign(**sure, size=sets.sum(axis=1)), part.classes)


def show_sets(
    runs: Sequence[tuple[Predictions, Predictions]], known: pd.DataFrame | None = None
) -> str:
    """Return coverage and size as text: of what was fitted, and is reported, of runs together.

    `known` is that of `by_groups`; None: by class only.
    """
    if any("val" not in fitted.splits or shown.reported == "val" for fitted, shown in runs):
        return "\nsets: not measured, as there is no other part than val, on which they are fitted"
    parts = [with_sets(fitted.part("val"), s.part(s.reported)) for fitted, s in runs]
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    whole = Measured(Predictions(frame, parts[0].classes))
    ends = interval(whole.interval("accuracy"))
    line = f"\nsets (APS, alpha {ALPHA}, fitted on val): coverage {whole.text('accuracy')} ({ends})"
    if known is None:
        known = pd.DataFrame({"class": "all"}, index=frame["image_id"].unique())
    return f"{line}, mean size {number(frame['size'].mean())}{by_groups(parts, known, 'coverage')}"
