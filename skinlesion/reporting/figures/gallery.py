"""Figures that show images: mistakes, and where a network looks.

Those of a part take it, and `about`: the line that says of which run and images it is; and then the
run's images, or what explains the image of an id. Attention is drawn as multiples of its mean
(`skinlesion.serving.attention.top_of_scale`).
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
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
SHAP = (
    " Kernel SHAP: bright is what adds most to the probability when it is shown, dark what adds "
    "nothing or takes from it."
)


@in_style
def mistakes(part: Measured, about: str, images: RunImages) -> Figure:
    """Draw, for each true class, the images that the network was surest to put into another.

    Raises:
        SkinlesionError: if an image is not there or cannot be read.
    """
    ids = part.predictions.frame["image_id"].to_numpy(dtype=str)
    rows = [surest(part, c, correct=False) for c in range(len(part.classes))]
    texts = [[(predicted(part, i), caption(images, ids[i])) for i in row[:SHOWN]] for row in rows]
    lines = [max((f"{a}{b}".count("\n") + 2 for a, b in row), default=0) for row in texts]
    names = ["the predicted class and its probability", *images.properties, "the image's name"]
    figure, body = new_figure(
        9.4,
        sum(1.4 + 0.13 * n if n else 0.5 for n in lines),
        "Mistakes, the surest of each true class",
        about,
        f"At each picture: {', '.join(names)}.",
    )
    heights = [1.0 if row else 0.3 for row in rows]
    panels = body.subplots(len(rows), squeeze=False, height_ratios=heights)[:, 0]
    for c, (row, height, axes) in enumerate(zip(rows, heights, panels, strict=True)):
        for k, (i, (above, below)) in enumerate(zip(row, texts[c], strict=False)):
            image = Image.fromarray(images.pixels(ids[i])[..., :3])  # a mask behind it is not shown
            side = min(PIXELS, *image.size)
            square = ImageOps.fit(image, (side, side))  # as the network sees it
            _place(axes, square, 1.12 * k, 0, above, color="black")
            axes.text(1.12 * k, -0.02, below, fontsize=SMALL - 0.5, color=GREY, va="top")
        none = "no mistakes" if part.support(c) else "no image of this class"
        if not row:
            axes.text(0, 1, none, color=GREY, va="top")
        share = f"\n{len(row):,} of {part.support(c):,} wrong" if part.support(c) else ""
        name = textwrap.fill(part.classes[c], 18) + share
        _blank(axes, 1.12 * SHOWN, 1 - height, {1 - height / 2: name})
    return figure


def surest(part: Measured, c: int, correct: bool) -> list[int]:
    """Return the rows of a class that were classified correctly, or not, the surest first."""
    predicted, confidence = part.probabilities.argmax(axis=1), part.probabilities.max(axis=1)
    rows = np.flatnonzero((part.y == c) & ((predicted == c) == correct))
    return [int(row) for row in rows[np.argsort(-confidence[rows], kind="stable")]]


def predicted(part: Measured, row: int) -> str:
    """Return the predicted class of a row and its probability; what is not quite sure is not 1."""
    confidence = part.probabilities[row].max()
    share = ">0.99" if confidence >= 0.995 else f"{confidence:.2f}"
    return textwrap.fill(f"{part.classes[part.probabilities[row].argmax()]} ({share})", LETTERS - 3)


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
    """Draw, for each class, its surest image that was classified correctly, and wrongly."""
    from skinlesion.serving.attention import overlay, top_of_scale

    ids = part.predictions.frame["image_id"].to_numpy(dtype=str)
    found = [
        [[explain(ids[i]) for i in surest(part, c, correct)[:1]] for correct in (True, False)]
        for c in range(len(part.classes))
    ]
    some = next(seen for both in found for one in both for seen in one)
    figure, body = new_figure(
        9.6,
        1.6 * len(found) + 0.2,
        "Where the network looks, by class",
        f"{about}; {'x'.join(map(str, some.cam.shape))} positions, enlarged",
        HOW + ("" if some.maps is not None else " This network has no soft attention."),
    )
    axes = body.subplots()
    for lefts, head in zip(LEFTS, ("surest correct", "surest wrong"), strict=True):
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
                    span = f"{attention.min():.2f} to {attention.max():.2f}"
                    _place(axes, drawn, middle, y, span)
            if not one:
                axes.text(left, y + 0.5, "none", color=GREY)
    places = {0.5 - 1.22 * r: textwrap.fill(name, 14) for r, name in enumerate(part.classes)}
    _blank(axes, 6.4, 1.22 - 1.22 * len(found), places)
    return figure


@in_style
def explanation_figure(
    explanation: "Explanation",
    name: str,
    methods: Sequence[str] = ("soft-attention", "grad-cam"),
) -> Figure:
    """Draw an image, the sum of its attention maps, Grad-CAM and Kernel SHAP over it, and each map.

    Args:
        explanation: see `skinlesion.serving.attention.explain`.
        name: of the image.
        methods: which of them, by their names on the command line.
    """
    from skinlesion.serving.attention import COLOURS, overlay, top_of_scale

    maps, attention, prediction = explanation.maps, explanation.attention, explanation.prediction
    maps = maps if "soft-attention" in methods else None
    rows = 0 if maps is None else -(-len(maps) // COLUMNS)
    without = f", without {', '.join(prediction.missing)}" if prediction.missing else ""
    width = 9.4 * max(3, 1 + len(methods)) / 3
    figure, body = new_figure(
        width,
        3.5 + 1.2 * rows,
        f"Where the network looks: {name}",
        f"predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f} "
        f"calibrated){without}; {'x'.join(map(str, explanation.cam.shape))} positions, enlarged",
        HOW + (SHAP if explanation.shap is not None else ""),
    )
    parts: Any = body.subfigures(2, height_ratios=[3.5, 1.2 * rows + 0.01])
    panels = parts[0].subplots(1, max(3, 1 + len(methods)))
    shown: list[tuple[str, Any, float]] = [("as the network is fed", explanation.image, 0.0)]
    if "soft-attention" in methods:
        shown.append(("no soft attention", None, 0.0))
    if maps is not None and attention is not None:
        high = top_of_scale(attention)
        span = f"{attention.min():.2f} to {attention.max():.2f}"
        shown[1] = (
            f"sum of the {len(maps)} attention maps: {span}",
            overlay(explanation.image, attention, high),
            high,
        )
        relative = maps * maps[0].size  # multiples of each map's mean
        highest = top_of_scale(relative)
        below = parts[1].subplots()
        for i, values in enumerate(relative):
            x, y = 1.04 * (i % COLUMNS), -1.04 * (i // COLUMNS)
            _place(below, values, x, y, cmap=COLOURS, norm=Normalize(0, highest))
        below.set_title(f"each map, dark 0, bright {highest:.1f} times its mean")
        _blank(below, 1.04 * COLUMNS, 1.04 - 1.04 * rows, {})
    if "grad-cam" in methods:
        nothing = "" if explanation.cam.any() else ": nothing speaks for it"
        cam = overlay(explanation.image, explanation.cam, 1)
        shown.append((f"Grad-CAM for {explanation.target}{nothing}", cam, 1.0))
    if explanation.shap is not None:
        adds = np.maximum(explanation.shap, 0)
        title = f"Kernel SHAP for {explanation.target}: adds up to {adds.max():.2f}"
        shown.append((title, overlay(explanation.image, adds / max(adds.max(), 1e-12), 1), 0.0))
    shown += [("", None, 0.0)] * (len(panels) - len(shown))
    for axes, (title, image, high) in zip(panels, shown, strict=True):
        axes.set_title(title)
        axes.set_axis_off()
        axes.set_anchor("NW")
        if image is not None:
            axes.imshow(image)
        if high:
            scale = ScalarMappable(Normalize(0, high), COLOURS)
            under: Any = {"location": "bottom", "shrink": 0.5, "aspect": 14, "panchor": False}
            parts[0].colorbar(
                scale, ax=axes, anchor=(0, 1), ticks=[0, 1, high], format="{x:.3g}", **under
            )
    return figure


@in_style
def trust_figure(found: Any, name: str) -> Figure:
    """Draw how alike explanations stay in each check, a line a method: mean and range over images.

    `found` has a row for each image, method and check, and their `ssim`; the checks are in order.
    """
    about = (
        f"{name}; {found['image'].nunique()} images; band: from the least to the most alike image"
    )
    note = (
        "1 is the same map. It should be so again, and fall where layers are randomised, from the "
        "last one on; a line that stays high there does not show what the network has learnt."
    )
    figure, body = new_figure(8, 3.6, "How far can explanations be trusted?", about, note)
    axes: Any = body.subplots()
    checks = found["check"].unique().tolist()
    for method, rows in found.groupby("method", sort=False):
        by_check = rows.groupby("check")["ssim"]
        least, mean, most = (
            of.reindex(checks) for of in (by_check.min(), by_check.mean(), by_check.max())
        )
        (line,) = axes.plot(checks, mean, marker="o", label=method)
        axes.fill_between(checks, least, most, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(ylabel="SSIM with the explanation itself", ylim=(min(0.0, found["ssim"].min()), 1.02))
    axes.legend()
    return figure


def _place(
    axes: Axes, image: Any, x: float, y: float, text: str = "", color: str = GREY, **look: Any
) -> None:
    """Draw an image as a square of side 1, and a text above it."""
    axes.imshow(image, extent=(x, x + 1, y, y + 1), **look)
    axes.text(x, y + 1.03, text, fontsize=SMALL, color=color)


def _blank(axes: Axes, right: float, low: float, names: Mapping[float, str]) -> None:
    """Leave of the axes nothing but what was placed, and names at their left, by height."""
    axes.set(xlim=(-0.05, right), ylim=(low, 1), xticks=[], aspect="equal", anchor="NW")
    axes.set_yticks([*names], names.values())
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
