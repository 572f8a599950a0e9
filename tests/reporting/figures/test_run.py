"""Every figure of a run: which files, from what."""

import os
import re
import subprocess
import sys

import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_temperature
from skinlesion.reporting.figures import draw_run_figures, outdated, quality
from skinlesion.reporting.figures import run as drawing
from tests.reporting.figures.conftest import KINDS, PROBABILITIES, Y, config_of, make_run, part_of


def test_every_figure_is_a_png_and_a_pdf_and_one_that_cannot_be_drawn_is_a_line_of_log(
    archive, images, tmp_path, caplog
):
    run = make_run(tmp_path / "run", config_of(archive), part_of(ids=images.table.index))
    run.checkpoints.mkdir()
    run.best.write_bytes(b"no checkpoint")
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
    os.utime(run.predictions, (2e9, 2e9))
    assert outdated(run)


def test_missing_images_are_one_line_of_log(archive, images, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(drawing, "save", lambda figure, path: path)
    collected = make_run(tmp_path / "a", config_of(None), part_of(ids=images.table.index))
    other = make_run(tmp_path / "b", config_of(archive), part_of())
    drawn = [draw_run_figures(collected, root) for root in (None, tmp_path / "elsewhere", archive)]
    assert [len(paths) for paths in (*drawn, draw_run_figures(other))] == [7, 7, 8, 7]
    unknown, elsewhere, missing = caplog.messages
    assert "(it was collected). With the folder of its images: skinlesion figures" in unknown
    assert "elsewhere: no such folder. With the folder of its images" in elsewhere
    assert missing.startswith(f"mistakes_val is not drawn: {archive}: image")


def test_each_part_has_its_own_and_validation_gives_the_temperature(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(drawing, "save", lambda figure, path: path)
    monkeypatch.setattr(quality, "reliability", lambda part, *rest: seen.update({part.name: rest}))
    wrong = part_of(y=[1, 2, 0, 0, 1, 1], split="test")
    paths = draw_run_figures(make_run(tmp_path / "a", config_of(None), part_of(), wrong))
    names = [*(f"{kind}_{part}" for part in ("val", "test") for kind in KINDS), "learning_curves"]
    assert [path.stem for path in paths] == names
    run, part = "mobilenet_v2, seed 3, split by lesion", "test part, which selected nothing"
    fitted, on = fit_temperature(Y, PROBABILITIES), "the 6 images of the validation part"
    assert seen["test"] == (f"{run} · {part}: 6 images of 3 lesions", fitted, on)
    assert seen["val"][1:] == (fitted, f"{on}, these very images")


def test_predictions_that_cannot_be_read_are_named(tmp_path):
    run = make_run(tmp_path / "a", config_of(None), part_of())
    run.predictions.write_text("no table")
    with pytest.raises(SkinlesionError, match=r"predictions\.csv: the columns are no table"):
        draw_run_figures(run)


def test_figures_need_no_torch():
    code = "import sys, skinlesion.reporting.figures\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
