"""Several runs as one: the mean of their probabilities, or their folds put together."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.average import average
from skinlesion.reporting.results import Run
from skinlesion.runs.predictions import read_predictions, write_predictions


def runs(folder: Any, *overrides: str) -> list[Path]:
    words = ["seed=0", "attention=paper", "metadata=paper", "loss=weighted", *overrides]
    return [
        folder.add(job, right)
        for job, right in zip(folder.sweep("ablation", *words).jobs, (1, 0.5), strict=True)
    ]


def test_the_mean_is_a_run_that_no_table_takes_for_one_of_its_members(
    folder: Any, tmp_path: Path
) -> None:
    members = runs(folder, "dropout=0,0.5")
    frames = [read_predictions(path).frame for path in members]
    # The second run's rows in another order.
    write_predictions(frames[1][::-1].reset_index(drop=True), members[1] / "predictions.csv")
    made = average(members, tmp_path / "runs" / "average" / "two" / "seed0")
    found = read_predictions(made.path).frame.set_index(["split", "image_id"])
    one, two = (frame.set_index(["split", "image_id"]).loc[found.index] for frame in frames)
    np.testing.assert_allclose(found["mel"], (one["mel"] + two["mel"]) / 2, atol=1e-9)
    # The second is wrong on 20 images, where the next class has as much: a tie, which goes to the
    # first of the two, and that is the true class but for the 3 images of the last.
    assert Run(made).part.metrics["accuracy"] == pytest.approx(37 / 40)
    assert made.identity not in {Run(type(made)(path)).directory.identity for path in members}
    with pytest.raises(SkinlesionError, match="is there already"):
        average(members, made.path)


def test_folds_are_put_together_and_what_is_no_fold_or_no_match_is_said(
    folder: Any, tmp_path: Path
) -> None:
    first, second = runs(folder, "split.folds=2", "split.fold=0,1")
    with pytest.raises(SkinlesionError, match="expected two or more runs that differ"):
        average([first, first], tmp_path / "same")
    frame = read_predictions(second).frame
    other = frame.assign(image_id="other-" + frame["image_id"])
    write_predictions(other, second / "predictions.csv")
    with pytest.raises(SkinlesionError, match=r"seed0.*other images or parts.*one split\.seed"):
        average([first, second], tmp_path / "mean")
    whole = average([second, first], tmp_path / "folds", out_of_fold=True)
    found = read_predictions(whole.path)
    assert found.splits == ("test",)
    assert len(found.frame) == (frame["split"] == "test").sum() * 2
    table = folder.table(folder.sweep("folds"))
    assert [row.label for row in table.rows] == [
        "Five folds by lesion",
        "all folds in one, out of fold",
    ]
    assert table.rows[0].missing == [0] * 5
    assert "not there" in table.rows[1].notes[0]
    shutil.copytree(whole.path, folder.path / "average" / "folds" / "seed0")
    folds = [folder.add(job) for job in folder.sweep("folds").jobs[:2]]
    mean, all_folds = folder.table(folder.sweep("folds")).rows
    assert [len(mean.runs), mean.missing, all_folds.n] == [
        len(folds),
        [0] * 3,
        f"1 x {len(found.frame)}",
    ]
    single = runs(folder, "dropout=0.1,0.2")
    with pytest.raises(SkinlesionError, match="expected every fold"):
        average(single, tmp_path / "none", out_of_fold=True)
    assert not [*tmp_path.glob(".*")]
