import json
from pathlib import Path

import numpy as np
import pytest

from skinlesion.cli import main
from skinlesion.data.pixels import read_image
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.model import load_run


@pytest.fixture
def predict(trained, capsys):
    def run(*words, code=0):
        """Return what is answered, and what else is said."""
        assert main(["predict", str(trained), *map(str, words), "--json"]) == code
        out, err = capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()], err

    return run


def test_a_folder_with_its_table_gives_the_numbers_of_the_predictions_file(
    photos, trained, predict
):
    answers, _ = predict(photos, "--csv", photos / "metadata.csv")
    found = {Path(answer["image"]).stem: answer for answer in answers}
    written = read_predictions(trained / "predictions.csv")
    assert set(found) == set(written.frame["image_id"])
    for image_id, expected in zip(written.frame["image_id"], written.probabilities, strict=True):
        np.testing.assert_allclose([*found[image_id]["raw"].values()], expected, atol=1e-5)
        assert found[image_id]["missing"] == []
        assert sum(found[image_id]["probabilities"].values()) == pytest.approx(1)


def test_a_broken_image_is_one_line_and_the_exit_code(photos, tmp_path, predict):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    a, b = sorted(photos.glob("*.jpg"))[:2]
    found, err = predict(a, broken, b, code=1)
    assert [Path(each["image"]) for each in found] == [a, broken, b]
    assert "broken.jpg" in found[1]["error"]
    assert found[0]["missing"] == ["age", "sex", "localization"]
    assert "1 of 3 images could not be read" in err


def test_a_folder_says_which_of_its_files_it_passed_over(photo, tmp_path, predict):
    for name in ("phone.HEIC", "scan.tif", "._a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=r"holds no image .* but ._a.jpg, phone.HEIC, scan.tif"):
        predict(tmp_path)
    (tmp_path / "a.JPG").write_bytes(photo.read_bytes())
    found, err = predict(tmp_path)
    assert [Path(each["image"]).name for each in found] == ["a.JPG"]
    assert "passed over, as no image: ._a.jpg, phone.HEIC, scan.tif" in err


def test_the_table_shows_calibrated_and_raw_and_what_was_missing(photo, trained, model, capsys):
    main(["predict", str(trained), str(photo), "--age", "45", "--set", "sex=male"])
    out, err = capsys.readouterr()
    head, _, calibrated, raw = out.splitlines()
    assert head.split() == ["image", "predicted", *model.classes]
    assert calibrated.startswith(photo.name)
    assert calibrated.endswith("without localization")
    assert len(raw.split()) == 8
    assert "no medical device" in err


def test_a_line_of_the_table_goes_before_the_options_and_its_blanks_do_not(
    photos, model, tmp_path, predict
):
    a, b = sorted(photos.glob("*.jpg"))[:2]
    table = tmp_path / "m.csv"
    table.write_text(f"File;Age;sex;note\nphotos/{a.name};80;;x\n")
    (first, second), _ = predict(a, b, "--age", "20", "--sex", "male", "--csv", table)
    assert first["raw"] == pytest.approx(model.predict(a, age=80, sex="male").raw, abs=1e-6)
    assert second["raw"] == pytest.approx(model.predict(b, age=20, sex="male").raw, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--age", "old"], "age"),
        (["--set", "age"], "expected name=value"),
        (["--set", "weight=80"], "weight"),
        (["--csv", "nothing.csv"], "cannot be read as a table"),
        (["--csv", "other.csv"], "expected a column image or image_id or file"),
        (["--csv", "twice.csv"], "two lines: a"),
        (["--csv", "stranger.csv"], "names none of the images"),
    ],
)
def test_wrong_metadata_is_one_error_before_any_image_is_read(
    words, message, photos, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("skinlesion.serving.model.load_run", lambda *_: model)
    monkeypatch.chdir(tmp_path)
    Path("other.csv").write_text("picture,age\na,3\n")
    Path("twice.csv").write_text("image,age\na.jpg,3\na,4\n")
    Path("stranger.csv").write_text("image,age\nsomebody.jpg,4\n")
    with pytest.raises(SystemExit, match=message):
        main(["predict", "run", str(photos), *words])
    assert capsys.readouterr().out == ""


def test_tta_is_the_mean_over_views_and_doubts_are_said_when_asked(photo, trained, predict, capsys):
    plain = predict(photo)[0][0]
    flips = predict(photo, "--tta", "flips", "--sure")[0][0]
    turned = [
        image[:: 1 - 2 * up, :: 1 - 2 * left]
        for image in [read_image(photo)]
        for up in (0, 1)
        for left in (0, 1)
    ]
    model = load_run(trained)
    mean = np.mean([[*model.predict(image).raw.values()] for image in turned], axis=0)
    np.testing.assert_allclose([*flips["raw"].values()], mean, atol=1e-3)
    assert (flips["tta"], flips["sure"]) == (
        "flips",
        max(flips["probabilities"].values()) >= model.sure,
    )
    assert not {"tta", "sure"} & {*plain}
    model.sure = 1.0
    assert model.predict(photo).sure is False
    main(["predict", str(trained), str(photo), "--tta", "crops", "--sure"])
    out, err = capsys.readouterr()
    assert "the mean of 16 views each" in err
    assert ("not sure enough" in out) == (not flips["sure"])
