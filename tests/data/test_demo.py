"""The demo archive: what it holds, that it repeats, and that it is whole or absent."""

import errno
import io
import zipfile
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data import demo, drawing
from skinlesion.data.archive import MASKS, ImageArchive
from skinlesion.data.demo import KINDS, MIN_IMAGES, Lesion, metadata_of, plan, write_demo
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError

ZIPS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
TABLE = "HAM10000_metadata.csv"
SMALL = {"images": 80, "size": (48, 36), "progress": False}


@pytest.fixture(scope="module")
def frame(archive):
    return pd.read_csv(archive / TABLE)


@pytest.fixture
def undrawn(monkeypatch):
    """Without the pictures, which take most of the time."""
    monkeypatch.setattr(demo, "draw_images", lambda lesion, *_: [(b"", b"")] * len(lesion.images))


def contents(root):
    return {path.name: path.read_bytes() for path in root.iterdir()}


def pictures(root):
    archive = ImageArchive(root)
    ids = pd.read_csv(root / TABLE)["image_id"]
    return {image_id: Image.open(io.BytesIO(archive.read(image_id))) for image_id in ids}


def test_the_layout_is_that_of_the_archive_and_the_one_reader_reads_it(archive, frame, ham10000):
    assert {*ZIPS, MASKS, TABLE} < set(contents(archive))
    assert [*frame] == [
        *("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
    ]
    for part in ZIPS:
        with zipfile.ZipFile(archive / part) as file:
            assert len(file.namelist()) == 40
    found = {(image.format, image.mode, image.size) for image in pictures(archive).values()}
    assert found == {("JPEG", "RGB", (96, 72))}
    table, problems = read_table(ImageArchive(archive), Schema.from_config(ham10000))
    assert (len(table), problems) == (80, [])


def test_lesions_have_one_record_and_images_that_differ(archive, frame):
    assert frame.drop(columns="image_id").drop_duplicates()["lesion_id"].is_unique
    assert (frame["lesion_id"].value_counts() > 1).sum() > 10
    assert len({picture.tobytes() for picture in pictures(archive).values()}) == 80
    missing = frame[frame["age"].isna()]
    assert set(missing["dx"]) == {"bkl", "mel", "nv"}
    assert set(missing["sex"]) == set(missing["localization"]) == {"unknown"}


def test_classes_differ_in_colour(archive, frame):
    images = {image_id: np.asarray(image) for image_id, image in pictures(archive).items()}
    centre = {image_id: image[24:48, 33:63].mean((0, 1)) for image_id, image in images.items()}
    colour = pd.DataFrame.from_dict(centre, orient="index", columns=["r", "g", "b"])
    mean = colour.groupby(frame.set_index("image_id")["dx"]).mean()
    red, light = mean["r"] / mean["g"], mean.sum(axis=1)
    assert red["vasc"] > red["nv"] > red["df"]
    assert light["mel"] < light["bkl"] < light["df"]
    assert mean["b"]["vasc"] > mean["g"]["vasc"]


@pytest.mark.parametrize("size", [(96, 72), (64, 64), (48, 80)])
def test_a_photograph_never_shows_the_end_of_the_skin(size):
    rng = np.random.default_rng(0)
    side = drawing.Sheet(size, rng).side
    skin, mask = Image.new("RGB", (side, side), (255, 255, 255)), Image.new("1", (side, side))
    for _ in range(40):
        picture, _ = drawing.photograph(skin, mask, size, demo.CAMERAS["vidir_molemax"], rng)
        picture = np.asarray(picture)
        for corner in (picture[:2, :2], picture[:2, -2:], picture[-2:, :2], picture[-2:, -2:]):
            assert np.median(corner) > 100


@pytest.mark.parametrize(("images", "lesions"), [(MIN_IMAGES, 4), (200, 8)])
def test_every_class_has_lesions_enough_for_every_part(images, lesions):
    dx = pd.Series([lesion.dx for lesion in plan(images, seed=0)])
    assert dx.value_counts().reindex(CLASSES).min() >= lesions


def test_metadata_go_with_the_class_as_in_ham10000():
    many = pd.DataFrame(
        [metadata_of(Lesion(n, dx, 1, ()), 0) for dx in CLASSES for n in range(400)]
    )
    age = pd.to_numeric(many["age"]).groupby(many["dx"]).mean()
    # The mean ages of HAM10000's lesions, within what 400 draws allow.
    assert [age[dx] for dx in ("akiec", "mel", "nv")] == pytest.approx([66.6, 61.3, 47.3], abs=3)
    share = many.groupby("dx")["localization"].value_counts(normalize=True)
    assert share["df", "lower extremity"] > 0.6
    assert share["akiec", "face"] > 0.25 > share["nv", "face"]
    # 7,470 lesions, less 52 without an age and 50 without a sex.
    sums = {name: [*map(np.sum, (k[name] for k in KINDS.values()))] for name in ("ages", "sexes")}
    assert (sum(sums["ages"]), sum(sums["sexes"])) == (7470 - 52, 7470 - 50)
    assert sum(sum(kind["sites"].values()) for kind in KINDS.values()) == 7470


def test_the_seed_decides_every_picture():
    lesions = plan(80, seed=0)[:60:9]
    one, two, other = (
        [demo.draw_images(lesion, (48, 36), seed) for lesion in chosen]
        for chosen, seed in ((lesions, 0), (lesions[::-1], 0), (lesions, 1))
    )
    assert one == two[::-1]
    assert all(images != others for images, others in zip(one, other, strict=True))


@pytest.mark.usefixtures("undrawn")
def test_the_same_demo_has_the_same_bytes_and_whatever_else_is_there_is_refused(
    tmp_path, monkeypatch
):
    (tmp_path / "a" / "demo").mkdir(parents=True)
    root = write_demo(tmp_path / "a" / "demo", **SMALL)
    before = contents(root)
    assert contents(write_demo(tmp_path / "again", **SMALL)) == before
    assert contents(write_demo(tmp_path / "other", **SMALL, seed=1))[TABLE] != before[TABLE]
    monkeypatch.setattr(demo, "draw_images", None)
    assert write_demo(root, **SMALL) == root
    with pytest.raises(
        SkinlesionError, match=r'"seed": 0.* and not the demo asked for .*"seed": 1'
    ):
        write_demo(root, **SMALL, seed=1)
    with pytest.raises(SkinlesionError, match=r"holds no demo.* new or empty folder"):
        write_demo(tmp_path, **SMALL)
    assert contents(root) == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), *(OSError(no, "full") for no in (errno.ENOSPC, errno.EROFS))]
)
@pytest.mark.parametrize(
    "step", ["skinlesion.data.demo.draw_images", "zipfile.ZipFile.writestr", "os.replace"]
)
def test_what_is_interrupted_leaves_nothing(tmp_path, monkeypatch, error, step):
    monkeypatch.setattr(step, Mock(side_effect=error))
    with pytest.raises(type(error)):
        write_demo(tmp_path / "demo", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"images": MIN_IMAGES - 1}, {"size": (300, 20)}])
def test_too_few_or_too_small_images_are_refused(tmp_path, wrong):
    with pytest.raises(SkinlesionError, match="too small: ask for at least 80 of 32 x 32"):
        write_demo(tmp_path / "demo", **SMALL | wrong)
