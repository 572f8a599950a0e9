"""Confusion, curves, reliability and F1 of the six images, worked out by hand."""

from itertools import combinations

import numpy as np
import pytest

from skinlesion.reporting.figures import quality
from tests.reporting.figures.conftest import KINDS, PROBABILITIES, Y, config_of, part_of, written

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
LONG = ("squamous cell carcinoma", "melanoma", "pigmented benign keratosis of the elderly")
FEW = part_of(Y[:4], PROBABILITIES[:4])  # nothing of nv


def curves(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def cells(table, name):
    (line,) = (line for line in table if line.startswith(name))
    return line.removeprefix(name).split()


def test_a_confusion_matrix_has_counts_and_shares_of_the_true_class():
    figure = quality.confusion_matrix(FEW, "")
    shown = [[t.get_text() for t in axes.texts if t.get_visible()] for axes in figure.axes]
    # A class without an image has counts and no shares.
    assert [" ".join(texts) for texts in shown] == ["1 1 0 0 2 0 0 0 0", "50 50 0 0 100 0"]
    assert "akiec (n = 2)" in written(figure)


def test_a_table_has_value_interval_and_images_of_each_class_and_their_mean():
    table = quality.table(part_of(), "auc", "area")
    # akiec: .8 and .2 against .1 .3 .1 .5, so 4 + 2 of 8 pairs; the others beat all. Of akiec's
    # pairs with each other lesion 3 of 4 are in order, so that every draw of lesions gives 3/4.
    assert cells(table, "akiec") == ["0.750", "0.750-0.750", "2"]
    assert cells(table, "macro mean")[0::2] == ["0.917", "6"]
    assert cells(quality.table(FEW, "auc", "area", ["more", "a", "b", "c"]), "nv") == [*"--c0"]


def test_roc_has_a_curve_for_each_class_that_others_stand_against():
    akiec = curves(quality.roc(part_of(), ""))["akiec"].get_xydata()
    # Down from .8: one hit, then .5 and .3 wrong, then .2 right, then the two .1 together.
    assert akiec.tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert "nv" not in curves(quality.roc(FEW, ""))


def test_precision_recall_encloses_the_average_precision_and_shows_the_share():
    figure = quality.precision_recall(part_of(), "")
    recall, precision = curves(figure)["akiec"].get_data()
    # .8 right, .5 and .3 wrong, .2 right: 1 up to a recall of a half, then 2 of 4.
    assert (recall.tolist(), precision.tolist()) == ([1, 0.5, 0], [0.5, 1, 1])
    assert [line.get_ydata()[0] for line in figure.axes[0].lines[3:]] == [1 / 3] * 3
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert cells(legend, "akiec")[0::2] == ["0.750", "0.333"]


def test_reliability_shows_accuracy_confidence_and_images_before_and_after_scaling():
    figure = quality.reliability(part_of(), "", 2.0, "the 6 images of the validation part")
    diagram, _, below, _ = figure.axes
    # Three at 0.8, all right; two at 0.5, wrong; one at 0.6, right.
    dots = next(line for line in diagram.lines if line.get_marker() == "o")
    assert dots.get_xydata() == pytest.approx(np.array([[0.5, 0], [0.6, 1], [0.8, 1]]))
    assert [text.get_text() for text in below.texts if text.get_text()] == ["2", "1", "3"]
    # |3 - 2.4| + |0 - 1| + |1 - 0.6|, over 6
    assert "as predicted: ECE 0.333" in written(figure)
    scaled = part_of().scaled(2.0).text("ece")
    assert f"with a temperature of 2.00: ECE {scaled}" in written(figure)
    assert "least log loss on the 6 images of the validation part." in written(figure)
    assert len(quality.reliability(part_of(), "", None, "").axes) == 2


def test_risk_over_coverage_has_a_point_where_5_percent_are_wrong():
    figure = quality.risk_coverage(part_of(), "")
    curve, _, most = figure.axes[0].lines
    # Three at 0.8 and one at 0.6, all right; then two at 0.5, wrong: (2 x 2/6) / 6
    assert curve.get_xydata() == pytest.approx(np.array([[1 / 2, 0], [4 / 6, 0], [1, 2 / 6]]))
    assert most.get_xydata() == pytest.approx(np.array([[4 / 6, 0.05]]))
    assert "AURC, the mean of the curve: 0.111" in written(figure)


def test_f1_has_a_point_and_an_interval_for_each_class_and_the_mean():
    part = part_of()
    figure = quality.per_class_f1(part, "", "", {})
    # akiec: one right, one missed, one too many: 2 / 4; bcc: two right, one too many: 4 / 5;
    # nv: one right, one missed: 2 / 3
    values = [0.5, 0.8, 2 / 3, (0.5 + 0.8 + 2 / 3) / 3]
    assert curves(figure)["this run"].get_xdata() == pytest.approx(values)
    ends = [segment[:, 0] for segment in figure.axes[0].collections[0].get_segments()]
    assert ends[0].tolist() == [*part.interval("per_class.akiec.f1")]
    assert ends[3].tolist() == [*part.interval("macro.f1")]
    assert "paper" not in written(figure)


def test_the_papers_row_stands_beside_it_with_its_protocol_and_its_misprint():
    row, published = quality.published_row(config_of(), SEVEN)
    figure = quality.per_class_f1(part_of(np.arange(7), np.eye(7), SEVEN), "", row, published)
    printed = [0.68, 0.79, 0.66, 0.78, 0.54, 0.9, 0.9]
    paper, output = (curves(figure)[name].get_xdata() for name in ("paper", "paper's own output"))
    assert paper == pytest.approx([*printed, sum(printed) / 7])
    assert output == pytest.approx([0.875])
    text = "Table 5, row md_mobilenet_v2, of its own split by image, where about 42 % of"
    assert text in written(figure)
    assert "where the paper misprints it (vasc 0.875)" in written(figure)
    # What it did not measure has no row.
    others = [{"metadata": {"name": "none"}}, {"backbone": {"name": "mobilenet_v1"}}]
    for changes in (*others, {"data": {"demo": {"images": 700}}}):
        assert quality.published_row(config_of(**changes), SEVEN)[1] == {}
    assert quality.published_row(config_of(), SEVEN[::-1])[1] == {}


@pytest.mark.parametrize("name", KINDS)
def test_twenty_long_names_leave_neither_the_figure_nor_their_place(name):
    classes = tuple(f"{LONG[c % 3]} {c}" for c in range(20))
    part = part_of(np.arange(20), np.eye(20), classes)
    more = {"reliability": (2.0, "these images"), "per_class_f1": ("", {})}.get(name, ())
    figure = getattr(quality, name)(part, "a run · " * 20, *more)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in (*figure.texts, *figure.subfigs[0].texts)]
    boxes += [axes.get_tightbbox().padded(-2) for axes in figure.axes]
    assert {figure.bbox.padded(1).count_contains(box.get_points()) for box in boxes} == {2}
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
