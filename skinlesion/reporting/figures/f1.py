"""F1 of each class with its interval, beside the row of the paper's Table 5 where there is one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from skinlesion.reporting.figures.page import (
    BLUE,
    GREY,
    VERMILLION,
    Page,
    column_widths,
    in_style,
    text_width,
    wrap,
)
from skinlesion.reporting.figures.part import Part
from skinlesion.reporting.published import Cell, read_published

TABLE, SIGMA = 5, "sigma"
NAME = 1.9  # inches that a class's name may be wide before it is broken
SIZE, ROW, PLOT, LOW, SPACE = 8.5, 0.32, 4.0, 0.5, 0.16  # points, then inches
PAPER = (
    "The paper's values: Table {table}, row {row}, of its own split by image, where about 42 % of "
    "the held-out images show a lesion that is also in training; the mean is that of the seven."
)
OURS = (
    "n: images of the class. Intervals: 95 %, lesions drawn 1,000 times; they do "
    "not cover the noise of training."
)


def published_row(config: DictConfig, classes: tuple[str, ...]) -> dict[str, Cell]:
    """Return the paper's cells of the run's backbone by class; empty where there is none.

    There is one for HAM10000's classes and photographs, and for networks with metadata.
    """
    with_metadata = OmegaConf.select(config, "metadata.name") not in (None, "none")
    drawn = OmegaConf.select(config, "data.demo") is not None
    if drawn or not with_metadata:
        return {}
    cells = read_published()
    row = row_name(config)
    found = {
        column: cell
        for (table, name, column), cell in cells.items()
        if (table, name) == (TABLE, row) and column != SIGMA and cell.published
    }
    return found if tuple(found) == classes else {}


def row_name(config: DictConfig) -> str:
    """Return the name of the paper's row of a backbone with metadata, whether there is one."""
    return f"md_{OmegaConf.select(config, 'backbone.name')}"


@in_style
def per_class_f1(part: Part, published: Mapping[str, Cell], row: str) -> Page:
    """Draw a point and interval for each class and for their mean, the paper's beside them.

    Args:
        part: the part.
        published: the paper's cells by class, all or none; see :func:`published_row`.
        row: its name.
    """
    names = [*("\n".join(wrap(name, NAME, SIZE)) for name in part.classes), "macro mean"]
    addresses = [*(part.address(c, "f1") for c in range(len(part.classes))), "macro.f1"]
    supports = [*(f"{part.support(c):,}" for c in range(len(part.classes))), ""]
    printed = [cell.value for cell in published.values() if cell.value is not None]
    printed = [*printed, float(np.mean(printed))] if published else []  # it prints no mean
    places = np.append(np.arange(len(part.classes)), len(part.classes) + 0.3)

    header, rows = ["F1", "95 % interval"], [[*part.words(address)] for address in addresses]
    if published:
        header.append("paper")
        rows = [[*cells, f"{value:.2f}"] for cells, value in zip(rows, printed, strict=True)]
    header, rows = [*header, "n"], [[*cells, n] for cells, n in zip(rows, supports, strict=True)]

    widths = column_widths([header, *rows], SIZE)
    left = max(text_width(name, SIZE, "bold") for name in names) + 0.1
    rights = left + PLOT + SPACE / 2 + np.cumsum(widths) + SPACE * np.arange(1, len(widths) + 1)
    height = ROW * (places[-1] + 1)
    page = Page(
        rights[-1],
        LOW + height + 0.3,
        "F1 of each class",
        part.about,
        " ".join([*_notes(published, row), OURS]),
    )
    axes = page.axes(left, LOW, PLOT, height, xlim=(0, 1), ylim=(places[-1] + 0.5, -0.5))
    lows, highs = zip(*(part.intervals[address] for address in addresses), strict=True)
    axes.hlines(places, lows, highs, color=BLUE, linewidth=2.5, alpha=0.55, label="95 % interval")
    ours: Any = {"linestyle": "", "marker": "o", "color": BLUE, "clip_on": False}
    axes.plot([part.value(address) for address in addresses], places, label="this run", **ours)
    if published:
        _paper(axes, published, part.classes, printed, places)
    axes.set(xlabel="F1")
    axes.set_yticks(places, names, fontsize=SIZE, linespacing=1.0)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x")
    axes.axhline(places[-2] + 0.65, color=GREY, linewidth=0.6)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, columnspacing=1.2, handlelength=1.2
    )
    page.row(rights, LOW + height + 0.12, header, fontsize=SIZE, color=GREY)
    for place, cells in zip(places, rows, strict=True):
        weight = "bold" if place == places[-1] else "normal"
        y = LOW + height - ROW * (place + 0.5)
        page.row(rights, y, cells, fontsize=SIZE, fontweight=weight)
    return page


def _wrong(published: Mapping[str, Cell]) -> dict[str, float]:
    """Return the audited value of each class whose printed one is known to be wrong."""
    return {
        name: cell.audited
        for name, cell in published.items()
        if cell.audited is not None and "; " in cell.source
    }


def _notes(published: Mapping[str, Cell], row: str) -> list[str]:
    if not published:
        return []
    wrong = _wrong(published)
    audited = ", ".join(f"{name} {value:.3f}" for name, value in wrong.items())
    return [
        PAPER.format(table=TABLE, row=row),
        *(
            [f"Hollow: the authors' own output, where the paper misprints it ({audited})."]
            if wrong
            else []
        ),
    ]


def _paper(
    axes: Axes,
    published: Mapping[str, Cell],
    classes: tuple[str, ...],
    printed: list[float],
    places: NDArray[np.float64],
) -> None:
    """Mark the paper's values, a little below the run's, so that none hides the other."""
    places = places + 0.2
    marker: Any = {"linestyle": "", "marker": "D", "markersize": 5, "clip_on": False}
    axes.plot(printed, places, color=VERMILLION, label="paper", **marker)
    if wrong := _wrong(published):
        axes.plot(
            *(list(wrong.values()), [places[classes.index(name)] for name in wrong]),
            **marker | {"markerfacecolor": "none"},
            color=VERMILLION,
            label="paper's own output",
        )
