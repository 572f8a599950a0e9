"""Every figure of a run: which files, from what."""

import os
import subprocess
import sys

import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_temperature
from skinlesion.reporting.figures import draw_run_figures, outdated
from skinlesion.reporting.figures import run as drawing
from skinlesion.reporting.figures.page import Page
from skinlesion.reporting.figures.source import open_source
from tests.reporting.figures.conftest import PROBABILITIES, Y, data_config, predictions_of

KINDS = ("confusion_matrix", "roc", "precision_recall", "reliability", "per_class_f1")


@pytest.fixture
def unsaved(monkeypatch):
    """Figures are drawn and not written, which takes most of the time."""
    monkeypatch.setattr(Page, "save", lambda page, path: path)


def test_every_figure_is_a_png_and_a_pdf(make_run, caplog):
    run = make_run(predictions_of())
    paths = draw_run_figures(run)
    names = [*(f"{kind}_val" for kind in KINDS), "learning_curves"]
    assert paths == [run.figures / f"{name}.png" for name in names]
    assert {path.name for path in run.figures.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("png", "pdf")
    }
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert path.with_suffix(".pdf").stat().st_size > 8_000
    assert len(caplog.records) == 1
    assert "mistakes and attention are not drawn" in caplog.text


def test_figures_are_outdated_until_the_last_is_drawn_and_once_predictions_are_newer(make_run):
    run = make_run(predictions_of())
    assert outdated(run)
    paths = draw_run_figures(run)
    assert not outdated(run)
    newer = paths[-1].stat().st_mtime + 1
    os.utime(run.predictions, (newer, newer))
    assert outdated(run)


def test_each_part_has_its_own_and_a_gallery_where_the_images_are(make_run, archive, unsaved):
    ids = open_source(data_config(), archive).table.index[:6].to_numpy()
    parts = [predictions_of(split=part, ids=ids) for part in ("val", "test")]
    paths = draw_run_figures(make_run(*parts, config=data_config(root=str(archive))))
    kinds = (*KINDS, "mistakes")
    names = [*(f"{kind}_{part}" for part in ("val", "test") for kind in kinds), "learning_curves"]
    assert [path.stem for path in paths] == names


def test_the_temperature_is_fitted_on_the_validation_part_alone(make_run, monkeypatch, unsaved):
    drawn = {}

    def spy(part, temperature, fitted_on):
        drawn[part.name] = (temperature, fitted_on)

    monkeypatch.setattr(drawing, "reliability", spy)
    wrong = predictions_of(y=[1, 2, 0, 0, 1, 1], split="test")
    draw_run_figures(make_run(predictions_of(split="val"), wrong))
    assert drawn["val"][0] == drawn["test"][0] == fit_temperature(Y, PROBABILITIES)
    assert drawn["val"][1] == "the 6 images of the validation part, these very images"
    assert drawn["test"][1] == "the 6 images of the validation part"


def test_without_a_validation_part_nothing_is_fitted(make_run, monkeypatch, unsaved):
    drawn = []
    monkeypatch.setattr(drawing, "reliability", lambda part, *rest: drawn.append(rest))
    draw_run_figures(make_run(predictions_of(split="test")))
    assert drawn == [(None, "")]


def test_a_missing_history_is_named(make_run):
    run = make_run(predictions_of())
    run.history.unlink()
    with pytest.raises(SkinlesionError, match=r"history\.csv cannot be read as a history"):
        draw_run_figures(run)
    assert not run.figures.exists()


def test_importing_the_package_does_not_import_torch():
    code = "import sys\nimport skinlesion.reporting.figures\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
