"""The reliability diagram: is what the network is sure of as often right as it says?"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from skinlesion.evaluation.calibration import scale
from skinlesion.evaluation.metrics import binned_errors, ece
from skinlesion.reporting.figures.page import BLUE, GREY, PALE, VERMILLION, Page, in_style
from skinlesion.reporting.figures.part import Part

BINS = 15
SIDE, COUNTS, LEFT, LOW, GAP, BETWEEN = 2.9, 1.0, 0.6, 0.5, 0.2, 0.35  # inches


@in_style
def reliability(part: Part, temperature: float | None, fitted_on: str) -> Page:
    """Draw accuracy over confidence, before and after temperature scaling, and each bin's images.

    Args:
        part: the part.
        temperature: T, or None where there was nothing to fit it on: then only before.
        fitted_on: the images that T was fitted on, in words.
    """
    panels = [("as predicted", part.probabilities)]
    if temperature is not None:
        title = f"with a temperature of {temperature:.2f}"
        panels.append((title, scale(part.probabilities, temperature)))
    fitted = (
        "" if temperature is None else f"The temperature has the least log loss on {fitted_on}."
    )
    page = Page(
        max(LEFT + len(panels) * (SIDE + BETWEEN) - BETWEEN, 5.5),
        LOW + COUNTS + GAP + SIDE + 0.5,
        "Reliability: confidence and accuracy",
        part.about,
        f"Confidence: the probability of the predicted class. {fitted} ECE: mean distance between "
        f"confidence and accuracy over {BINS} bins, weighted by their images.",
    )
    most = max(_bins(part.y, probabilities)[0].max() for _, probabilities in panels)
    for i, (title, probabilities) in enumerate(panels):
        left = LEFT + i * (SIDE + BETWEEN)
        diagram = page.axes(left, LOW + COUNTS + GAP, SIDE, SIDE)
        below = page.axes(left, LOW, SIDE, COUNTS, sharex=diagram)
        _draw(diagram, below, part.y, probabilities)
        diagram.set_title(f"{title}: ECE {ece(part.y, probabilities, BINS):.3f}")
        below.set(ylim=(0, most * 1.45), xlabel="confidence")
        if i == 0:
            diagram.set_ylabel("accuracy")
            below.set_ylabel("images")
            # Above the titles, where no bar can be.
            diagram.legend(loc="lower left", bbox_to_anchor=(-0.03, 1.06), ncols=2)
        else:
            for axes in (diagram, below):
                axes.tick_params(labelleft=False)
    return page


def _bins(
    y: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return images, accuracy and mean confidence of each bin (BINS,); NaN for an empty one."""
    bins, _ = binned_errors(y, probabilities, BINS)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    # A confidence is above 0: bins run from 1.
    count, right, sure = (
        np.bincount(bins, weights=weights, minlength=BINS + 1)[1:]
        for weights in (None, correct, confidence)
    )
    filled = np.where(count > 0, count, np.nan)
    return count.astype(np.int64), right / filled, sure / filled


def _draw(
    diagram: Axes, below: Axes, y: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> None:
    count, accuracy, confidence = _bins(y, probabilities)
    centre = (np.arange(BINS) + 0.5) / BINS
    width = 0.9 / BINS
    diagram.bar(centre, accuracy, width, color=BLUE, alpha=0.75, label="accuracy in the bin")
    diagram.hlines(
        *(confidence, centre - width / 2, centre + width / 2),
        color=VERMILLION,
        linewidth=2,
        label="mean confidence in the bin",
    )
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    diagram.set(xlim=(0, 1), ylim=(0, 1))
    diagram.tick_params(labelbottom=False)
    diagram.grid(visible=True)
    below.bar(centre, count, width, color=PALE, edgecolor=GREY, linewidth=0.5)
    for x, n in zip(centre, count, strict=True):
        if n:
            look: Any = {"fontsize": 6.5, "ha": "center", "va": "bottom", "rotation": 90}
            below.annotate(f"{n:,}", (x, n), (0, 2), textcoords="offset points", **look)
