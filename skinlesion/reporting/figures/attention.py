"""Where a network looks: the attention maps of one image, and a panel of a run's own by class.

Attention is drawn as multiples of its mean (`skinlesion.serving.attention.top_of_scale`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from skinlesion.reporting.figures.page import GREY, Page, in_style
from skinlesion.reporting.figures.part import Part
from skinlesion.serving.attention import COLOURS, Explanation, overlay, top_of_scale

SIDE, GAP, COLUMNS = 3.0, 0.2, 8  # inches, inches, maps in a row
SMALL_GAP, BAR, TITLES = 0.06, 0.1, 0.25  # inches
CELL, LABEL = 1.3, 0.75  # inches
HOW = (
    "Attention: multiples of its mean, 1 is looking everywhere alike. Grad-CAM: 1 speaks most for "
    "the class. Both show where a network looks, not why, nor whether it is right."
)


@in_style
def explanation_figure(explanation: Explanation, name: str) -> Page:
    """Draw one image, the sum of its attention maps and Grad-CAM over it, and each map.

    Args:
        explanation: see `skinlesion.serving.attention.explain`.
        name: of the image.
    """
    maps, attention = explanation.maps, explanation.attention
    rows = 0 if maps is None else -(-len(maps) // COLUMNS)
    width = 3 * SIDE + 2 * GAP
    side = (width - (COLUMNS - 1) * SMALL_GAP) / COLUMNS
    below = rows * (side + SMALL_GAP) + (TITLES + 0.1 if rows else 0)
    grid = "x".join(map(str, explanation.cam.shape))
    prediction = explanation.prediction
    without = f", without {', '.join(prediction.missing)}" if prediction.missing else ""
    page = Page(
        width,
        SIDE + TITLES + 0.45 + below,
        f"Where the network looks: {name}",
        f"predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f} "
        f"calibrated){without}; {grid} positions, enlarged",
        HOW,
    )
    bottom = below + 0.45
    _picture(page.axes(0, bottom, SIDE, SIDE), explanation.image, "as the network is fed")
    if attention is None or maps is None:
        axes = page.axes(SIDE + GAP, bottom, SIDE, SIDE)
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no soft attention", ha="center", color=GREY)
    else:
        high = top_of_scale(attention)
        _picture(
            page.axes(SIDE + GAP, bottom, SIDE, SIDE),
            overlay(explanation.image, attention, high),
            f"sum of the {len(maps)} attention maps",
        )
        _scale(page, SIDE + GAP, bottom, high, f"{attention.min():.2f} to {attention.max():.2f}")
        relative = maps * maps[0].size  # multiples of each map's mean
        highest = top_of_scale(relative)
        page.text(0, below - 0.15, f"each map, dark 0, bright {highest:.1f} times its mean", size=9)
        for i, values in enumerate(relative):
            row, column = divmod(i, COLUMNS)
            left = column * (side + SMALL_GAP)
            axes = page.axes(left, below - TITLES - (row + 1) * (side + SMALL_GAP), side, side)
            axes.imshow(values, cmap=COLOURS, vmin=0, vmax=highest)
            axes.set_axis_off()
    _picture(
        page.axes(2 * (SIDE + GAP), bottom, SIDE, SIDE),
        overlay(explanation.image, explanation.cam, 1),
        f"Grad-CAM for {explanation.target}",
    )
    _scale(
        page, 2 * (SIDE + GAP), bottom, 1, "" if explanation.cam.any() else "nothing speaks for it"
    )
    return page


def choose(part: Part) -> dict[str, tuple[int | None, int | None]]:
    """Return for each class the rows of its surest right answer and its surest mistake."""
    predicted, confidence = part.probabilities.argmax(axis=1), part.probabilities.max(axis=1)
    chosen: dict[str, tuple[int | None, int | None]] = {}
    for c, label in enumerate(part.classes):
        right, wrong = (
            np.flatnonzero((part.y == c) & ((predicted == c) == told)) for told in (True, False)
        )
        chosen[label] = tuple(  # type: ignore[assignment]
            int(rows[confidence[rows].argmax()]) if len(rows) else None for rows in (right, wrong)
        )
    return chosen


@in_style
def class_panel(part: Part, explain: Callable[[str], Explanation]) -> Page:
    """Draw, for each class, the surest right answer and the surest mistake of a part.

    Args:
        part: the part.
        explain: an explanation by image id.
    """
    chosen = choose(part)
    height = len(chosen) * (CELL + TITLES)
    width = LABEL + 6 * (CELL + SMALL_GAP) + GAP
    shape, attends = (), True
    drawn: list[tuple[int, int, Explanation]] = []
    for r, rows in enumerate(chosen.values()):
        for side, row in enumerate(rows):
            if row is not None:
                found = explain(str(part.predictions.frame["image_id"].iloc[row]))
                shape, attends = found.cam.shape, found.maps is not None
                drawn.append((r, side, found))
    page = Page(
        width,
        height + TITLES,
        "Where the network looks, by class",
        f"{part.about}; {'x'.join(map(str, shape))} positions, enlarged",
        HOW + ("" if attends else " This network has no soft attention."),
    )
    heads: Sequence[str] = ("surest right", "attention", "Grad-CAM")
    for side in (0, 1):
        for k, head in enumerate(heads):
            text = "surest wrong" if side and k == 0 else head
            page.text(_left(side, k), height + 0.08, text, size=8, weight="bold")
    for r, label in enumerate(chosen):
        bottom = height - (r + 1) * (CELL + TITLES)
        page.text(0, bottom + CELL / 2, label, size=9, weight="bold")
        for side, row in enumerate(chosen[label]):
            if row is None:
                page.text(_left(side, 0), bottom + CELL / 2, "none", size=8, color=GREY)
    for r, side, found in drawn:
        bottom = height - (r + 1) * (CELL + TITLES)
        pictures: list[Any] = [found.image, None, overlay(found.image, found.cam, 1)]
        if found.attention is not None:
            high = top_of_scale(found.attention)
            pictures[1] = overlay(found.image, found.attention, high)
        for k, picture in enumerate(pictures):
            if picture is not None:
                page.picture(_left(side, k), bottom, CELL, picture)
        p = found.prediction
        said = f"{p.label} {p.raw[p.label]:.2f}"
        page.text(_left(side, 0), bottom + CELL + 0.04, said, size=7.5, color=GREY)
        if found.attention is not None:
            spread = f"{found.attention.min():.2f} to {found.attention.max():.2f}"
            page.text(_left(side, 1), bottom + CELL + 0.04, spread, size=7.5, color=GREY)
    return page


def _left(side: int, column: int) -> float:
    return LABEL + side * (3 * (CELL + SMALL_GAP) + GAP) + column * (CELL + SMALL_GAP)


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, loc="left")


def _scale(page: Page, left: float, bottom: float, high: float, range_: str) -> None:
    """Draw the colours of a picture below it."""
    axes = page.axes(left, bottom - 0.2, SIDE / 2, BAR)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=COLOURS, aspect="auto", extent=(0, high, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 1, high] if high > 1 else [0, 1])
    axes.set_xticklabels(
        f"{tick:g}" if tick == int(tick) else f"{tick:.1f}" for tick in axes.get_xticks()
    )
    axes.tick_params(labelsize=7.5, length=2)
    axes.spines[:].set_visible(False)
    if range_:
        page.text(left + SIDE / 2 + 0.12, bottom - 0.2, range_, size=7.5, color=GREY)
