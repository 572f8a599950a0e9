"""Every figure of a run: which files, from what."""

import os
import re
import subprocess
import sys

import matplotlib
import pytest
from matplotlib import pyplot

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_temperature
from skinlesion.reporting.figures import draw_run_figures, outdated, quality
from skinlesion.reporting.figures import run as drawing
from tests.reporting.figures.conftest import PROBABILITIES, Y, data_config, make_run, part_of

KINDS = ("confusion_matrix", "roc", "precision_recall", "reliability", "per_class_f1")


@pytest.fixture
def unsaved(monkeypatch) -> None:
    """Figures are not written, which takes most of the time."""
    monkeypatch.setattr(drawing, "save", lambda figure, path: path)


def test_every_figure_is_a_png_and_a_pdf_and_one_that_cannot_be_drawn_is_a_line_of_log(
    archive, ids, tmp_path, caplog
) -> None:
    run = make_run(tmp_path / "run", data_config(archive), part_of(ids=ids))
    run.checkpoints.mkdir()
    run.best.write_bytes(b"no checkpoint")
    settings = dict(matplotlib.rcParams)
    assert outdated(run)
    paths = draw_run_figures(run)
    assert not outdated(run)
    names = [*(f"{kind}_val" for kind in (*KINDS, "mistakes")), "learning_curves"]
    assert paths == [run.figures / f"{name}.png" for name in names]
    files = {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    assert {path.name for path in run.figures.iterdir()} == files
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        pdf = path.with_suffix(".pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"CreationDate" not in pdf  # the same figure is the same file
        assert set(re.findall(rb"/FontFile\d?", pdf)) == {b"/FontFile2"}  # TrueType
    (line,) = caplog.messages
    assert re.fullmatch("attention_val is not drawn: .+", line)
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == (settings, [])
    newer = paths[-1].stat().st_mtime + 1
    os.utime(run.predictions, (newer, newer))
    assert outdated(run)


@pytest.mark.usefixtures("unsaved")
def test_images_that_are_not_at_hand_are_one_line_of_log(archive, ids, tmp_path, caplog) -> None:
    collected = make_run(tmp_path / "a", data_config(None), part_of(ids=ids))
    assert len(draw_run_figures(collected)) == 6
    assert len(draw_run_figures(collected, tmp_path / "elsewhere")) == 6
    assert len(draw_run_figures(collected, archive)) == 7
    assert len(draw_run_figures(make_run(tmp_path / "b", data_config(archive), part_of()))) == 6
    collected_, elsewhere, other = caplog.messages
    assert "(it was collected). With the folder of its images: skinlesion figures" in collected_
    assert "elsewhere: no such folder. With the folder of its images" in elsewhere
    assert other.startswith(f"mistakes_val is not drawn: {archive}: image")


@pytest.mark.usefixtures("unsaved")
def test_each_part_has_its_own_and_the_temperature_is_fitted_on_validation(
    tmp_path, monkeypatch
) -> None:
    seen = {}
    monkeypatch.setattr(quality, "reliability", lambda part, *rest: seen.update({part.name: rest}))
    wrong = part_of(y=[1, 2, 0, 0, 1, 1], split="test")
    paths = draw_run_figures(make_run(tmp_path / "a", data_config(None), part_of(), wrong))
    names = [*(f"{kind}_{part}" for part in ("val", "test") for kind in KINDS), "learning_curves"]
    assert [path.stem for path in paths] == names
    run, part = "mobilenet_v2, seed 3, split by lesion", "test part, which selected nothing"
    fitted, on = fit_temperature(Y, PROBABILITIES), "the 6 images of the validation part"
    assert seen["test"] == (f"{run} · {part}: 6 images of 3 lesions", fitted, on)
    assert seen["val"][1:] == (fitted, f"{on}, these very images")
    draw_run_figures(make_run(tmp_path / "b", data_config(None), wrong))
    assert seen["test"][1:] == (None, "")


def test_predictions_that_cannot_be_read_are_named(tmp_path) -> None:
    run = make_run(tmp_path / "a", data_config(None), part_of())
    run.predictions.unlink()
    with pytest.raises(SkinlesionError, match=r"predictions\.csv cannot be read"):
        draw_run_figures(run)
    assert not run.figures.exists()


def test_figures_need_no_torch() -> None:
    code = "import sys, skinlesion.reporting.figures\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
