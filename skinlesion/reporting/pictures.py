"""The figures of a run as a page holds them: small, and in the page itself."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from skinlesion.runs.predictions import PARTS

# By the beginning of a figure's file name, as a reader asks for them.
TITLES = {
    "confusion_matrix": "Confusion matrix",
    "per_class_f1": "F1 by class",
    "roc": "ROC curves",
    "precision_recall": "Precision-recall curves",
    "reliability": "Reliability",
    "risk_coverage": "Risk over coverage",
    "learning_curves": "Learning curves",
    "mistakes": "Mistakes",
    "attention": "Soft attention",
}
PHOTOGRAPHS = ("mistakes", "attention")
WIDEST = 1200  # pixels of a picture with photographs


@dataclass(frozen=True)
class Picture:
    """A picture: its title, its pixels as WebP in base64, width and height."""

    title: str
    data: str
    width: int
    height: int


def pictures(folder: Path) -> list[Picture]:
    """Read the figures of a folder, in the order in which a reader asks for them."""
    paths = sorted(folder.glob("*.png"))
    order = [path for kind in TITLES for path in paths if path.stem.startswith(kind)]
    with ThreadPoolExecutor(max_workers=4) as threads:  # encoding lets other threads work
        return [*threads.map(_picture, dict.fromkeys([*order, *paths]))]


def _picture(path: Path) -> Picture:
    """Encode a picture; a drawing loses nothing."""
    kind, _, part = path.stem.rpartition("_")
    if part not in PARTS:
        kind, part = path.stem, ""
    title = ", ".join(filter(None, [TITLES.get(kind, kind.replace("_", " ")), part]))
    with Image.open(path) as file:
        image = file.convert("RGB")
    how: dict[str, Any] = {"lossless": True, "method": 2}
    if kind in PHOTOGRAPHS:
        how = {"quality": 70}
        image.thumbnail((WIDEST, image.height))
    out = io.BytesIO()
    image.save(out, "WEBP", **how)
    return Picture(title, base64.b64encode(out.getvalue()).decode(), *image.size)
