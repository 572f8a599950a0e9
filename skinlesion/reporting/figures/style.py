"""How every figure looks, and how it is saved.

Drawn through matplotlib's object-oriented API, so that nothing here opens a window or leaves state
behind, and placed by its constrained layout. The colours are those of Okabe and Ito (Color
Universal Design, 2008), without the yellow that is hard to see on white.
"""

import io
import logging
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure, SubFigure

from skinlesion.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
BLUE, VERMILLION, GREEN = COLOURS[:3]
GREY, PALE = "#666666", "#DDDDDD"
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
LOOKS: list[dict[str, Any]] = [*(cycler(linestyle=DASHES) * cycler(color=COLOURS))]  # of a class
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
    "text.parse_math": False,  # a class may be called what it likes
    # A letter beyond Latin 1 is a further font in the PDF, a tenth of a second each.
    "axes.unicode_minus": False,
    "image.composite_image": False,  # pictures keep their own pixels in the PDF
    "pdf.fonttype": 42,  # TrueType: text that can be searched and edited
}
in_style = matplotlib.rc_context(STYLE)  # decorates what draws: texts take their size when written
DPI = 150
TITLE, TEXT, SMALL = 12.0, 8.5, 7.5  # points
MONO: dict[str, Any] = {"family": "DejaVu Sans Mono", "size": TEXT}  # columns of a table line up


def text_width(texts: Iterable[str]) -> float:
    """Return how wide the longest line is in a table, in inches."""
    return 0.602 * TEXT / 72 * max(len(line) for text in texts for line in text.split("\n"))


def new_figure(
    width: float, height: float, title: str, about: str, note: str
) -> tuple[Figure, SubFigure]:
    """Return an empty figure and the body to draw in, so wide and high in inches.

    Around the body stand what is shown (`title`), of which run and images (`about`), and how to
    read it (`note`).
    """
    above = textwrap.fill(about, int(130 * width / TEXT))
    below = textwrap.fill(note, int(130 * width / SMALL))
    lines = 4 + above.count("\n") + below.count("\n")
    figure = Figure((width, height + 0.45 + 0.14 * lines), DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.07)  # type: ignore[call-arg,union-attr]
    left: dict[str, Any] = {"x": 0.1 / width, "ha": "left"}  # and an empty line of space
    figure.suptitle(title, fontsize=TITLE, **left)
    figure.supxlabel(f"\n{below}", fontsize=SMALL, color=GREY, **left)
    body: Any = figure.subfigures()
    body.suptitle(f"{above}\n", fontsize=TEXT, color=GREY, **left)
    return figure, body


def save(figure: Figure, path: Path) -> Path:
    """Write `path`, a PNG at 150 dpi, and a PDF beside it; return `path`.

    Both are drawn before either is written, each file whole or not at all. Neither holds a date:
    the same figure is the same file.
    """
    # It says at level INFO, which a run logs, each letter that it embeds.
    logging.getLogger("fontTools.subset").setLevel(logging.WARNING)
    how: dict[str, dict[str, Any]] = {
        "png": {"pil_kwargs": {"compress_level": 2}},  # of photographs little more is won
        "pdf": {"metadata": {"CreationDate": None}},
    }
    drawn = {kind: io.BytesIO() for kind in how}
    with matplotlib.rc_context(STYLE):
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # once for both files
        for kind, options in how.items():
            figure.savefig(drawn[kind], format=kind, dpi=DPI, **options)
    for kind, content in drawn.items():
        with replacing(path.with_suffix(f".{kind}")) as temporary:
            temporary.write_bytes(content.getvalue())
    return path
