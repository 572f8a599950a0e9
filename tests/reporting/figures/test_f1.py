"""F1 of each class, beside the paper's row where there is one."""

import numpy as np
import pytest

from skinlesion.reporting.figures.f1 import per_class_f1, published_row, row_name
from tests.reporting.figures.conftest import config_of, part_of, texts

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def lines_of(page):
    return {line.get_label(): line for line in page.figure.axes[0].lines}


def test_a_point_and_an_interval_for_each_class_and_the_mean():
    part = part_of()
    page = per_class_f1(part, {}, "")
    # akiec: one right, one missed, one too many: 2 / 4; bcc: two right, one too many: 4 / 5;
    # nv: one right, one missed: 2 / 3
    values = [0.5, 0.8, 2 / 3, (0.5 + 0.8 + 2 / 3) / 3]
    assert lines_of(page)["this run"].get_xdata() == pytest.approx(values)
    segments = page.figure.axes[0].collections[0].get_segments()
    ends = [(segment[0][0], segment[-1][0]) for segment in segments]
    assert ends[0] == pytest.approx(part.intervals["per_class.akiec.f1"])
    assert ends[3] == pytest.approx(part.intervals["macro.f1"])
    assert "paper" not in lines_of(page)
    assert "paper" not in " ".join(texts(page))


def test_the_papers_row_stands_beside_it_with_its_protocol_and_its_misprint():
    config = config_of()
    published = published_row(config, SEVEN)
    part = part_of(np.arange(7), np.eye(7), SEVEN)
    page = per_class_f1(part, published, row_name(config))
    printed = [0.68, 0.79, 0.66, 0.78, 0.54, 0.9, 0.9]
    shown = lines_of(page)
    assert shown["paper"].get_xdata() == pytest.approx([*printed, sum(printed) / 7])
    assert shown["paper's own output"].get_xdata() == pytest.approx([0.875])
    note = " ".join(texts(page))
    assert "Table 5, row md_mobilenet_v2, of its own split by image, where about 42 %" in note
    assert "where the paper misprints it (vasc 0.875)" in note


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        ({"metadata": {"name": "none"}}, SEVEN),
        ({"backbone": {"name": "mobilenet_v1"}}, SEVEN),
        ({"data": {"demo": {"images": 700}}}, SEVEN),
        ({}, SEVEN[:6]),
        ({}, SEVEN[::-1]),
    ],
)
def test_what_the_paper_did_not_measure_has_no_row(changes, classes):
    assert published_row(config_of(**changes), classes) == {}
