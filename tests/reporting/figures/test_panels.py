"""Confusion matrix, ROC, precision-recall, reliability: the six images worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest

from skinlesion.reporting.figures.confusion import confusion_matrix
from skinlesion.reporting.figures.curves import precision_recall, roc
from skinlesion.reporting.figures.page import text_width
from skinlesion.reporting.figures.reliability import reliability
from tests.reporting.figures.conftest import PROBABILITIES, Y, part_of, texts

LONG = ("squamous cell carcinoma", "melanoma", "pigmented benign keratosis of the elderly")


def written(axes):
    return [text.get_text() for text in axes.texts]


def cells_of(page, label):
    """The cells of a table's row, in the order they were written."""
    all_texts = texts(page)
    start = all_texts.index(label)
    return all_texts[start : start + 4]


def test_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    counts, shares = confusion_matrix(part_of()).figure.axes
    assert written(counts) == ["1", "1", "0", "0", "2", "0", "1", "0", "1"]
    assert written(shares) == ["50", "50", "0", "0", "100", "0", "50", "0", "50"]
    assert [t.get_text() for t in counts.get_yticklabels()] == [
        f"{name}\n(n = 2)" for name in ("akiec", "bcc", "nv")
    ]


def test_a_true_class_without_an_image_has_counts_and_no_shares():
    counts, shares = confusion_matrix(part_of(Y[:4], PROBABILITIES[:4])).figure.axes
    assert written(counts)[6:] == ["0", "0", "0"]
    assert len(written(shares)) == 6


@pytest.mark.parametrize("n_classes", [2, 3, 8, 9])
def test_no_text_of_a_confusion_matrix_leaves_the_page_or_hides_another(n_classes):
    classes = tuple(f"{LONG[c % 3]} {c}" for c in range(n_classes))
    page = confusion_matrix(part_of(np.arange(n_classes), np.eye(n_classes), classes))
    renderer = page.figure.canvas.get_renderer()
    page.figure.draw_without_rendering()
    width, height = page.figure.bbox.size
    for axes in page.figure.axes:
        box = axes.get_tightbbox(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    counts, shares = page.figure.axes
    assert counts.get_window_extent(renderer).x1 < shares.get_tightbbox(renderer).x1
    ticks = [t.get_window_extent(renderer) for t in counts.get_yticklabels()]
    assert all(low.y1 <= high.y0 + 1 for high, low in pairwise(ticks))


def test_roc_has_a_curve_its_area_and_interval_for_each_class():
    page = roc(part_of())
    axes = page.figure.axes[0]
    # akiec: .8 and .2 against .1 .3 .1 .5, so 4 + 2 of 8 pairs; the others beat all.
    assert [cells_of(page, name)[1] for name in ("akiec", "bcc", "nv")] == ["0.750", *["1.000"] * 2]
    assert cells_of(page, "macro mean")[1] == "0.917"
    assert cells_of(page, "akiec")[3] == "2"
    akiec = axes.lines[1]
    # Down from .8: one hit, then .5 and .3 wrong, then .2 right, then the two .1 together.
    assert akiec.get_xydata().tolist() == [
        *([0, 0], [0, 0.5], [0.25, 0.5], [0.5, 0.5], [0.5, 1], [1, 1])
    ]
    assert len(axes.lines) == 4


def test_intervals_follow_from_lesions():
    # Three lesions of two images, one class each. Of akiec's pairs with bcc 3 of 4 are in order,
    # and with nv, too: whatever is drawn, it is 3/4. Drawn by image it would be anything.
    assert part_of().intervals["per_class.akiec.auc"] == (0.75, 0.75)
    assert cells_of(roc(part_of()), "akiec")[2] == "0.750-0.750"


def test_precision_recall_encloses_the_average_precision_and_shows_the_share():
    page = precision_recall(part_of())
    curves = {line.get_label(): line for line in page.figure.axes[0].lines}
    x, y = curves["akiec"].get_data()
    assert curves["akiec"].get_drawstyle() == "steps-pre"
    # akiec: .8 right, .5 and .3 wrong, .2 right: 1 up to a recall of a half, then 2 of 4.
    assert (x.tolist(), y.tolist()) == ([0, 0.5, 1], [1, 1, 0.5])
    assert (np.diff(x) * y[1:]).sum() == pytest.approx(0.75)
    assert cells_of(page, "akiec")[1:] == ["0.750", cells_of(page, "akiec")[2], "0.333"]
    dotted = [line for line in page.figure.axes[0].lines if line.get_label().startswith("_")]
    assert [line.get_ydata()[0] for line in dotted] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("draw", [roc, precision_recall])
def test_a_class_without_images_has_no_curve_and_dashes(draw):
    page = draw(part_of(Y[:4], PROBABILITIES[:4]))
    assert cells_of(page, "nv")[1:3] == ["-", "-"]
    assert "nv" not in [line.get_label() for line in page.figure.axes[0].lines]


@pytest.mark.parametrize("draw", [roc, precision_recall])
def test_the_only_class_is_no_obstacle(draw):
    assert cells_of(draw(part_of(Y[:2], PROBABILITIES[:2])), "bcc")[1:3] == ["-", "-"]


def test_long_names_are_broken_and_the_page_grows_with_them():
    page = roc(part_of(classes=LONG))
    (name,) = [text for text in texts(page) if text.startswith("pigmented")]
    assert "\n" in name
    assert text_width(name, 8.5) <= 1.9
    assert page.width > roc(part_of()).width


def test_reliability_shows_accuracy_confidence_and_images_of_each_bin():
    page = reliability(part_of(), None, "")
    diagram, below = page.figure.axes
    heights = [bar.get_height() for bar in diagram.patches]
    # Three at 0.8, all right: bin 12 of 15; two at 0.5, wrong: bin 8; one at 0.6, right: bin 9.
    assert [heights[i] for i in (7, 8, 11)] == [0, 1, 1]
    assert np.isnan(heights).sum() == 12
    assert [text.get_text() for text in below.texts] == ["2", "1", "3"]
    (segments,) = (lines.get_segments() for lines in diagram.collections)
    sure = [segment[0][1] for segment in segments if len(segment)]
    assert np.array(sure)[~np.isnan(sure)] == pytest.approx([0.5, 0.6, 0.8])
    # |3 - 2.4| + |0 - 1| + |1 - 0.6|, over 6
    assert diagram.get_title(loc="left") == "as predicted: ECE 0.333"


def test_reliability_after_scaling_stands_beside_it_and_says_on_what_it_was_fitted():
    page = reliability(part_of(), 2.0, "the 6 images of the validation part, these very images")
    title = page.figure.axes[2].get_title(loc="left")
    # softmax(log p / 2) is the root of p over the sum of roots: at 0.8, 0.1, 0.1 it is 0.5858, at
    # 0.6, 0.3, 0.1 it is 0.4727, at 0.5, 0.3, 0.2 it is 0.4155 and at 0.5, 0.4, 0.1 it is 0.4268.
    # In bins: three right at .5858; .4727 right; .4155 and .4268, both in (.4, .4667], wrong.
    error = (3 * (1 - 0.5858) + (1 - 0.4727) + 0.4155 + 0.4268) / 6
    assert title == f"with a temperature of 2.00: ECE {error:.3f}"
    assert "these very images" in " ".join(texts(page))
