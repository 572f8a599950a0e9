"""A small archive with every class, written in any of the layouts that people have."""

import csv
import io
import itertools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from skinlesion.data.archive import ImageArchive
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.samples import Samples, check
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split
from skinlesion.data.table import read_table

CONF = Path(__file__).resolve().parents[2] / "conf"
HAM10000 = Schema.from_config(OmegaConf.load(CONF / "data" / "ham10000.yaml"))
REAL = Path(__file__).resolve().parents[3] / "shared" / "ham10000-200x150"
LESIONS = dict.fromkeys(CLASSES, 4) | {"nv": 6}  # two images each
LAYOUTS = ("zips", "nested zips", "folders", "one folder", "root", "zip and folder")

Write = Callable[..., Path]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """A function that returns a JPEG of this array, or of noise that its seed decides."""

    def make(
        pixels: np.ndarray | int, width: int = 40, height: int = 30, **options: object
    ) -> bytes:
        if isinstance(pixels, int):
            rng = np.random.default_rng(pixels)
            pixels = rng.integers(60, 200, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 90} | options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def whole_table() -> pd.DataFrame:
    """60 images of 30 lesions in HAM10000's columns; the last lesion, a nevus, has no age."""
    rows = []
    for dx, lesions in LESIONS.items():
        for lesion in range(lesions):
            for view in range(2):
                number = len(rows)
                rows.append(
                    {
                        "lesion_id": f"HAM_{dx}{lesion}",
                        # Numbered so that the order of the table is not the order of the ids.
                        "image_id": f"ISIC_{(number * 37) % 60:07d}",
                        "dx": dx,
                        "dx_type": "histo",
                        "age": str(20 + 5 * lesion + view),
                        "sex": ("female", "male", "unknown")[lesion % 3],
                        "localization": ("back", "lower extremity", "unknown")[number % 3],
                        "dataset": "rosendahl",
                    }
                )
    frame = pd.DataFrame(rows)
    frame.loc[frame["lesion_id"] == "HAM_nv5", "age"] = ""
    return frame


@pytest.fixture
def table(whole_table: pd.DataFrame) -> pd.DataFrame:
    """The table; a test may spoil its copy."""
    return whole_table.copy()


@pytest.fixture(scope="session")
def whole_jpegs(jpeg: Callable[..., bytes]) -> dict[str, bytes]:
    return {f"ISIC_{number:07d}": jpeg(number) for number in range(60)}


@pytest.fixture
def jpegs(whole_jpegs: dict[str, bytes]) -> dict[str, bytes]:
    """The bytes of the table's images by their id; a test may spoil its copy."""
    return dict(whole_jpegs)


@pytest.fixture(scope="session")
def write_archive() -> Write:
    """A function that writes an archive into a folder, which it returns."""

    def write(
        root: Path,
        table: pd.DataFrame,
        jpegs: Mapping[str, bytes],
        layout: str = "folders",
        *,
        metadata: str = "HAM10000_metadata.csv",
        separator: str = ",",
        encoding: str = "utf-8",
        quoting: int = csv.QUOTE_MINIMAL,
    ) -> Path:
        root.mkdir()
        table.to_csv(
            root / metadata, sep=separator, encoding=encoding, quoting=quoting, index=False
        )
        ids = sorted(jpegs)
        parts = {
            "HAM10000_images_part_1": ids[: len(ids) // 2],
            "HAM10000_images_part_2": ids[len(ids) // 2 :],
        }
        for part, members in parts.items():
            if layout in ("zips", "nested zips") or (layout, part[-1]) == ("zip and folder", "1"):
                prefix = f"{part}/" if layout == "nested zips" else ""
                with zipfile.ZipFile(root / f"{part}.zip", "w") as file:
                    for image_id in members:
                        file.writestr(f"{prefix}{image_id}.jpg", jpegs[image_id])
            else:
                folder = root / {"root": ".", "one folder": "images"}.get(layout, part)
                folder.mkdir(exist_ok=True)
                for image_id in members:
                    (folder / f"{image_id}.jpg").write_bytes(jpegs[image_id])
        return root

    return write


@pytest.fixture
def write(
    tmp_path: Path, write_archive: Write, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> Write:
    """The same, into a new folder each time; of the whole table and images unless told others."""
    numbers = itertools.count()

    def write(layout: str = "folders", **options: Any) -> Path:
        root = tmp_path / f"archive{next(numbers)}"
        return write_archive(root, **{"table": table, "jpegs": jpegs, "layout": layout} | options)

    return write


@pytest.fixture(scope="session")
def real_table() -> pd.DataFrame:
    """All 10,015 rows of HAM10000."""
    if not (REAL / "HAM10000_metadata.csv").exists():
        pytest.skip(f"needs the images of HAM10000 in {REAL}")
    table, problems = read_table(ImageArchive(REAL), HAM10000)
    assert problems == []
    return table


@pytest.fixture(scope="module")
def samples(
    write_archive: Write,
    whole_table: pd.DataFrame,
    whole_jpegs: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Samples:
    """By lesion, 16 pixels wide: 14 validation, 14 test and 30 training images."""
    folder = tmp_path_factory.mktemp("samples")
    root = write_archive(folder / "archive", whole_table, whole_jpegs)
    split = Split("lesion", by="lesion", seed=0, val_fraction=0.1, test_fraction=0.1)
    cache = folder / "cache"
    return check(root, HAM10000, cache, 16, split).load(cache, 16)
