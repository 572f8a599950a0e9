"""Recall by age, sex or site, and the command that prints it."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.cli import main
from skinlesion.evaluation.subgroups import by_groups, groups_of, subgroups
from skinlesion.runs.predictions import Predictions, write_predictions


def part(rows, split="test"):
    """Rows are lesion, label and the predicted class; an image each."""
    lesions, labels, predicted = zip(*rows, strict=True)
    ids = [f"{split}{i}" for i in range(len(rows))]
    names = {"image_id": ids, "lesion_id": lesions, "split": split, "label": labels}
    sure = {name: [0.8 if found == name else 0.2 for found in predicted] for name in ("mel", "nv")}
    return Predictions(pd.DataFrame(names | sure), ("mel", "nv"))


def cohort():
    """12 melanomas of the young, of which 2 are found, 10 of the old, 8 found; and 3 nv."""
    young = [(f"y{i}", "mel", "mel" if i < 2 else "nv") for i in range(12)]
    old = [(f"o{i}", "mel", "mel" if i < 8 else "nv") for i in range(10)]
    none = [("n", "nv", "nv")] * 3
    return part(young + old + none), ["39.5"] * 12 + ["61"] * 10 + [None] * 3


def test_ages_fall_into_bands_and_other_values_are_groups() -> None:
    ages = groups_of("age", pd.Series(["39", "39.9", "40", "60.0", "60.5", None, "old"]))
    bands = ["under 40", "under 40", "40-60", "40-60", "over 60", "unknown", "unknown"]
    assert ages.tolist() == bands
    assert groups_of("sex", pd.Series(["Male", None])).tolist() == ["male", "unknown"]


def test_each_group_has_its_recall_and_few_lesions_have_none() -> None:
    whole, ages = cohort()
    young, old, none = subgroups(whole, groups_of("age", pd.Series(ages)))
    assert (young.images, young.lesions, young.value) == (12, 12, pytest.approx(2 / 12))
    assert (old.group, old.value) == ("over 60", pytest.approx(0.8))
    # Of lesions drawn with replacement the mean is the value, the variance p (1 - p) / n.
    assert np.nanmean(young.draws) == pytest.approx(2 / 12, abs=0.01)
    assert np.nanstd(young.draws) == pytest.approx((2 / 12 * 10 / 12 / 12) ** 0.5, rel=0.15)
    assert (none.images, none.lesions, str(none)) == (3, 1, "too few: 1 lesion")


def test_melanoma_of_the_young_is_set_against_that_of_the_old() -> None:
    whole, ages = cohort()
    known = pd.DataFrame({"age": ages}, index=whole.frame["image_id"])
    text = by_groups([whole], known)
    assert "by age (test, 1 run)\nmelanoma sensitivity: under 40 0.167 (" in text
    assert "; difference -0.633 [-0." in text
    assert "difference" not in by_groups([part([("a", "mel", "mel")])], known.iloc[:1])
    # The same lesions in two runs are no more lesions.
    assert "mel under 40 24 12 0.167" in " ".join(by_groups([whole, whole], known).split())


def test_the_command_reads_the_split_or_a_table(tmp_path, capsys) -> None:
    whole, ages = cohort()
    write_predictions(whole.frame, tmp_path / "predictions.csv")
    own = whole.frame[["image_id"]].assign(age=ages)
    own.to_csv(tmp_path / "split.csv", index=False)
    main(["evaluate", str(tmp_path), "--by", "age"])
    shown = capsys.readouterr().out.partition("\nby age (test, 1 run)\n")[2]
    main(["evaluate", str(tmp_path / "predictions.csv"), "--by", "age"])
    assert capsys.readouterr().out.endswith(shown)
    with pytest.raises(SystemExit, match=r"not all of sex in .* Expected also --table FILE"):
        main(["evaluate", str(tmp_path), "--by", "sex"])
    own[1:].to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(SystemExit, match="the table has no row for test0"):
        main(["evaluate", str(tmp_path), "--by", "age", "--table", str(tmp_path / "table.csv")])
