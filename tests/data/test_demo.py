"""The demo archive: what it holds, that it repeats, and that it is whole or absent."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from skinlesion.data import demo, drawing
from skinlesion.data.archive import ImageArchive
from skinlesion.data.demo import MARKER, MIN_IMAGES, Lesion, describe, plan, write_demo
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError

PART_1, PART_2, TABLE = (
    "HAM10000_images_part_1.zip",
    "HAM10000_images_part_2.zip",
    "HAM10000_metadata.csv",
)
CONF = Path(__file__).resolve().parents[2] / "conf"
HAM10000 = Schema.from_config(OmegaConf.load(CONF / "data" / "ham10000.yaml"))
COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]
SMALL = {"images": 80, "size": (64, 48), "progress": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(
        tmp_path_factory.mktemp("data") / "demo", images=200, size=(64, 48), progress=False
    )


@pytest.fixture(scope="module")
def frame(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / TABLE)


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    """The metadata of many lesions of each class, without their pictures."""
    lesions = (Lesion(n, dx, n, ()) for dx in CLASSES for n in range(400))
    frame = pd.DataFrame([describe(lesion, seed=0) for lesion in lesions])
    return frame.assign(age=pd.to_numeric(frame["age"]))


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def pictures(root: Path) -> Iterator[tuple[str, Image.Image]]:
    for part in (PART_1, PART_2):
        with zipfile.ZipFile(root / part) as archive:
            for name in archive.namelist():
                yield name, Image.open(io.BytesIO(archive.read(name)))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = write_demo(tmp_path / "one", **SMALL)
    two = write_demo(tmp_path / "two", **SMALL)
    assert contents(one) == contents(two)


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    one = contents(write_demo(tmp_path / "one", **SMALL))
    two = contents(write_demo(tmp_path / "two", **SMALL, seed=1))
    assert all(one[name] != two[name] for name in (PART_1, PART_2, TABLE))


def test_a_lesion_may_be_drawn_on_its_own() -> None:
    lesions = plan(80, seed=0)
    alone = demo.draw_images(lesions[7], (64, 48), 0)
    after_others = [demo.draw_images(lesion, (64, 48), 0) for lesion in lesions[5:8]][-1]
    assert alone == after_others


def test_the_layout_is_that_of_the_archive(root: Path, frame: pd.DataFrame) -> None:
    assert set(contents(root)) == {PART_1, PART_2, TABLE, MARKER}
    assert list(frame.columns) == COLUMNS
    names = [name for name, _ in pictures(root)]
    assert sorted(names) == sorted(frame["image_id"] + ".jpg")
    assert frame["image_id"].str.fullmatch(r"ISIC_\d{7}").all()
    assert frame["lesion_id"].str.fullmatch(r"HAM_\d{7}").all()
    for part in (PART_1, PART_2):
        with zipfile.ZipFile(root / part) as archive:
            assert len(archive.namelist()) == 100


def test_the_images_are_jpegs_of_the_size_asked_for(root: Path) -> None:
    kinds = {(picture.format, picture.mode, picture.size) for _, picture in pictures(root)}
    assert kinds == {("JPEG", "RGB", (64, 48))}


@pytest.mark.parametrize("size", [(96, 72), (64, 64), (48, 80)])
def test_a_photograph_never_shows_the_end_of_the_skin(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    side = drawing.Sheet(size, rng).side
    skin = Image.new("RGB", (side, side), (255, 255, 255))
    for _ in range(40):
        picture = np.asarray(drawing.photograph(skin, size, "vidir_molemax", rng))
        assert np.median(picture[:2, :2]) > 100
        assert np.median(picture[-2:, -2:]) > 100


def test_the_one_reader_reads_it_without_complaint(root: Path) -> None:
    table, problems = read_table(ImageArchive(root), HAM10000)
    assert problems == []
    assert len(table) == 200


def test_two_hundred_images_have_eight_lesions_of_each_class(frame: pd.DataFrame) -> None:
    lesions = frame.groupby("dx")["lesion_id"].nunique()
    assert tuple(lesions.index) == CLASSES
    assert lesions.min() >= 8


def test_the_smallest_demo_has_four_lesions_of_each_class() -> None:
    dx = pd.Series([lesion.dx for lesion in plan(MIN_IMAGES, seed=0)])
    assert dx.value_counts().reindex(CLASSES).min() >= 4


def test_the_default_demo_has_the_documented_counts() -> None:
    lesions = pd.DataFrame([(x.dx, len(x.images)) for x in plan(700, 0)], columns=["dx", "n"])
    found = lesions.groupby("dx")["n"].agg(["sum", "count"])
    documented = {
        "akiec": (60, 42),
        "bcc": (75, 48),
        "bkl": (109, 72),
        "df": (36, 23),
        "mel": (110, 61),
        "nv": (271, 218),
        "vasc": (39, 27),
    }
    assert {dx: tuple(row) for dx, row in found.iterrows()} == documented


def test_lesions_have_several_images_and_one_record(frame: pd.DataFrame) -> None:
    records = frame.drop(columns="image_id").drop_duplicates()
    assert records["lesion_id"].is_unique
    assert (frame["lesion_id"].value_counts() > 1).sum() > 20


def test_the_images_of_a_lesion_differ(root: Path) -> None:
    files = [picture.tobytes() for _, picture in pictures(root)]
    assert len(set(files)) == 200


def test_missing_ages_and_unknowns_are_there(frame: pd.DataFrame) -> None:
    missing = frame[frame["age"].isna()]
    assert len(missing) > 0
    assert set(missing["dx"]) <= {"bkl", "mel", "nv"}
    assert set(missing["sex"]) == set(missing["localization"]) == {"unknown"}


def test_metadata_go_with_the_class_as_in_ham10000(many: pd.DataFrame) -> None:
    age = many.groupby("dx")["age"].mean()
    assert age["nv"] + 15 < age["akiec"]
    # The mean ages of HAM10000's lesions, within what 400 draws allow.
    assert age["mel"] == pytest.approx(60, abs=3)
    assert age["nv"] == pytest.approx(46, abs=3)
    part = many.groupby("dx")["localization"].value_counts(normalize=True)
    assert part["df", "lower extremity"] > 0.6
    assert part["akiec", "face"] > 0.25 > part["nv", "face"]
    assert (many["sex"][many["dx"] == "akiec"] == "male").mean() > 0.57
    assert set(many["dx_type"][many["dx"] == "mel"]) == {"histo"}
    assert "follow_up" in set(many["dx_type"][many["dx"] == "nv"])


def test_the_tables_of_counts_are_whole() -> None:
    """7,470 lesions, less 52 without an age and 50 without a sex."""
    assert sum(demo.LESIONS) == 7470
    assert sum(demo.IMAGES) == 10015
    assert sum(map(sum, demo.LOCALIZATIONS.values())) == 7470
    assert sum(map(sum, demo.ORIGIN_COUNTS.values())) == 7470
    assert sum(map(sum, demo.AGES.values())) == 7470 - 52
    assert sum(map(sum, demo.SEXES.values())) == 7470 - 50


def test_classes_differ_in_colour(root: Path, frame: pd.DataFrame) -> None:
    centre = {name: np.asarray(image)[16:32, 22:42].mean((0, 1)) for name, image in pictures(root)}
    colour = pd.DataFrame.from_dict(centre, orient="index", columns=["r", "g", "b"])
    dx = frame.set_index(frame["image_id"] + ".jpg")["dx"]
    mean = colour.groupby(dx).mean()
    red = mean["r"] / mean["g"]
    assert red["vasc"] > red["nv"] > red["df"]
    light = mean.sum(axis=1)
    assert light["mel"] < light["bkl"] < light["df"]
    assert mean["b"]["vasc"] > mean["g"]["vasc"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    draw = demo.draw_images

    def stop(lesion: Lesion, *arguments: object) -> list[bytes]:
        if lesion.number == 9:
            raise error
        return draw(lesion, *arguments)

    monkeypatch.setattr(demo, "draw_images", stop)
    with pytest.raises(error):
        write_demo(tmp_path / "demo", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_leaves_the_demo_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_demo(tmp_path / "demo", **SMALL)
    monkeypatch.setattr(demo, "draw_images", None)
    assert write_demo(tmp_path / "demo", **SMALL) == root


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    root = tmp_path / "a" / "demo"
    root.mkdir(parents=True)
    assert set(contents(write_demo(root, **SMALL))) == {PART_1, PART_2, TABLE, MARKER}


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SkinlesionError, match="new or empty folder"):
        write_demo(tmp_path, **SMALL)
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_another_demo_is_refused(tmp_path: Path) -> None:
    root = write_demo(tmp_path / "demo", **SMALL)
    before = contents(root)
    with pytest.raises(SkinlesionError, match="another demo"):
        write_demo(root, **SMALL, seed=1)
    assert contents(root) == before


@pytest.mark.parametrize("wrong", [{"images": MIN_IMAGES - 1}, {"size": (300, 20)}])
def test_too_few_or_too_small_images_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(SkinlesionError, match="too small"):
        write_demo(tmp_path / "demo", **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []
