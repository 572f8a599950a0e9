"""The page that every figure is drawn on: one style, measures in inches, PNG and PDF.

Drawn through matplotlib's object-oriented API, so that nothing here opens a window or leaves state
behind. Axes are placed in inches and not by a layout engine: the same kind of figure then looks the
same in every run, texts have the room that was measured for them, and it is drawn in half the time.
The colours are those of Okabe and Ito (Color Universal Design, 2008), without the yellow that is
hard to see on white.
"""

import io
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from skinlesion.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
BLUE, VERMILLION, GREEN = COLOURS[:3]
GREY, PALE = "#666666", "#DDDDDD"
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    # A letter beyond Latin 1 is a further font in the PDF, a tenth of a second each.
    "axes.unicode_minus": False,
    "image.composite_image": False,  # pictures keep their own pixels in the PDF
    "pdf.fonttype": 42,  # TrueType: text that can be searched and edited
}
in_style = matplotlib.rc_context(STYLE)  # decorates what draws: texts take their size when written
DPI = 150
MARGIN = 0.15  # inches around the page
TITLE, SMALL, NOTE = 11.0, 8.5, 7.5  # points
LEADING = 1.35  # line height, in font sizes


def line_look(index: int) -> dict[str, Any]:
    """Return the colour and line style of a class; past seven the colours come round, dashed."""
    dashes = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes}


class Page:
    """A figure with a heading, a body to place axes in, and a note below.

    Args:
        width, height: of the body, in inches; the page is as much higher as its texts need.
        title: what is shown.
        subtitle: of which run and images.
        note: how to read it; wrapped like the others.
    """

    def __init__(
        self, width: float, height: float, title: str, subtitle: str, note: str = ""
    ) -> None:
        """Write the texts around the body."""
        self.width, self.height = width, height
        head = [(line, TITLE, "black", "bold") for line in wrap(title, width, TITLE, "bold")]
        head += [(line, SMALL, GREY, "normal") for line in wrap(subtitle, width, SMALL)]
        foot = [(line, NOTE, GREY, "normal") for line in wrap(note, width, NOTE)]
        above, below = (sum(size * LEADING / 72 for _, size, *_ in lines) for lines in (head, foot))
        below += MARGIN * (2 if foot else 1)
        self.size = (width + 2 * MARGIN, below + height + above + 2 * MARGIN)
        self.floor = below
        with matplotlib.rc_context(STYLE):
            self.figure = Figure(figsize=self.size, dpi=DPI)
            FigureCanvasAgg(self.figure)
        self._lines(head, self.size[1] - MARGIN)
        self._lines(foot, below - MARGIN)

    def _lines(self, lines: list[tuple[str, float, str, str]], top: float) -> None:
        for line, size, colour, weight in lines:
            look: Any = {"fontsize": size, "color": colour, "fontweight": weight, "va": "top"}
            self.figure.text(MARGIN / self.size[0], top / self.size[1], line, **look)
            top -= size * LEADING / 72

    def axes(self, left: float, bottom: float, width: float, height: float, **kwargs: Any) -> Axes:
        """Add axes at a place of the body, in inches from its lower left corner."""
        place = (
            (left + MARGIN) / self.size[0],
            (bottom + self.floor) / self.size[1],
            width / self.size[0],
            height / self.size[1],
        )
        with matplotlib.rc_context(STYLE):
            return self.figure.add_axes(place, **kwargs)

    def picture(self, left: float, bottom: float, side: float, image: NDArray[np.uint8]) -> None:
        """Draw a square picture (S, S, 3) at a place of the body, in inches as `axes`.

        All pictures lie on one canvas: axes of their own for each take longer than the picture.
        """
        canvas = self._canvas
        place = (left, left + side, bottom, bottom + side)
        drawn = AxesImage(canvas, extent=place, interpolation="antialiased")
        drawn.set_data(image)
        canvas.add_image(drawn)

    @cached_property
    def _canvas(self) -> Axes:
        """The body, measured in inches."""
        canvas = self.axes(
            0, 0, self.width, self.height, xlim=(0, self.width), ylim=(0, self.height)
        )
        canvas.axis("off")
        return canvas

    def text(self, left: float, bottom: float, text: str, **kwargs: Any) -> None:
        """Write at a place of the body, in inches from its lower left corner."""
        x, y = (left + MARGIN) / self.size[0], (bottom + self.floor) / self.size[1]
        self.figure.text(x, y, text, **kwargs)

    def row(self, rights: Iterable[float], y: float, cells: Iterable[str], **look: Any) -> None:
        """Write cells of a table, each to the left of its place, in inches as in `text`."""
        for right, cell in zip(rights, cells, strict=True):
            self.text(right, y, cell, ha="right", va="center_baseline", **look)

    def save(self, path: Path) -> Path:
        """Write `path`, a PNG at 150 dpi, and a PDF beside it; return `path`.

        Both are drawn before either is written, each file whole or not at all. Neither holds a
        date: the same figure is the same file.
        """
        drawn: dict[str, bytes] = {}
        # It says at level INFO, which a run logs, each letter that it embeds.
        logging.getLogger("fontTools.subset").setLevel(logging.WARNING)
        with matplotlib.rc_context(STYLE):
            how: dict[str, dict[str, Any]] = {
                "png": {"pil_kwargs": {"compress_level": 2}},  # of photographs little more is won
                "pdf": {"metadata": {"CreationDate": None}},
            }
            for kind, options in how.items():
                buffer = io.BytesIO()
                self.figure.savefig(buffer, format=kind, dpi=DPI, **options)
                drawn[kind] = buffer.getvalue()
        for kind, content in drawn.items():
            with replacing(path.with_suffix(f".{kind}")) as temporary:
                temporary.write_bytes(content)
        return path


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return how wide a text of one or more lines is, in inches, at a font size in points."""
    font = FontProperties(family=STYLE["font.family"], size=size, weight=weight)
    return max(
        text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72
        for line in text.split("\n")
    )


def column_widths(rows: Iterable[Sequence[str]], size: float) -> list[float]:
    """Return how wide each column of a table is, in inches, were it bold."""
    return [
        max(text_width(cell, size, "bold") for cell in column) for column in zip(*rows, strict=True)
    ]


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break a text at its spaces into lines of a width in inches; a longer word keeps its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
