"""A small archive with every class, written in any of the layouts that people have."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from skinlesion.data.archive import ImageArchive
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.samples import open_archive
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split
from skinlesion.data.table import read_table

CONF = Path(__file__).resolve().parents[2] / "conf" / "data" / "ham10000.yaml"
REAL = Path(__file__).resolve().parents[3] / "shared" / "ham10000-200x150"
HAM10000 = OmegaConf.to_container(OmegaConf.load(CONF).data)
LAYOUTS = ("zips", "nested zips", "folders", "one folder", "root", "zip and folder")

PAPER = Split("paper", by="image", seed=0, val_fraction=0.1, test_fraction=0)
LESION = Split("lesion", by="lesion", seed=0, val_fraction=0.1, test_fraction=0.1)

# 60 images of 30 lesions, two each, in HAM10000's columns; the last lesion, a nevus, has no age.
TABLE = pd.DataFrame(
    {
        "lesion_id": f"HAM_{dx}{lesion}",
        "dx": dx,
        "dx_type": "histo",
        "age": str(20 + 5 * lesion + view) if (dx, lesion) != ("nv", 5) else "",
        "sex": ("female", "male", "unknown")[lesion % 3],
        "dataset": "rosendahl",
    }
    for dx in CLASSES
    for lesion in range(6 if dx == "nv" else 4)
    for view in range(2)
).assign(
    # Numbered so that the order of the table is not the order of the ids.
    image_id=[f"ISIC_{(number * 37) % 60:07d}" for number in range(60)],
    localization=["back", "lower extremity", "unknown"] * 20,
)


def _jpeg(seed):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(60, 200, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    return file.getvalue()


JPEGS = {f"ISIC_{number:07d}": _jpeg(number) for number in range(60)}


@pytest.fixture(scope="session")
def ham10000():
    """What conf/data/ham10000.yaml declares."""
    return HAM10000


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


class Place:
    """Where a test writes archives and reads them.

    Attributes:
        table: the table's text; a test may spoil its copy.
        jpegs: the images' bytes by their id; a test may spoil its copy.
    """

    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "cache"
        self.table, self.jpegs, self.ids = TABLE.copy(), dict(JPEGS), TABLE["image_id"].tolist()

    def write(self, layout="folders", metadata="HAM10000_metadata.csv", **options):
        """Write an archive into a new folder; options are of `DataFrame.to_csv`."""
        root = self.folder / f"archive{len(list(self.folder.glob('archive*')))}"
        root.mkdir()
        table, jpegs = options.pop("table", self.table), options.pop("jpegs", self.jpegs)
        table.to_csv(root / metadata, **{"index": False} | options)
        for part, ids in enumerate(np.array_split(sorted(jpegs), 2), 1):
            name = f"HAM10000_images_part_{part}"
            if layout in ("zips", "nested zips") or (layout, part) == ("zip and folder", 1):
                prefix = f"{name}/" if layout == "nested zips" else ""
                with zipfile.ZipFile(root / f"{name}.zip", "w") as file:
                    for image_id in ids:
                        file.writestr(f"{prefix}{image_id}.jpg", jpegs[image_id])
            else:
                folder = root / {"root": ".", "one folder": "images"}.get(layout, name)
                folder.mkdir(exist_ok=True)
                for image_id in ids:
                    (folder / f"{image_id}.jpg").write_bytes(jpegs[image_id])
        return root

    def read(self, *layout, **options):
        """Write an archive and read its table: the good rows, and what is wrong."""
        archive = ImageArchive(self.write(*layout, **options))
        return read_table(archive, Schema.from_config(HAM10000))

    def open(self, root, split=PAPER, **data):
        """Open an archive as a run does."""
        return open_archive(root, HAM10000 | data, split)

    def samples(self, root, split=PAPER, **data):
        """Load an archive as a run does, 16 pixels wide."""
        return self.open(root, split, **data).load(self.cache, 16)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(scope="session")
def real_table():
    """All 10,015 rows of HAM10000."""
    if not (REAL / "HAM10000_metadata.csv").exists():
        pytest.skip(f"needs the images of HAM10000 in {REAL}")
    table, problems = read_table(ImageArchive(REAL), Schema.from_config(HAM10000))
    assert problems == []
    return table


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """By lesion, 16 pixels wide: 14 validation, 14 test and 30 training images."""
    place = Place(tmp_path_factory.mktemp("samples"))
    return place.samples(place.write(), LESION)
