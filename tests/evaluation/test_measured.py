"""A held-out part of a run, measured, and the command that prints one."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from skinlesion.cli import main
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.bootstrap import interval, mean_over_runs
from skinlesion.evaluation.calibration import scale
from skinlesion.evaluation.measured import DRAWS, Measured
from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import Predictions, read_predictions, write_predictions

CLASSES = ("bkl", "mel", "nv")


def frame(split: str, seed: int = 0, images: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([1, 1, 1], images)
    names = {
        "image_id": [f"{split}{i}" for i in range(images)],
        "lesion_id": [f"lesion{i // 2}" for i in range(images)],
        "split": split,
        "label": np.array(CLASSES)[random.integers(3, size=images)],
    }
    return pd.DataFrame(names).join(pd.DataFrame(probabilities, columns=list(CLASSES)))


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(pd.concat([frame("val"), frame("test", 1)], ignore_index=True), CLASSES)


def test_what_the_protocol_reports_is_the_test_part_where_there_is_one(predictions) -> None:
    part = Measured.reported(predictions)
    assert (part.name, part.role) == ("test", "selected nothing")
    only = Measured.reported(Predictions(frame("val"), CLASSES))
    assert (only.name, only.role) == ("val", "selected the checkpoint")


def test_its_numbers_are_those_of_evaluate_and_of_the_bootstrap(predictions) -> None:
    part = Measured(predictions.part("val"))
    assert part.metrics == evaluate(part.y, part.probabilities, CLASSES)
    for address in ("macro.auc", "per_class.mel.average_precision", "n"):
        draws = mean_over_runs([part.predictions], [address], DRAWS)[address]
        assert part.interval(address) == interval(draws)
    assert part.value("sd.f1") == part.metrics["sd"]["f1"]
    assert [part.support(c) for c in range(3)] == np.bincount(part.y).tolist()
    assert (part.lesions, part.text("n"), part.text("accuracy")) == (
        *(30, "60"),
        f"{part.metrics['accuracy']:.3f}",
    )
    with pytest.raises(SkinlesionError, match=r"no metric 'macro\.kappa'"):
        part.value("macro.kappa")


def test_temperature_scaling_changes_the_probabilities_alone(predictions) -> None:
    part = Measured(predictions.part("val"))
    scaled = part.scaled(2.0)
    np.testing.assert_allclose(scaled.probabilities, scale(part.probabilities, 2.0))
    assert scaled.value("accuracy") == part.value("accuracy")
    assert scaled.value("ece") != part.value("ece")
    assert (scaled.name, scaled.lesions) == (part.name, part.lesions)


def test_what_cannot_be_measured_is_a_dash() -> None:
    alone = Measured(Predictions(frame("val").assign(label="nv"), CLASSES))
    assert alone.text("per_class.mel.recall") == "-"
    assert np.isnan(alone.value("macro.auc"))


@pytest.fixture
def run(tmp_path, predictions) -> SimpleNamespace:
    write_predictions(predictions.frame, tmp_path / "predictions.csv")
    return SimpleNamespace(folder=tmp_path, file=tmp_path / "predictions.csv")


def test_the_command_prints_each_part_of_a_file_or_of_a_run(run, capsys) -> None:
    assert main(["evaluate", str(run.file)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("val\nclass")
    assert "\n\ntest\nclass" in printed
    assert main(["evaluate", str(run.folder)]) == 0
    assert capsys.readouterr().out == printed


def test_the_command_prints_json_in_full_precision(run, capsys) -> None:
    main(["evaluate", "--json", str(run.file)])
    part = read_predictions(run.file).part("val")
    expected = evaluate(part.y, part.probabilities, CLASSES)
    assert json.loads(capsys.readouterr().out)["val"] == expected


def test_a_wrong_file_is_one_line(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*predictions\.csv cannot be read"):
        main(["evaluate", str(tmp_path)])
