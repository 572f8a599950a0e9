"""The page: texts find room, and files are whole, without a date, with fonts that can be read."""

import logging
import re

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from skinlesion.reporting.figures.page import Page, line_look, text_width, wrap

TEXT = "a note of several words that has to be broken into more lines than one"


def drawn() -> Page:
    page = Page(3, 2, "A title", "a subtitle", TEXT)
    page.axes(0.5, 0.5, 2, 1).plot([0, 1], [0, 1])
    return page


def test_axes_stand_where_they_are_put_in_inches():
    page = drawn()
    box = page.figure.axes[0].get_position()
    width, height = page.figure.get_size_inches()
    assert (box.width * width, box.height * height) == pytest.approx((2, 1))
    assert box.x0 * width == pytest.approx(0.15 + 0.5)
    higher = Page(3, 2, "A title", "a subtitle", f"{TEXT} {TEXT}")
    assert higher.size[1] > page.size[1]


def test_no_line_is_wider_than_its_room_and_no_word_is_lost():
    lines = wrap(TEXT, 1.5, 8)
    assert len(lines) > 1
    assert all(text_width(line, 8) <= 1.5 for line in lines)
    assert " ".join(lines) == TEXT
    assert wrap("unbreakable", 0.1, 8) == ["unbreakable"]
    assert wrap("", 1, 8) == []
    assert text_width("ab\nabcd", 8) == text_width("abcd", 8)


def test_pictures_lie_side_by_side_where_they_are_put():
    page = Page(4, 2, "A title", "")
    red, blue = (np.full((5, 5, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page.picture(0, 0, 2, red)
    page.picture(2, 0, 2, blue)
    assert len(page.figure.axes) == 1
    page.figure.canvas.draw()
    pixels = np.asarray(page.figure.canvas.buffer_rgba())
    row = pixels[round(len(pixels) - 150 * (page.floor + 1))]
    at = [row[round(150 * (0.15 + inches)), :3].tolist() for inches in (0.1, 1.9, 2.1, 3.9)]
    assert at == [[255, 0, 0]] * 2 + [[0, 0, 255]] * 2


def test_the_first_21_classes_all_look_different():
    assert len({str(line_look(c)) for c in range(21)}) == 21


def test_a_figure_is_the_same_png_and_pdf_each_time(tmp_path):
    first, second = (drawn().save(tmp_path / name / "f.png") for name in ("a", "b"))
    for path, other in ((first, second), (first.with_suffix(".pdf"), second.with_suffix(".pdf"))):
        assert path.read_bytes() == other.read_bytes()
        assert len(path.read_bytes()) > 3000
    assert {path.name for path in first.parent.iterdir()} == {"f.png", "f.pdf"}
    pdf = first.with_suffix(".pdf").read_bytes()
    assert b"CreationDate" not in pdf
    assert set(re.findall(rb"/FontFile\d?", pdf)) == {b"/FontFile2"}  # TrueType


def test_what_is_there_stays_when_a_figure_cannot_be_drawn(tmp_path):
    path = drawn().save(tmp_path / "f.png")
    before = path.read_bytes()
    broken = drawn()
    broken.text(0, 0, r"$\nosuchcommand$")
    with pytest.raises(ValueError, match="nosuchcommand"):
        broken.save(path)
    assert path.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"f.png", "f.pdf"}


def test_drawing_leaves_no_setting_no_window_and_no_log(tmp_path, caplog):
    before = dict(matplotlib.rcParams)
    with caplog.at_level(logging.INFO):
        drawn().save(tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
    assert caplog.records == []
