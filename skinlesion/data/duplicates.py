"""Pairs of images that are the same picture, though their lesions differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import in_threads
from skinlesion.data.pixels import to_square
from skinlesion.data.samples import Samples
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import PARTS
from skinlesion.text import aligned

SIDE = 24  # pixels of a small copy
THRESHOLD = 0.97  # of the correlation: the pairs below it, looked at, differ
BLOCK = 1000  # images compared with all others at once
HEAD = ["image_a", "image_b", "lesion_a", "lesion_b", "class_a", "class_b", "correlation"]


def find_duplicates(
    root: Path, data: Any, threshold: float = THRESHOLD, against: Path | None = None
) -> pd.DataFrame:
    """Return the pairs of images of different lesions that correlate above a threshold.

    Central squares are compared at 24 x 24 pixels, each less its mean colour and of norm 1, so that
    neither light nor contrast counts, nor the dark corners of a round view.

    Args:
        root: folder of the images and their table, which `data` describes as conf/data/ does.
        threshold: of the correlation, in (-1, 1).
        against: another folder, of images to compare those with; None: with each other.

    Returns:
        A row for each pair, the columns `HEAD`, the most alike first.

    Raises:
        SkinlesionError: if the threshold is none, or the folder cannot be read.
    """
    if not -1 < threshold < 1:
        raise SkinlesionError(f"threshold={threshold}: expected a number between -1 and 1.")
    archive = ImageArchive(root)
    table, _ = read_table(archive, Schema.from_config(data))
    others, small = table, _small(archive, table["image_id"].tolist())
    small_others = small
    if against:
        archive = ImageArchive(against)
        others = pd.DataFrame({"image_id": sorted(archive.ids)}).assign(lesion_id="", dx="")
        small_others = _small(archive, others["image_id"].tolist())
    pairs = []
    for a, b, correlation in _alike(small, small_others, threshold):
        one, other = table.iloc[a], others.iloc[b]
        if (against or a < b) and one["lesion_id"] != other["lesion_id"]:
            both = [(one[name], other[name]) for name in ("image_id", "lesion_id", "dx")]
            pairs.append([*sum(both, ()), correlation])
    return pd.DataFrame(pairs, columns=HEAD).sort_values("correlation", ascending=False)


def near_copies(samples: Samples) -> dict[str, int]:
    """Count, for each held-out part, the images that are a training image of another lesion.

    The same as `find_duplicates`, of the cached squares.
    """
    small = np.stack([_small_copy(samples.images[row]) for row in samples.rows])
    lesion, split = (samples.frame[name].to_numpy() for name in ("lesion_id", "split"))
    (trained,) = np.nonzero(split == "train")
    found = {}
    for part in (part for part in PARTS[1:] if (split == part).any()):
        (held,) = np.nonzero(split == part)
        pairs = _alike(small[held], small[trained], THRESHOLD)
        found[part] = len({a for a, b, _ in pairs if lesion[held[a]] != lesion[trained[b]]})
    return found


def as_text(pairs: pd.DataFrame) -> str:
    """Return the pairs as a table for the console."""
    rows = [[*map(str, row[:-1]), f"{row[-1]:.3f}"] for row in pairs.to_numpy().tolist()]
    return aligned([HEAD, None, *rows], left=6) if rows else "no pair"


def _small(archive: ImageArchive, names: list[str]) -> np.ndarray:
    """Return the small copies of images, (N, 3 SIDE²) float32, each of norm 1."""

    def one(name: str) -> np.ndarray:
        try:
            pixels = archive.pixels(name)[0]
        except SkinlesionError as error:
            raise SkinlesionError(f"{archive.root}: {name}: {error}") from None
        return _small_copy(to_square(pixels, min(pixels.shape[:2])))

    return np.stack(in_threads(one, names, "reading", "img"))


def _small_copy(square: np.ndarray) -> np.ndarray:
    resized = Image.fromarray(square[..., :3]).resize((SIDE, SIDE), Image.Resampling.BOX)
    copy = np.asarray(resized, np.float32)
    copy = (copy - copy.mean((0, 1))).ravel()
    return copy / max(float(np.linalg.norm(copy)), 1e-6)


def _alike(
    small: np.ndarray, others: np.ndarray, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Yield which of the small copies (N, F) and (n, F) correlate above a threshold, and how."""
    for start in tqdm(range(0, len(small), BLOCK), "comparing", disable=None):
        alike = small[start : start + BLOCK] @ others.T  # (b, n)
        for a, b in np.argwhere(alike > threshold).tolist():
            yield start + a, b, float(alike[a, b])
