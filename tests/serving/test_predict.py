import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion import predict
from skinlesion.data.archive import ImageArchive
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions


@pytest.fixture(scope="module")
def photos(archive: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The held-out images as files, and their metadata."""
    folder = tmp_path_factory.mktemp("photos")
    images = ImageArchive(archive)
    held_out = read_predictions(trained / "predictions.csv").frame["image_id"]
    for image_id in held_out:
        (folder / f"{image_id}.jpg").write_bytes(images.read(image_id))
    table = pd.read_csv(archive / "HAM10000_metadata.csv")
    table[table["image_id"].isin(held_out)].to_csv(folder / "metadata.csv", index=False)
    return folder


def answers(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_with_its_table_gives_the_numbers_of_the_predictions_file(
    photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = predict.main([str(trained), str(photos), "--csv", f"{photos}/metadata.csv", "--json"])
    assert code == 0
    found = {Path(a["image"]).stem: a for a in answers(capsys.readouterr().out)}
    written = read_predictions(trained / "predictions.csv")
    assert set(found) == set(written.frame["image_id"])
    for image_id, expected in zip(written.frame["image_id"], written.probabilities, strict=True):
        np.testing.assert_allclose([*found[image_id]["raw"].values()], expected, atol=1e-5)
        assert found[image_id]["missing"] == []
        assert sum(found[image_id]["probabilities"].values()) == pytest.approx(1)


def test_a_broken_image_is_one_line_and_the_exit_code(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    whole = sorted(photos.glob("*.jpg"))[:2]
    said = [str(whole[0]), str(broken), str(whole[1]), "--json"]
    assert predict.main([str(trained), *said]) == 1
    out, err = capsys.readouterr()
    first, second, third = answers(out)
    assert [Path(a["image"]).name for a in (first, second, third)] == [
        whole[0].name,
        "broken.jpg",
        whole[1].name,
    ]
    assert "broken.jpg" in second["error"]
    assert first["missing"] == ["age", "sex", "localization"]
    assert "1 of 3 images could not be read" in err


def test_the_table_shows_calibrated_and_raw_and_what_was_missing(
    photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = min(photos.glob("*.jpg"))
    predict.main([str(trained), str(image), "--age", "45", "--set", "sex=male"])
    out, err = capsys.readouterr()
    head, _, calibrated, raw = out.splitlines()
    assert head.split() == [
        "image",
        "predicted",
        *read_predictions(trained / "predictions.csv").classes,
    ]
    assert calibrated.startswith(image.name)
    assert calibrated.endswith("without localization")
    assert len(raw.split()) == 8
    assert "no medical device" in err


def test_a_line_of_the_table_goes_before_the_options(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = sorted(photos.glob("*.jpg"))[:2]
    table = tmp_path / "m.csv"
    table.write_text(f"File,Age,sex,note\n{a.name},80,,x\n")
    options = ["--age", "20", "--sex", "male", "--localization", "back", "--json"]

    def raw(*more: str, image: Path = a) -> dict:
        predict.main([str(trained), str(image), *more])
        return answers(capsys.readouterr().out)[0]["raw"]

    predict.main([str(trained), str(a), str(b), *options, "--csv", str(table)])
    with_table = answers(capsys.readouterr().out)
    older = ["--age", "80", *options[2:]]
    assert with_table[0]["raw"] == pytest.approx(raw(*older), abs=1e-6)
    assert with_table[1]["raw"] == pytest.approx(raw(*options, image=b), abs=1e-6)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["--age", "old"], "age"),
        (["--set", "age"], "expected name=value"),
        (["--set", "weight=80"], "weight"),
        (["--csv", "nothing.csv"], "cannot be read as a table"),
        (["--csv", "other.csv"], "expected a column image or image_id or file"),
        (["--csv", "twice.csv"], "two lines"),
        (["--csv", "stranger.csv"], "names none of the images"),
    ],
)
def test_wrong_metadata_is_one_error_before_any_image_is_read(
    said: list[str],
    message: str,
    photos: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.csv").write_text("picture,age\na,3\n")
    Path("twice.csv").write_text("image,age\na,3\na,4\n")
    Path("stranger.csv").write_text("image,age\nsomebody.jpg,4\n")
    with pytest.raises(SkinlesionError, match=message):
        predict.main([str(trained), str(photos), *said])
    assert capsys.readouterr().out == ""
