from pathlib import Path

import pytest

from skinlesion import explain
from skinlesion.data.archive import ImageArchive
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions


@pytest.fixture
def photo(archive: Path, trained: Path, tmp_path: Path) -> Path:
    held_out = read_predictions(trained / "predictions.csv").frame["image_id"]
    path = tmp_path / "lesion.jpg"
    path.write_bytes(ImageArchive(archive).read(held_out[0]))
    return path


def test_each_image_gives_a_figure_and_a_broken_one_a_line(
    photo: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    out = tmp_path / "maps"
    code = explain.main([str(trained), str(broken), str(photo), "--age", "45", "--out", str(out)])
    assert code == 1
    assert {path.name for path in out.iterdir()} == {
        "lesion_attention.png",
        "lesion_attention.pdf",
    }
    said, complained = capsys.readouterr()
    assert said.splitlines() == [str(out / "lesion_attention.png")]
    assert "broken.jpg is no image" in complained


def test_a_class_that_is_none_is_answered_with_those_there_are(photo: Path, trained: Path) -> None:
    with pytest.raises(SkinlesionError, match=r"no class melanoma: expected akiec.*vasc"):
        explain.main([str(trained), str(photo), "--class", "melanoma"])
