"""The confusion matrix: how many, and what share of each true class."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray

from skinlesion.reporting.figures.page import Page, in_style, text_width, wrap
from skinlesion.reporting.figures.part import Part

NAME = 1.5  # inches that a class's name may be wide before it is broken
SIZE, SMALLEST = 8.5, 6.5  # of text, points
CELL, LEAST = 0.46, 2.5  # inches: a cell, a matrix of few
GAP, HEADING, LABEL, TICK = 0.3, 0.25, 0.25, 0.08


@in_style
def confusion_matrix(part: Part) -> Page:
    """Draw two panels: counts, coloured by their logarithm, and shares of the true class.

    The diagonal of the second is the recall. A true class without an image has an empty row.
    """
    counts = np.array(part.metrics["confusion"])  # (C, C)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0)

    n_classes = len(part.classes)
    cell = max(CELL, LEAST / n_classes)
    side = cell * n_classes
    names = ["\n".join(wrap(name, NAME, SIZE)) for name in part.classes]
    lines = max(name.count("\n") for name in names) + 1
    widest = max(text_width(name, SIZE) for name in names)
    upright = widest < cell - 0.05
    slanted = (widest + lines * SIZE / 72) * np.sin(np.pi / 4)
    below = TICK + (0.18 if upright else slanted) + LABEL
    supports = [f"{name}\n(n = {n:,})" for name, n in zip(names, rows[:, 0], strict=True)]
    left = max(widest, max(text_width(f"(n = {n:,})", SMALLEST + 1) for n in rows[:, 0]))
    left += LABEL + TICK

    page = Page(
        left + 2 * side + GAP + (0 if upright else 0.1),
        below + side + HEADING,
        "Confusion matrix",
        part.about,
        "Colour: the logarithm of the count, and the share of the row. n: images of the class.",
    )
    first = page.axes(left, below, side, side)
    second = page.axes(left + side + GAP, below, side, side)
    _matrix(first, counts, LogNorm(vmin=0.8, vmax=max(counts.max(), 2)), "{:,}")
    _matrix(second, 100 * shares, Normalize(0, 100), "{:.0f}")
    first.set_title("images")
    second.set_title("% of the true class (diagonal: recall)")
    first.set_yticks(range(n_classes), supports, fontsize=SIZE - 1, linespacing=1.05)
    first.set_ylabel("true")
    second.set_yticks([])
    for axes in (first, second):
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        level = {"va": "baseline"}  # and not by the height of their letters
        look = {"fontsize": SIZE, "linespacing": 1.0} | (level if upright else turned)
        axes.set_xticks(range(n_classes), names, **look)
        axes.tick_params(axis="x", pad=SIZE + 4 if upright else 4)
        axes.set_xlabel("predicted")
        axes.yaxis.set_label_coords(-(left - LABEL + 0.05) / side, 0.5)
        axes.xaxis.set_label_coords(0.5, -(below - LABEL + 0.05) / side)
    return page


def _matrix(axes: Axes, values: NDArray, norm: Normalize, form: str) -> None:
    """Draw one matrix, each cell with its number."""
    shown = np.ma.masked_invalid(values)
    # What is 0 has no logarithm, and is white anyway.
    axes.imshow(np.ma.masked_equal(shown, 0), cmap="Blues", norm=norm)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        dark = value > 0 and norm(value) > 0.6
        text = form.format(value)
        ink = "white" if dark else "black" if value else "#AAAAAA"
        look: Any = {"ha": "center", "va": "center", "color": ink}
        look["fontsize"] = SIZE if len(text) < 5 else SMALLEST
        axes.text(column, row, text, **look)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
