"""The demo archive: what it holds, that it repeats, and that it is whole or absent."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data import demo, drawing
from skinlesion.data.archive import ImageArchive
from skinlesion.data.demo import KINDS, MIN_IMAGES, Lesion, metadata_of, plan, write_demo
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError

ZIPS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
TABLE = "HAM10000_metadata.csv"
SMALL: dict[str, Any] = {"images": 80, "size": (48, 36), "progress": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    return write_demo(folder, images=200, size=(64, 48), progress=False)


@pytest.fixture(scope="module")
def frame(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / TABLE)


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def pictures(root: Path) -> Iterator[tuple[str, Image.Image]]:
    for part in ZIPS:
        with zipfile.ZipFile(root / part) as archive:
            for name in archive.namelist():
                yield name, Image.open(io.BytesIO(archive.read(name)))


def test_the_seed_decides_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lesions = plan(80, seed=0)[:60:9]
    one, two, other = (
        [demo.draw_images(lesion, (48, 36), seed) for lesion in chosen]
        for chosen, seed in ((lesions, 0), (lesions[::-1], 0), (lesions, 1))
    )
    assert one == two[::-1]
    assert all(images != others for images, others in zip(one, other, strict=True))

    monkeypatch.setattr(demo, "draw_images", lambda lesion, *_: [b""] * len(lesion.images))
    first, again = (contents(write_demo(tmp_path / name, **SMALL)) for name in ("one", "two"))
    assert first == again
    assert first[TABLE] != contents(write_demo(tmp_path / "other", **SMALL, seed=1))[TABLE]


def test_the_layout_is_that_of_the_archive(root: Path, frame: pd.DataFrame) -> None:
    assert {*ZIPS, TABLE} < set(contents(root))
    assert [*frame] == [
        *("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
    ]
    assert sorted(name for name, _ in pictures(root)) == sorted(frame["image_id"] + ".jpg")
    assert frame["image_id"].str.fullmatch(r"ISIC_\d{7}").all()
    assert frame["lesion_id"].str.fullmatch(r"HAM_\d{7}").all()
    for part in ZIPS:
        with zipfile.ZipFile(root / part) as archive:
            assert len(archive.namelist()) == 100
    kinds = {(picture.format, picture.mode, picture.size) for _, picture in pictures(root)}
    assert kinds == {("JPEG", "RGB", (64, 48))}


def test_the_one_reader_reads_it_without_complaint(root: Path, ham10000: dict[str, Any]) -> None:
    table, problems = read_table(ImageArchive(root), Schema.from_config(ham10000))
    assert problems == []
    assert len(table) == 200


@pytest.mark.parametrize("size", [(96, 72), (64, 64), (48, 80)])
def test_a_photograph_never_shows_the_end_of_the_skin(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    side = drawing.Sheet(size, rng).side
    skin = Image.new("RGB", (side, side), (255, 255, 255))
    for _ in range(40):
        picture = np.asarray(drawing.photograph(skin, size, demo.CAMERAS["vidir_molemax"], rng))
        for corner in (picture[:2, :2], picture[:2, -2:], picture[-2:, :2], picture[-2:, -2:]):
            assert np.median(corner) > 100


@pytest.mark.parametrize(("images", "lesions"), [(MIN_IMAGES, 4), (200, 8)])
def test_every_class_has_lesions_enough_for_every_part(images: int, lesions: int) -> None:
    dx = pd.Series([lesion.dx for lesion in plan(images, seed=0)])
    assert dx.value_counts().reindex(CLASSES).min() >= lesions


def test_lesions_have_several_images_which_differ_and_one_record(
    root: Path, frame: pd.DataFrame
) -> None:
    records = frame.drop(columns="image_id").drop_duplicates()
    assert records["lesion_id"].is_unique
    assert (frame["lesion_id"].value_counts() > 1).sum() > 20
    assert len({picture.tobytes() for _, picture in pictures(root)}) == 200


def test_age_sex_and_localization_are_missing_together(frame: pd.DataFrame) -> None:
    missing = frame[frame["age"].isna()]
    assert set(missing["dx"]) == {"bkl", "mel", "nv"}
    assert set(missing["sex"]) == set(missing["localization"]) == {"unknown"}


def test_metadata_go_with_the_class_as_in_ham10000() -> None:
    many = pd.DataFrame(
        [metadata_of(Lesion(n, dx, 1, ()), 0) for dx in CLASSES for n in range(400)]
    )
    age = pd.to_numeric(many["age"]).groupby(many["dx"]).mean()
    # The mean ages of HAM10000's lesions, within what 400 draws allow.
    assert age["akiec"] == pytest.approx(66.6, abs=3)
    assert age["mel"] == pytest.approx(61.3, abs=3)
    assert age["nv"] == pytest.approx(47.3, abs=3)
    share = many.groupby("dx")["localization"].value_counts(normalize=True)
    assert share["df", "lower extremity"] > 0.6
    assert share["akiec", "face"] > 0.25 > share["nv", "face"]
    assert set(many["dx_type"][many["dx"] == "mel"]) == {"histo"}
    assert "follow_up" in set(many["dx_type"][many["dx"] == "nv"])


def test_the_counts_are_ham10000s() -> None:
    """7,470 lesions, less 52 without an age and 50 without a sex."""
    assert tuple(KINDS) == CLASSES
    total = {
        name: sum(np.sum(kind[name]) for kind in KINDS.values())
        for name in KINDS["nv"]
        if name not in ("signs", "sites")
    }
    assert total == {
        "images": 10_015,
        "lesions": 7470,
        "ages": 7470 - 52,
        "sexes": 7470 - 50,
        "origins": 7470,
    }
    assert sum(sum(kind["sites"].values()) for kind in KINDS.values()) == 7470


def test_classes_differ_in_colour(root: Path, frame: pd.DataFrame) -> None:
    centre = {name: np.asarray(image)[16:32, 22:42].mean((0, 1)) for name, image in pictures(root)}
    colour = pd.DataFrame.from_dict(centre, orient="index", columns=["r", "g", "b"])
    mean = colour.groupby(frame.set_index(frame["image_id"] + ".jpg")["dx"]).mean()
    red = mean["r"] / mean["g"]
    assert red["vasc"] > red["nv"] > red["df"]
    light = mean.sum(axis=1)
    assert light["mel"] < light["bkl"] < light["df"]
    assert mean["b"]["vasc"] > mean["g"]["vasc"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stop(lesion: Lesion, *arguments: object) -> list[bytes]:
        if lesion.number == 9:
            raise error
        return [b""] * len(lesion.images)

    monkeypatch.setattr(demo, "draw_images", stop)
    with pytest.raises(error):
        write_demo(tmp_path / "demo", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_same_demo_is_left_as_it_is_and_whatever_else_is_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "demo").mkdir(parents=True)
    monkeypatch.setattr(demo, "draw_images", lambda lesion, *_: [b""] * len(lesion.images))
    root = write_demo(tmp_path / "a" / "demo", **SMALL)
    before = contents(root)
    assert {*ZIPS, TABLE} < set(before)
    monkeypatch.setattr(demo, "draw_images", None)
    assert write_demo(root, **SMALL) == root
    with pytest.raises(
        SkinlesionError, match=r'"seed": 0.* and not the demo asked for .*"seed": 1'
    ):
        write_demo(root, **SMALL, seed=1)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SkinlesionError, match="holds no demo.* new or empty folder"):
        write_demo(tmp_path, **SMALL)
    assert (contents(root), (tmp_path / "thesis.tex").read_text()) == (before, "precious")


@pytest.mark.parametrize("wrong", [{"images": MIN_IMAGES - 1}, {"size": (300, 20)}])
def test_too_few_or_too_small_images_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SkinlesionError, match="too small: ask for at least 80 of 32 x 32"):
        write_demo(tmp_path / "demo", **SMALL | wrong)
    assert list(tmp_path.iterdir()) == []
