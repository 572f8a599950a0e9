import doctest
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import skinlesion
import skinlesion.serving.model
from skinlesion.data.archive import ImageArchive
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import scale
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.model import LesionModel, load_run, temperature_of
from skinlesion.runs.directory import RunDirectory


@pytest.fixture(scope="module")
def model(trained: Path) -> LesionModel:
    return load_run(trained)


@pytest.fixture
def jpeg(archive: Path, trained: Path) -> bytes:
    held_out = read_predictions(trained / "predictions.csv").frame["image_id"]
    return ImageArchive(archive).read(held_out[0])


def test_the_package_offers_load_run() -> None:
    assert skinlesion.load_run is load_run
    with pytest.raises(AttributeError, match="load_runs"):
        _ = skinlesion.load_runs


def test_an_image_is_predicted_from_path_bytes_picture_and_pixels_alike(
    model: LesionModel, jpeg: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg)
    picture = Image.open(path)
    said = [
        model.predict(source, age=45, sex="male", localization="back").raw
        for source in (path, str(path), jpeg, picture, np.asarray(picture))
    ]
    assert all(other == said[0] for other in said[1:])
    assert list(said[0]) == list(model.classes)


def test_probabilities_are_the_raw_ones_scaled_by_the_temperature_of_validation(
    model: LesionModel, jpeg: bytes, trained: Path
) -> None:
    assert model.temperature == temperature_of(RunDirectory(trained))
    prediction = model.predict(jpeg)
    raw = np.array([*prediction.raw.values()])
    expected = scale(raw, model.temperature)
    np.testing.assert_allclose([*prediction.probabilities.values()], expected, rtol=1e-9)
    assert prediction.label == model.classes[int(raw.argmax())]


def test_metadata_matters_and_what_is_missing_is_said(model: LesionModel, jpeg: bytes) -> None:
    known = model.predict(jpeg, age="85", sex="Male ", localization="face")
    unknown = model.predict(jpeg)
    assert known.missing == ()
    assert unknown.missing == ("age", "sex", "localization")
    assert known.raw != unknown.raw
    assert model.predict(jpeg, age=None, sex="", localization="face").missing == ("age", "sex")
    assert model.predict(jpeg, age=float("nan"), sex="male").missing == ("age", "localization")


def test_unknown_metadata_is_refused_with_what_would_do(model: LesionModel, jpeg: bytes) -> None:
    with pytest.raises(SkinlesionError, match=r"age.*300.*0.*120"):
        model.predict(jpeg, age=300)
    with pytest.raises(SkinlesionError, match=r"localization.*nose.*abdomen"):
        model.predict(jpeg, localization="nose")
    with pytest.raises(SkinlesionError, match=r"localisation.*localization"):
        model.predict(jpeg, localisation="back")


def test_a_file_holds_all_that_a_run_does(model: LesionModel, jpeg: bytes, tmp_path: Path) -> None:
    model.save(tmp_path / "model.safetensors")
    again = load_run(tmp_path / "model.safetensors")
    assert again.temperature == model.temperature
    assert again.predict(jpeg, age=45) == model.predict(jpeg, age=45)


def test_a_checkpoint_stands_for_its_run(trained: Path, model: LesionModel, jpeg: bytes) -> None:
    again = load_run(trained / "checkpoints/best.ckpt")
    assert again.predict(jpeg) == model.predict(jpeg)


def test_what_is_no_trained_model_is_said(finished_run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(SkinlesionError, match="no such run or file"):
        load_run(tmp_path / "nothing")
    with pytest.raises(SkinlesionError, match=r"no run directory.*Runs in it: .*seed0"):
        load_run(tmp_path)
    finished_run.best.write_bytes(finished_run.best.read_bytes()[:1000])
    with pytest.raises(SkinlesionError, match="cannot be loaded as a model"):
        load_run(finished_run.path)
    shutil.rmtree(finished_run.checkpoints)
    with pytest.raises(SkinlesionError, match="has no weights"):
        load_run(finished_run.path)
    save_file({"a": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SkinlesionError, match="does not say how a model is built"):
        load_run(tmp_path / "other.safetensors")


def test_a_device_that_is_not_there_is_named(trained: Path) -> None:
    with pytest.raises(SkinlesionError, match="device=gpu"):
        load_run(trained, device="gpu")


def test_a_run_that_is_not_finished_is_told_from_one_that_is(finished_run: RunDirectory) -> None:
    finished_run.predictions.unlink()
    with pytest.raises(SkinlesionError, match="not trained to the end"):
        load_run(finished_run.path)


def test_the_docstrings_example_works(
    model: LesionModel, jpeg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "lesion.jpg").write_bytes(jpeg)
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(skinlesion.serving.model)
    assert found.attempted >= 6
    assert found.failed == 0


def test_a_pictures_exif_orientation_is_followed(model: LesionModel, jpeg: bytes) -> None:
    picture = Image.open(io.BytesIO(jpeg))
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    turned = io.BytesIO()
    picture.rotate(90, expand=True).save(turned, "PNG", exif=exif)
    assert model.predict(turned.getvalue()) == model.predict(jpeg)
