"""Adaptive prediction sets: their scores, limit and coverage, worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.evaluation.conformal import aps_scores, fit_limit, show_sets, with_sets
from skinlesion.runs.predictions import Predictions

ROW = (0.6, 0.3, 0.1)  # before each of them: 0, 0.6, 0.9


def part(split, labels, rows):
    names = {
        "image_id": [f"{split}{i}" for i in range(len(labels))],
        "lesion_id": [f"{split}{i}" for i in range(len(labels))],
        "split": split,
        "label": list(labels),
    }
    columns = pd.DataFrame(np.broadcast_to(rows, (len(labels), 3)), columns=["a", "b", "c"])
    return Predictions(pd.DataFrame(names).join(columns), ("a", "b", "c"))


def test_a_score_is_what_goes_before() -> None:
    found = aps_scores(np.array([ROW, (0.1, 0.2, 0.7)]))
    assert found == pytest.approx(np.array([[0, 0.6, 0.9], [0.9, 0.7, 0]]))


@pytest.mark.parametrize(
    ("labels", "limit"), [("aaaaaaaab", 0.6), ("aaaaaaaa", np.inf), ("a" * 18 + "c", 0)]
)
def test_the_limit_is_the_ninth_of_nine_the_eighteenth_of_nineteen(labels, limit) -> None:
    val = part("val", labels, ROW)
    assert fit_limit(val.y, val.probabilities) == pytest.approx(limit)


def test_sets_are_counted_on_the_part_they_are_not_fitted_on() -> None:
    val = part("val", "aaaaaaaab", ROW)
    test = part(
        "test", "abbc", [(0.5, 0.3, 0.2), (0.7, 0.2, 0.1), (0.3, 0.5, 0.2), (0.4, 0.2, 0.4)]
    )
    answered = with_sets(val, test)
    assert answered.frame["size"].tolist() == [2, 1, 2, 2]  # ab, a, ba, ac
    assert (answered.probabilities.argmax(axis=1) == test.y).tolist() == [True, False, True, True]
    both = Predictions(pd.concat([val.frame, test.frame], ignore_index=True), val.classes)
    assert "coverage 0.750 (" in show_sets([(both, both)])
    assert "mean size 1.750" in show_sets([(both, both)])
    assert "not measured" in show_sets([(val, val)])
