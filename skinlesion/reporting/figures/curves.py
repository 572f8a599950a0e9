"""ROC and precision-recall curves of each class against the rest, with areas and intervals.

Beside the curves stands a table, so that a legend hides none and numbers stand under each other.
"""

import numpy as np
from matplotlib.axes import Axes

from skinlesion.evaluation.metrics import ranked_counts
from skinlesion.reporting.figures.page import GREY, Page, column_widths, in_style, line_look, wrap
from skinlesion.reporting.figures.part import AVERAGE_PRECISION, Part

SIDE, LEFT, LOW, GAP = 3.6, 0.55, 0.5, 0.3  # inches
NAME = 1.9  # inches that a class's name may be wide before it is broken
SIZE, ROW, HANDLE, SPACE = 8.5, 0.27, 0.32, 0.16  # points, then inches
INTERVALS = "Intervals: 95 %, lesions drawn 1,000 times."


@in_style
def roc(part: Part) -> Page:
    """Draw the ROC curve of each class, its area and interval beside it."""
    supports = [part.support(c) for c in range(len(part.classes))]
    page, axes = _curves(
        part,
        metric="auc",
        title="ROC curves, each class against the rest",
        header=("class", "area", "95 % interval", "n"),
        last=[f"{n:,}" for n in supports],
        note=f"n: images of the class. {INTERVALS}",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", zorder=1)
    for c, n in enumerate(supports):
        if 0 < n < len(part.y):
            tp, fp = ranked_counts(part.y == c, part.probabilities[:, c])
            x, y = np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1])
            axes.plot(x, y, **line_look(c), label=part.classes[c], clip_on=False)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity (recall)")
    return page


@in_style
def precision_recall(part: Part) -> Page:
    """Draw the precision-recall curve of each class, and the precision of guessing: its share."""
    supports = [part.support(c) for c in range(len(part.classes))]
    shares = [n / len(part.y) for n in supports]
    page, axes = _curves(
        part,
        metric=AVERAGE_PRECISION,
        title="Precision-recall curves, each class against the rest",
        header=("class", "area", "95 % interval", "share"),
        last=[f"{share:.3f}" for share in shares],
        note="area: average precision. share: of the class among these images, the precision of "
        f"guessing, dotted. {INTERVALS}",
    )
    for c, share in enumerate(shares):
        look = line_look(c)
        axes.axhline(share, color=look["color"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        if share > 0:
            tp, fp = ranked_counts(part.y == c, part.probabilities[:, c])
            # Each precision holds from the recall before it, so that the area under the steps is
            # the number; where recall stands still, a step has no width.
            wide = np.diff(tp, prepend=0) > 0
            x, y = (tp / tp[-1])[wide], (tp / (tp + fp))[wide]
            x, y = np.append(0, x), np.append(y[0], y)
            axes.plot(x, y, **look, drawstyle="steps-pre", label=part.classes[c], clip_on=False)
    axes.set(xlabel="recall", ylabel="precision")
    return page


def _curves(
    part: Part,
    metric: str,
    title: str,
    header: tuple[str, str, str, str],
    last: list[str],
    note: str,
) -> tuple[Page, Axes]:
    """Lay out the page: empty axes, and beside them the table."""
    rows = [
        ("\n".join(wrap(name, NAME, SIZE)), *part.words(part.address(c, metric)), last[c])
        for c, name in enumerate(part.classes)
    ]
    mean = ("macro mean", *part.words(f"macro.{metric}"), "")
    widths = column_widths([header, *rows, mean], SIZE)
    height = max(SIDE, ROW * (len(rows) + 3))
    beside = LEFT + SIDE + GAP
    names = beside + HANDLE + SPACE
    rights = names + np.cumsum(widths) + SPACE * np.arange(len(widths))
    page = Page(rights[-1], LOW + height + 0.05, title, part.about, note)
    axes = page.axes(LEFT, LOW + height - SIDE, SIDE, SIDE)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(visible=True)

    def write(cells: tuple[str, ...], y: float, **look: str) -> None:
        # A name of two lines is centred as a whole.
        va = "center" if "\n" in cells[0] else "center_baseline"
        page.text(names, y, cells[0], fontsize=SIZE, va=va, linespacing=1.0, **look)
        page.row(rights[1:], y, cells[1:], fontsize=SIZE, **look)

    handles = page.axes(beside, LOW, HANDLE, height, xlim=(0, 1), ylim=(0, height))
    handles.axis("off")
    top = LOW + height - ROW / 2
    write(header, top, color=GREY)
    for c, row in enumerate(rows):
        y = top - ROW * (c + 1)
        write(row, y)
        handles.plot([0, 1], [y - LOW + 0.02] * 2, linewidth=2, **line_look(c))
    write(mean, top - ROW * (len(rows) + 1.3), fontweight="bold")
    return page, axes
