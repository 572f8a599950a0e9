"""How well unknown lesions are told from known ones: worked out by hand, and scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.unknown import SCORES, measure, measure_file, unknown_table


def scored(unknown, **scores):
    """A table of `unknown.csv`; scores that are not given are 0."""
    n = len(unknown)
    ids = [f"i{i}" for i in range(n)]
    frame = pd.DataFrame({"image_id": ids, "lesion_id": ids, "label": "nv", "unknown": unknown})
    frame.loc[frame["unknown"] == 1, "label"] = "df"
    return frame.assign(**dict.fromkeys(SCORES, 0.0) | scores)


def values(found):
    return {measured: cell["value"] for measured, cell in found.items()}


def test_the_numbers_of_five_images_worked_out_by_hand():
    # Falling: unknown 9, known 8, unknown 7, known 7, known 1.
    found = measure(scored([1, 0, 1, 0, 0], energy=[9.0, 8, 7, 7, 1]))
    # Six pairs: 9 is above three; 7 below one, tied with one, above one. (3 + 0.5 + 1) / 6.
    # Precision 1/1 at the first unknown; at the tie of 7 two of four.
    # Both unknown are found at 7, where two of three known are flagged.
    expected = {"auroc": 4.5 / 6, "aupr": (1 / 1 + 2 / 4) / 2, "fpr95": 2 / 3}
    assert values(found["energy"]) == pytest.approx(expected)
    # A score that says nothing: half of the pairs, the share of the unknown, all flagged.
    expected = {"auroc": 0.5, "aupr": 2 / 5, "fpr95": 1}
    assert values(found["max_softmax"]) == pytest.approx(expected)
    assert (found["classes"], found["images"]) == (["df"], {"known": 3, "unknown": 2})


def test_they_are_those_of_scikit_learn_and_their_intervals_hold_them():
    rng = np.random.default_rng(0)
    unknown = (rng.random(300) < 0.3).astype(int)
    score = np.round(rng.normal(size=300) + unknown, 1)  # with ties
    frame = scored(unknown, mahalanobis=score)
    cells = measure(frame.sample(frac=1, random_state=0))["mahalanobis"]
    fpr, tpr, _ = roc_curve(unknown, score, drop_intermediate=False)
    assert values({name: cells[name] for name in cells}) == pytest.approx(
        {
            "auroc": roc_auc_score(unknown, score),
            "aupr": average_precision_score(unknown, score),
            "fpr95": fpr[tpr >= 0.95][0],
        }
    )
    for cell in cells.values():
        low, high = cell["interval"]
        assert low < cell["value"] < high
        assert high - low < 0.35


def test_the_table_says_what_is_positive(tmp_path):
    frame = scored([1, 0, 1, 0, 0])
    frame.to_csv(tmp_path / "unknown.csv", index=False)
    text = unknown_table(measure_file(tmp_path))
    assert text.startswith("unknown: 2 images of df, which were never trained on (2 lesions), amo")
    assert "positive: unknown; AUPR by chance 0.400" in text
    frame.drop(columns="energy").to_csv(tmp_path / "unknown.csv", index=False)
    with pytest.raises(SkinlesionError, match=r"unknown\.csv cannot be read as scores: 'energy'"):
        measure_file(tmp_path)
