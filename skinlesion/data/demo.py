"""Draw a demo archive: seven kinds of lesions in the layout of HAM10000, nothing to download.

The pictures (`skinlesion.data.drawing`) are illustrations. They look enough like dermoscopy for
every step of the pipeline to have something to learn, and say nothing about skin. The metadata are
drawn from HAM10000's own counts by class (demo.yaml).

Source: Tschandl, Rosendahl, Kittler (2018), "The HAM10000 dataset", doi:10.7910/DVN/DBW86T.
"""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from skinlesion.data.archive import MASKS, OF_MASK
from skinlesion.data.cache import in_threads
from skinlesion.data.drawing import draw_lesion, photograph
from skinlesion.errors import SkinlesionError

VERSION = 3  # raise it whenever a change of demo.* or drawing.py changes the pictures or the table
MARKER = "demo.json"
MIN_IMAGES = 80  # four lesions of each class, so that every class can be in every part of a split
MIN_SIDE = 32
FIRST_ID = 9_000_000  # lesions and images are numbered from here, far from the real ones
TESTED = 500_000  # and those of a test set from so many further on
IMAGES = "HAM10000_images_part_"
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
KINDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
ORIGINS, CAMERAS = KINDS.pop("origins"), KINDS.pop("cameras")


class Lesion(NamedTuple):
    """One lesion of a class, its rank in it, and the numbers of its images."""

    number: int
    dx: str
    rank: int
    images: tuple[int, ...]


def plan(images: int, seed: int) -> list[Lesion]:
    """Return the lesions of a demo of `images` photographs, at least MIN_IMAGES.

    Classes share the images by the square roots of HAM10000's counts, so that nv has eight times as
    many as df and not sixty times. Of 200 images or more, a class has at least eight lesions.
    """
    rng = np.random.default_rng(seed)
    shares = np.sqrt([kind["images"] for kind in KINDS.values()])
    ends = np.round(np.cumsum(images * shares / shares.sum())).astype(int)
    numbers = iter(rng.permutation(images).tolist())
    lesions: list[Lesion] = []
    for (dx, kind), count in zip(KINDS.items(), np.diff(ends, prepend=0), strict=True):
        distinct = max(min(8, count), round(count * kind["lesions"] / kind["images"]))
        again = rng.multinomial(count - distinct, np.full(distinct, 1 / distinct))
        for rank, photographs in enumerate((1 + again).tolist()):
            taken = tuple(next(numbers) for _ in range(photographs))
            lesions.append(Lesion(len(lesions), dx, rank, taken))
    return lesions


def draw_images(lesion: Lesion, size: tuple[int, int], seed: int) -> list[tuple[bytes, bytes]]:
    """Return the lesion's photographs as JPEG, each with its mask as PNG.

    They are the same for the same seed and lesion.
    """
    rng = np.random.default_rng([seed, lesion.number])
    camera = CAMERAS[metadata_of(lesion, seed)["dataset"]]
    sheet, mask = draw_lesion(KINDS[lesion.dx]["signs"], size, rng)
    files = []
    for _ in lesion.images:
        image, masked = photograph(sheet, mask, size, camera, rng)
        jpeg, png = io.BytesIO(), io.BytesIO()
        image.save(jpeg, "JPEG", quality=90)
        masked.save(png, "PNG")
        files.append((jpeg.getvalue(), png.getvalue()))
    return files


def metadata_of(lesion: Lesion, seed: int) -> dict[str, str]:
    """Return the lesion's row of the metadata table, without an image.

    Every twentieth bkl, mel and nv has neither age nor sex nor localization: in HAM10000 the three
    are missing together too, and in these classes only, but too seldom for a small demo to show it.
    """
    rng, kind = np.random.default_rng([seed, lesion.number, 1]), KINDS[lesion.dx]

    def pick(counts: Sequence[int]) -> int:
        return int(rng.choice(len(counts), p=np.array(counts) / sum(counts)))

    dataset, dx_type = ORIGINS[pick(kind["origins"])]
    age, sex = str(5 * pick(kind["ages"])), ("female", "male")[pick(kind["sexes"])]
    site = [*kind["sites"]][pick([*kind["sites"].values()])]
    if lesion.dx in ("bkl", "mel", "nv") and lesion.rank % 20 == 0:
        age, sex, site = "", "unknown", "unknown"
    lesion_id = f"HAM_{FIRST_ID + lesion.number:07d}"
    values = (lesion_id, "", lesion.dx, dx_type, age, sex, site, dataset)
    return dict(zip(COLUMNS, values, strict=True))


def write_demo(
    root: Path,
    *,
    images: int = 700,
    seed: int = 0,
    size: tuple[int, int] = (300, 225),
    progress: bool = True,
    test: bool = False,
) -> Path:
    """Write the demo archive into a new or empty folder, whole or not at all, and return that.

    The same arguments give the same bytes. A folder that holds this very demo is left as it is.

    Args:
        images: how many photographs, at least `MIN_IMAGES`, of `size`: width and height in pixels,
            at least `MIN_SIDE` each.
        test: draw a test set to these images instead: 15 % as many, in the layout of ISIC 2018's.

    Raises:
        SkinlesionError: `images` or `size` too small, or `root` holds something else.
    """
    if images < MIN_IMAGES or min(size) < MIN_SIDE:
        raise SkinlesionError(
            f"A demo of {images} images of {size} pixels is too small: ask for at least "
            f"{MIN_IMAGES} of {MIN_SIDE} x {MIN_SIDE}."
        )
    whole, first = images, TESTED * test
    images = max(MIN_IMAGES, images * 15 // 100) if test else images
    marks = {"images": images, "seed": seed, "size": list(size), "version": VERSION}
    marker = json.dumps(marks | ({"test_of": whole} if test else {}))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        found = (root / MARKER).read_text().strip() if (root / MARKER).is_file() else "no demo"
        if found == marker:
            return root
        raise SkinlesionError(
            f"{root} holds {found}, and not the demo asked for ({marker}). Delete it, or choose a "
            "new or empty folder."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    lesions = [lesion._replace(number=first + lesion.number) for lesion in plan(images, seed)]
    ids = [f"ISIC_{FIRST_ID + first + number:07d}" for number in range(images)]
    # numpy and Pillow let go of the GIL.
    each = in_threads(lambda one: draw_images(one, size, seed), lesions, "", "lesion", progress)
    drawn: dict[int, tuple[bytes, bytes]] = {}
    for lesion, files in zip(lesions, each, strict=True):
        drawn |= zip(lesion.images, files, strict=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        folder = Path(temporary) / root.name
        folder.mkdir()
        table = [
            metadata_of(lesion, seed) | {"image_id": ids[number]}
            for lesion in lesions
            for number in lesion.images
        ]
        half, every = images // 2, range(images)
        name, zips = "HAM10000_metadata", {f"{IMAGES}1": every[:half], f"{IMAGES}2": every[half:]}
        if test:
            name, zips = "ISIC2018_Task3_Test_GroundTruth", {"ISIC2018_Task3_Test_Images": every}
        path = folder / f"{name}.csv"
        pd.DataFrame(table).to_csv(path, index=False, lineterminator="\n")
        for archive, numbers in (zips | {Path(MASKS).stem: every}).items():
            masks = f"{archive}.zip" == MASKS
            with zipfile.ZipFile(folder / f"{archive}.zip", "w") as file:
                for number in numbers:
                    name = f"{OF_MASK.format(ids[number])}.png" if masks else f"{ids[number]}.jpg"
                    # A ZipInfo made by hand is dated 1980, so that the archive's bytes repeat.
                    file.writestr(zipfile.ZipInfo(name), drawn[number][masks])
        (folder / MARKER).write_text(marker + "\n")
        if root.exists():
            root.rmdir()
        os.replace(folder, root)
    return root
