"""Figures that show images: mistakes, and where a network looks.

Those of a part take it, and `about`: the line that says of which run and images it is. Attention is
drawn as multiples of its mean (`skinlesion.serving.attention.top_of_scale`).
"""

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from skinlesion.data.run_images import RunImages
from skinlesion.data.schema import UNKNOWN
from skinlesion.evaluation.measured import Measured
from skinlesion.reporting.figures.style import GREY, SMALL, in_style, new_figure

if TYPE_CHECKING:  # torch takes seconds to import, which the other figures need not wait for
    from skinlesion.serving.attention import Explanation

SHOWN = 6  # mistakes of a class
PIXELS = 300  # of a mistake's side at most, 250 a printed inch
LETTERS = 22  # under a picture
COLUMNS = 8  # maps in a row
LEFTS = ((0.0, 1.05, 2.1), (3.3, 4.35, 5.4))  # of the pictures of an image in the panel
HOW = (
    "Attention: multiples of its mean, 1 is looking everywhere alike. Grad-CAM: 1 speaks most for "
    "the class. Both show where a network looks, not why, nor whether it is right."
)


@in_style
def mistakes(part: Measured, about: str, images: RunImages) -> Figure:
    """Draw, for each true class, the images that the network was surest to put into another.

    Args:
        part, about: see the module.
        images: of the run.

    Raises:
        SkinlesionError: if an image is not there or cannot be read.
    """
    rows = [surest(part, c, correct=False) for c in range(len(part.classes))]
    names = ["the predicted class and its probability", *images.properties, "the image's name"]
    heights = [1.0 if row else 0.3 for row in rows]
    figure, body = new_figure(
        9.4,
        1.8 * sum(heights),
        "Mistakes, the surest of each true class",
        about,
        f"At each picture: {', '.join(names)}.",
    )
    panels = body.subplots(len(rows), squeeze=False, height_ratios=heights)[:, 0]
    for c, (row, height, axes) in enumerate(zip(rows, heights, panels, strict=True)):
        for k, i in enumerate(row[:SHOWN]):
            image_id = str(part.predictions.frame["image_id"].iloc[i])
            image = Image.fromarray(images.pixels(image_id))
            side = min(PIXELS, *image.size)
            square = ImageOps.fit(image, (side, side))  # as the network sees it
            _place(axes, square, 1.12 * k, 0, told(part, i), color="black")
            text = caption(images, image_id)
            axes.text(1.12 * k, -0.02, text, fontsize=SMALL - 0.5, color=GREY, va="top")
        if not row:
            none = "no mistakes" if part.support(c) else "no image of this class"
            axes.text(0, 1, none, color=GREY, va="top")
        share = f"\n{len(row):,} of {part.support(c):,} wrong" if part.support(c) else ""
        axes.set_yticks([1], [textwrap.fill(part.classes[c], 18) + share], va="top")
        _blank(axes, (0, 1.12 * SHOWN), (1 - height, 1))
    return figure


def surest(part: Measured, c: int, correct: bool) -> list[int]:
    """Return the rows of a class that were classified correctly, or not, the surest first."""
    predicted, confidence = part.probabilities.argmax(axis=1), part.probabilities.max(axis=1)
    rows = np.flatnonzero((part.y == c) & ((predicted == c) == correct))
    return [int(row) for row in rows[np.argsort(-confidence[rows], kind="stable")]]


def told(part: Measured, row: int) -> str:
    """Return the predicted class of a row and its probability; what is not sure is not 1."""
    confidence = part.probabilities[row].max()
    share = ">0.99" if confidence >= 0.995 else f"{confidence:.2f}"
    return textwrap.fill(f"{part.classes[part.probabilities[row].argmax()]} ({share})", LETTERS)


def caption(images: RunImages, image_id: str) -> str:
    """Return an image's metadata and its name in lines, `55 · male · back`."""
    words = []
    for name, value in images.metadata(image_id).items():
        unknown = value == UNKNOWN or value != value  # NaN
        written = f"{value:g}" if isinstance(value, float) else str(value)
        words.append(f"{name} unknown" if unknown else written)
    return "\n".join([*textwrap.wrap(" · ".join(words), LETTERS), image_id])


@in_style
def class_panel(part: Measured, about: str, explain: Callable[[str], "Explanation"]) -> Figure:
    """Draw, for each class, its surest image that was classified correctly, and wrongly.

    Args:
        part, about: see the module.
        explain: an explanation by image id.
    """
    from skinlesion.serving.attention import overlay, top_of_scale

    ids = part.predictions.frame["image_id"].to_numpy(dtype=str)
    found = [
        [[explain(ids[i]) for i in surest(part, c, correct)[:1]] for correct in (True, False)]
        for c in range(len(part.classes))
    ]
    some = next(seen for both in found for one in both for seen in one)
    names = [textwrap.fill(name, 14) for name in part.classes]
    figure, body = new_figure(
        9.6,
        1.6 * len(names) + 0.2,
        "Where the network looks, by class",
        f"{about}; {_positions(some)}",
        HOW + ("" if some.maps is not None else " This network has no soft attention."),
    )
    axes = body.subplots()
    for lefts, head in zip(LEFTS, ("surest right", "surest wrong"), strict=True):
        for x, text in zip(lefts, (head, "attention", "Grad-CAM"), strict=True):
            axes.text(x, 1.22, text)
    for r, both in enumerate(found):
        y = -1.22 * r
        for (left, middle, right), one in zip(LEFTS, both, strict=True):
            for seen in one:
                label, attention = seen.prediction.label, seen.attention
                _place(axes, seen.image, left, y, f"{label} {seen.prediction.raw[label]:.2f}")
                _place(axes, overlay(seen.image, seen.cam, 1), right, y)
                if attention is not None:
                    drawn = overlay(seen.image, attention, top_of_scale(attention))
                    _place(axes, drawn, middle, y, _span(attention))
            if not one:
                axes.text(left, y + 0.5, "none", color=GREY)
    axes.set_yticks(0.5 - 1.22 * np.arange(len(names)), names)
    _blank(axes, (-0.05, 6.4), (1.22 - 1.22 * len(names), 1))
    return figure


@in_style
def explanation_figure(explanation: "Explanation", name: str) -> Figure:
    """Draw one image, the sum of its attention maps and Grad-CAM over it, and each map.

    Args:
        explanation: see `skinlesion.serving.attention.explain`.
        name: of the image.
    """
    from skinlesion.serving.attention import COLOURS, overlay, top_of_scale

    maps, attention, prediction = explanation.maps, explanation.attention, explanation.prediction
    rows = 0 if maps is None else -(-len(maps) // COLUMNS)
    without = f", without {', '.join(prediction.missing)}" if prediction.missing else ""
    figure, body = new_figure(
        9.4,
        3.5 + 1.2 * rows,
        f"Where the network looks: {name}",
        f"predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f} "
        f"calibrated){without}; {_positions(explanation)}",
        HOW,
    )
    parts: Any = body.subfigures(2, height_ratios=[3.5, 1.2 * rows + 0.01])
    panels = parts[0].subplots(1, 3)
    shown = [("as the network is fed", explanation.image, 0.0), ("no soft attention", None, 0.0)]
    if maps is not None and attention is not None:
        high = top_of_scale(attention)
        title = f"sum of the {len(maps)} attention maps: {_span(attention)}"
        shown[1] = (title, overlay(explanation.image, attention, high), high)
        relative = maps * maps[0].size  # multiples of each map's mean
        highest = top_of_scale(relative)
        below = parts[1].subplots()
        for i, values in enumerate(relative):
            x, y = 1.04 * (i % COLUMNS), -1.04 * (i // COLUMNS)
            _place(below, values, x, y, cmap=COLOURS, norm=Normalize(0, highest))
        below.set_title(f"each map, dark 0, bright {highest:.1f} times its mean")
        _blank(below, (0, 1.04 * COLUMNS), (1.04 - 1.04 * rows, 1))
    nothing = "" if explanation.cam.any() else ": nothing speaks for it"
    cam = overlay(explanation.image, explanation.cam, 1)
    shown.append((f"Grad-CAM for {explanation.target}{nothing}", cam, 1.0))
    for axes, (title, image, high) in zip(panels, shown, strict=True):
        axes.set_title(title)
        axes.set_axis_off()
        if image is not None:
            axes.imshow(image)
        if high:
            scale = ScalarMappable(Normalize(0, high), COLOURS)
            under: Any = {"location": "bottom", "shrink": 0.5, "aspect": 14, "pad": 0.03}
            bar = parts[0].colorbar(scale, ax=axes, anchor=(0, 1), **under)
            bar.set_ticks([0, 1, high] if high > 1 else [0, 1], format="{x:.3g}")
    return figure


def _positions(explanation: "Explanation") -> str:
    return f"{'x'.join(map(str, explanation.cam.shape))} positions, enlarged"


def _span(values: np.ndarray) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def _place(
    axes: Axes, image: Any, x: float, y: float, text: str = "", color: str = GREY, **look: Any
) -> None:
    """Draw an image as a square of side 1, and a text above it."""
    axes.imshow(image, extent=(x, x + 1, y, y + 1), **look)
    axes.text(x, y + 1.03, text, fontsize=SMALL, color=color)


def _blank(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Leave of the axes nothing but what was placed and the names at their left."""
    axes.set(xlim=x, ylim=y, xticks=[], aspect="equal", anchor="NW")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
