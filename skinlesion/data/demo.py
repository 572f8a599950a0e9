"""Draw a demo archive: seven kinds of lesions in the layout of HAM10000, nothing to download.

The pictures (`skinlesion.data.drawing`) are illustrations. They look enough like dermoscopy for
every step of the pipeline to have something to learn, and say nothing about skin. The metadata are
drawn from HAM10000's own counts by class.

Source: Tschandl, Rosendahl, Kittler (2018), "The HAM10000 dataset", doi:10.7910/DVN/DBW86T.
"""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from skinlesion.data.drawing import draw_lesion, photograph
from skinlesion.data.ham10000 import CLASSES
from skinlesion.errors import SkinlesionError

VERSION = 1
"""Raise it whenever a change below changes the pictures or the table."""

MARKER = "demo.json"
MIN_IMAGES = 80
"""Enough for four lesions of each class, so that every class can be in every part of a split."""

MIN_SIDE = 32
FIRST_ID = 9_000_000
"""Lesions and images are numbered from here, far from every number of the real archive."""

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")

# HAM10000's counts, one per lesion (the first image of each), in the order of CLASSES.
IMAGES = (327, 514, 1099, 115, 1113, 6705, 142)
LESIONS = (228, 327, 727, 73, 614, 5403, 98)

AGES = {  # at 0, 5, ..., 85 years
    "akiec": (0, 0, 0, 0, 0, 0, 1, 0, 6, 7, 13, 18, 42, 27, 39, 30, 26, 19),
    "bcc": (0, 0, 0, 0, 1, 1, 2, 2, 15, 17, 18, 18, 25, 47, 52, 47, 49, 33),
    "bkl": (3, 1, 0, 0, 0, 0, 3, 18, 25, 39, 63, 58, 82, 71, 128, 103, 69, 55),
    "df": (0, 0, 0, 0, 0, 1, 3, 8, 6, 8, 10, 9, 8, 11, 3, 5, 1, 0),
    "mel": (0, 1, 0, 0, 4, 7, 16, 19, 27, 39, 49, 72, 65, 75, 89, 59, 48, 43),
    "nv": (16, 43, 21, 43, 94, 150, 283, 517, 705, 959, 823, 591, 371, 281, 183, 178, 77, 26),
    "vasc": (2, 2, 1, 2, 2, 2, 4, 6, 3, 11, 11, 14, 7, 3, 9, 8, 8, 3),
}
SEXES = {  # female, male
    "akiec": (80, 148),
    "bcc": (122, 205),
    "bkl": (304, 414),
    "df": (38, 35),
    "mel": (243, 371),
    "nv": (2584, 2778),
    "vasc": (48, 50),
}
SITES = (
    *("abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand"),
    *("lower extremity", "neck", "scalp", "trunk", "unknown", "upper extremity"),
)
LOCALIZATIONS = {  # at SITES
    "akiec": (3, 0, 22, 9, 2, 84, 0, 0, 8, 41, 8, 8, 1, 0, 42),
    "bcc": (9, 0, 123, 32, 0, 61, 2, 0, 1, 36, 11, 11, 6, 3, 32),
    "bkl": (36, 0, 133, 50, 4, 194, 1, 1, 12, 109, 20, 24, 57, 19, 67),
    "df": (2, 0, 1, 0, 0, 0, 1, 1, 0, 54, 0, 0, 0, 0, 14),
    "mel": (31, 0, 185, 34, 10, 65, 15, 0, 1, 104, 18, 9, 25, 6, 111),
    "nv": (719, 3, 1058, 112, 19, 61, 209, 43, 39, 1224, 60, 24, 1153, 175, 504),
    "vasc": (22, 0, 12, 3, 0, 5, 0, 0, 3, 16, 2, 2, 27, 0, 6),
}
ORIGINS = (
    ("rosendahl", "histo"),
    ("vidir_modern", "confocal"),
    ("vidir_modern", "consensus"),
    ("vidir_modern", "histo"),
    ("vidir_molemax", "consensus"),
    ("vidir_molemax", "follow_up"),
    ("vidir_molemax", "histo"),
    ("vienna_dias", "histo"),
)
ORIGIN_COUNTS = {  # at ORIGINS
    "akiec": (211, 0, 0, 17, 0, 0, 0, 0),
    "bcc": (211, 0, 0, 110, 0, 0, 2, 4),
    "bkl": (349, 34, 88, 124, 118, 0, 6, 8),
    "df": (16, 0, 14, 11, 30, 0, 0, 2),
    "mel": (225, 0, 0, 330, 0, 0, 15, 44),
    "nv": (538, 0, 332, 596, 0, 3704, 16, 217),
    "vasc": (2, 0, 11, 28, 54, 0, 0, 3),
}


@dataclass(frozen=True)
class Lesion:
    """One lesion: its number, its class, its rank within the class, the numbers of its images."""

    number: int
    dx: str
    rank: int
    images: tuple[int, ...]


def plan(images: int, seed: int) -> list[Lesion]:
    """Return the lesions of a demo of `images` photographs.

    Classes share the images by the square roots of HAM10000's counts, which leaves nv the largest
    and df the smallest, eight times apart instead of sixty. A class has as many images per lesion
    as in HAM10000, but at least eight lesions where it has eight images (any `images` >= 200).

    Raises `SkinlesionError` below `MIN_IMAGES`, where a class would be too small to split.
    """
    if images < MIN_IMAGES:
        raise SkinlesionError(
            f"A demo of {images} images is too small for seven classes: "
            f"ask for at least {MIN_IMAGES}."
        )
    rng = np.random.default_rng(seed)
    shares = images * np.sqrt(IMAGES) / np.sqrt(IMAGES).sum()
    counts = np.diff(np.round(np.cumsum(shares)).astype(int), prepend=0)
    numbers = iter(rng.permutation(images).tolist())
    lesions: list[Lesion] = []
    for dx, count, ratio in zip(CLASSES, counts, np.divide(LESIONS, IMAGES), strict=True):
        distinct = max(min(8, count), round(count * ratio))
        again = rng.multinomial(count - distinct, np.full(distinct, 1 / distinct))
        for rank, photographs in enumerate((1 + again).tolist()):
            taken = tuple(next(numbers) for _ in range(photographs))
            lesions.append(Lesion(len(lesions), dx, rank, taken))
    return lesions


def draw_images(lesion: Lesion, size: tuple[int, int], seed: int) -> list[bytes]:
    """Return the lesion's photographs as JPEG files; the same for the same seed and lesion."""
    rng = np.random.default_rng([seed, lesion.number])
    dataset = describe(lesion, seed)["dataset"]
    sheet = draw_lesion(lesion.dx, size, rng)
    files = []
    for _ in lesion.images:
        file = io.BytesIO()
        photograph(sheet, size, dataset, rng).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def describe(lesion: Lesion, seed: int) -> dict[str, str]:
    """Return the lesion's columns of the metadata table, drawn from HAM10000's counts by class.

    Every twentieth bkl, mel and nv has neither age nor sex nor localization: in HAM10000 the three
    are missing together too, and in these classes only, but too seldom for a small demo to show it.
    """
    rng = np.random.default_rng([seed, lesion.number, 1])

    def pick(counts: tuple[int, ...]) -> int:
        return int(rng.choice(len(counts), p=np.array(counts) / sum(counts)))

    dataset, dx_type = ORIGINS[pick(ORIGIN_COUNTS[lesion.dx])]
    age, sex = str(5 * pick(AGES[lesion.dx])), ("female", "male")[pick(SEXES[lesion.dx])]
    site = SITES[pick(LOCALIZATIONS[lesion.dx])]
    if lesion.dx in ("bkl", "mel", "nv") and lesion.rank % 20 == 0:
        age, sex, site = "", "unknown", "unknown"
    return {
        "lesion_id": f"HAM_{FIRST_ID + lesion.number:07d}",
        "dx": lesion.dx,
        "dx_type": dx_type,
        "age": age,
        "sex": sex,
        "localization": site,
        "dataset": dataset,
    }


def write_demo(
    root: Path,
    *,
    images: int = 700,
    seed: int = 0,
    size: tuple[int, int] = (300, 225),
    progress: bool = True,
) -> Path:
    """Write the demo archive into the folder `root` and return `root`.

    The folder gets `HAM10000_images_part_1.zip` and `_2.zip`, `HAM10000_metadata.csv` and a marker
    that says what was drawn. The same arguments give the same bytes. It appears all at once:
    whatever interrupts the drawing, `root` is either complete or untouched. A folder that holds
    this very demo is left as it is.

    Of 700 images, akiec has 60 (42 lesions), bcc 75 (48), bkl 109 (72), df 36 (23), mel 110 (61),
    nv 271 (218), vasc 39 (27).

    Args:
        root: a new or empty folder; its parents are made.
        images: how many photographs, at least `MIN_IMAGES`.
        seed: another seed draws other lesions.
        size: width and height of a photograph in pixels, at least `MIN_SIDE` each.
        progress: show a bar where stderr is a terminal.

    Raises:
        SkinlesionError: `images` or `size` too small, or `root` holds something else.

    """
    if min(size) < MIN_SIDE:
        raise SkinlesionError(
            f"Images of {size} are too small: ask for {MIN_SIDE} x {MIN_SIDE} or more."
        )
    lesions = plan(images, seed)
    marker = json.dumps({"images": images, "seed": seed, "size": list(size), "version": VERSION})
    if _holds(root, marker):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        folder = Path(temporary) / root.name
        folder.mkdir()
        table = [
            {**describe(lesion, seed), "image_id": _image_id(number)}
            for lesion in lesions
            for number in lesion.images
        ]
        pd.DataFrame(table, columns=list(COLUMNS)).to_csv(
            folder / "HAM10000_metadata.csv", index=False, lineterminator="\n"
        )
        _write_images(folder, lesions, images, size, seed, progress)
        (folder / MARKER).write_text(marker + "\n")
        if root.exists():
            root.rmdir()
        os.replace(folder, root)
    return root


def _holds(root: Path, marker: str) -> bool:
    """Return whether `root` holds this demo; raise where it holds anything else."""
    if not root.exists():
        return False
    found = root / MARKER
    if found.is_file():
        if found.read_text().strip() == marker:
            return True
        raise SkinlesionError(
            f"{root} holds another demo ({found.read_text().strip()}), not the one asked for "
            f"({marker}). Delete it or choose another folder."
        )
    if not root.is_dir() or any(root.iterdir()):
        raise SkinlesionError(
            f"{root} holds something that is no demo. Choose a new or empty folder."
        )
    return False


def _write_images(
    folder: Path,
    lesions: list[Lesion],
    images: int,
    size: tuple[int, int],
    seed: int,
    progress: bool,
) -> None:
    """Draw all images and store them in two archives, half by half."""
    parts = [folder / f"HAM10000_images_part_{part}.zip" for part in (1, 2)]
    with (
        zipfile.ZipFile(parts[0], "w") as first,
        zipfile.ZipFile(parts[1], "w") as second,
        closing(_drawn(lesions, size, seed)) as drawn,
        tqdm(total=images, unit="image", disable=None if progress else True) as bar,
    ):
        for lesion, files in zip(lesions, drawn, strict=True):
            for number, file in zip(lesion.images, files, strict=True):
                # A ZipInfo made by hand is dated 1980, so that the archive's bytes repeat.
                member = zipfile.ZipInfo(f"{_image_id(number)}.jpg")
                (first if number < images // 2 else second).writestr(member, file)
                bar.update()


def _drawn(
    lesions: list[Lesion], size: tuple[int, int], seed: int
) -> Generator[list[bytes], None, None]:
    """Yield each lesion's images, drawn by threads: numpy and Pillow let go of the GIL."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(lambda lesion: draw_images(lesion, size, seed), lesions)
    finally:
        pool.shutdown(cancel_futures=True)


def _image_id(number: int) -> str:
    return f"ISIC_{FIRST_ID + number:07d}"
