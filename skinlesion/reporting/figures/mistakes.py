"""The gallery of mistakes: of each true class, the images that were told wrongly most surely."""

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
from PIL import Image

from skinlesion.data.archive import READ_ERRORS
from skinlesion.data.cache import DECODE_ERRORS, as_rgb
from skinlesion.data.schema import UNKNOWN
from skinlesion.errors import listing
from skinlesion.reporting.figures.page import GREY, Page, in_style, wrap
from skinlesion.reporting.figures.part import Part
from skinlesion.reporting.figures.source import ELSEWHERE, Source

SHOWN = 6  # of a class
SIDE, PITCH, LABEL = 1.2, 1.36, 1.25  # inches: a picture, from one to the next, the class beside
PIXELS = 300  # of a picture's side at most, 250 a printed inch
SIZE, SMALL, TINY, LEADING = 8.0, 7.0, 5.5, 1.3  # points, and line height in font sizes
NONE, SPACE = 0.35, 0.22  # inches: height of a class without mistakes, between classes

log = logging.getLogger(__name__)


def surest_mistakes(part: Part, shown: int = SHOWN) -> list[list[int]]:
    """Return for each true class the rows of its surest mistakes, the surest first."""
    predicted, confidence = part.probabilities.argmax(axis=1), part.probabilities.max(axis=1)
    rows = []
    for c in range(len(part.classes)):
        wrong = np.flatnonzero((part.y == c) & (predicted != c))
        order = np.argsort(-confidence[wrong], kind="stable")
        rows.append(wrong[order][:shown].tolist())
    return rows


@in_style
def mistakes(part: Part, source: Source) -> Page | None:
    """Draw a row of pictures for each true class; None, with a line of log, if images are missing.

    Args:
        part: the part.
        source: of its images.
    """
    rows = surest_mistakes(part)
    ids = part.predictions.frame["image_id"].to_numpy(dtype=str)
    wanted = [ids[i] for row in rows for i in row]
    absent = [i for i in wanted if i not in source.archive or i not in source.table.index]
    if absent:
        why = f"{source.archive.root} lacks {listing(absent)}"
        log.warning("mistakes of %s are not drawn: %s. %s", part.name, why, ELSEWHERE)
        return None
    try:
        pictures = {image_id: picture(source.archive.read(image_id)) for image_id in wanted}
    except (*READ_ERRORS, *DECODE_ERRORS) as error:
        log.warning("mistakes of %s are not drawn: an image cannot be read (%s)", part.name, error)
        return None
    return _gallery(part, rows, ids, pictures, source.table)


def picture(data: bytes) -> np.ndarray:
    """Return an image, cropped to its central square as the model sees it, (S, S, 3) uint8."""
    image = as_rgb(data)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side > PIXELS:
        image = image.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    return np.asarray(image)


def metadata_words(table: pd.DataFrame, image_id: str) -> str:
    """Return an image's metadata as a line, `55 · male · back`."""
    return " · ".join(_word(str(name), table.loc[image_id, name]) for name in table.columns)


def _word(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{name} unknown" if np.isnan(value) else f"{value:g}"
    return f"{name} unknown" if value == UNKNOWN else str(value)


def _gallery(
    part: Part,
    rows: list[list[int]],
    ids: np.ndarray,
    pictures: Mapping[str, np.ndarray],
    table: pd.DataFrame,
) -> Page:
    captions = {i: _caption(part, i, ids[i], table) for row in rows for i in row}
    heights = [
        SIDE + max(sum(size for _, size, _ in captions[i]) for i in row) * LEADING / 72
        if row
        else NONE
        for row in rows
    ]
    said = [*map(str, table.columns), "the image's name"]
    height = sum(heights) + SPACE * (len(rows) - 1)
    page = Page(
        LABEL + SHOWN * PITCH - (PITCH - SIDE),
        height,
        "Mistakes, the surest of each true class",
        part.about,
        f"Under each picture: {', '.join(['the predicted class and its probability', *said])}.",
    )
    top = height
    for c, row in enumerate(rows):
        _class(page, part, c, top)
        for k, i in enumerate(row):
            left = LABEL + k * PITCH
            page.picture(left, top - SIDE, SIDE, pictures[ids[i]])
            y = top - SIDE - 0.03
            for line, size, colour in captions[i]:
                page.text(left, y, line, fontsize=size, color=colour, va="top")
                y -= size * LEADING / 72
        if not row:
            text = "no mistakes" if part.support(c) else "no image of this class"
            page.text(LABEL, top, text, fontsize=SIZE, color=GREY, va="top")
        top -= heights[c] + SPACE
    return page


def _caption(
    part: Part, row: int, image_id: str, table: pd.DataFrame
) -> list[tuple[str, float, str]]:
    """Return what stands under a picture: lines, each with its size and colour."""
    probabilities = part.probabilities[row]
    confidence = probabilities.max()
    # What is not quite sure is not rounded to 1.
    said = ">0.99" if confidence >= 0.995 else f"{confidence:.2f}"
    told = f"{part.classes[probabilities.argmax()]} ({said})"
    width = SIDE + 0.08
    return [
        *((line, SIZE, "black") for line in wrap(told, width, SIZE)),
        *((line, SMALL, GREY) for line in wrap(metadata_words(table, image_id), width, SMALL)),
        (image_id, TINY, GREY),
    ]


def _class(page: Page, part: Part, c: int, top: float) -> None:
    """Write a true class beside its row, and how many of it were told wrongly."""
    y = top
    for line in wrap(part.classes[c], LABEL - 0.1, SIZE + 1, "bold"):
        page.text(0, y, line, fontsize=SIZE + 1, fontweight="bold", va="top")
        y -= (SIZE + 1) * LEADING / 72
    if support := part.support(c):
        wrong = int((part.probabilities[part.y == c].argmax(axis=1) != c).sum())
        page.text(0, y, f"{wrong:,} of {support:,} wrong", fontsize=SMALL, color=GREY, va="top")
