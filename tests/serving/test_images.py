import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion.errors import SkinlesionError
from skinlesion.serving import images
from skinlesion.serving.images import images_in, read_image


def encoded(kind: str, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 200 if mode == "L" else None).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_three_kinds_of_file_are_read(kind: str) -> None:
    assert read_image(encoded(kind)).shape == (6, 8, 3)


def test_grey_and_transparent_pictures_become_rgb() -> None:
    assert (read_image(encoded("PNG", mode="L")) == 200).all()
    assert read_image(encoded("PNG", mode="RGBA")).shape == (6, 8, 3)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(SkinlesionError, match="no image of JPEG, PNG, WEBP"):
        read_image(encoded("GIF"))
    with pytest.raises(SkinlesionError, match="no image of"):
        read_image(b"a text")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(encoded("JPEG", (64, 64))[:400])
    with pytest.raises(SkinlesionError, match=r"half\.jpg is damaged"):
        read_image(path)
    with pytest.raises(SkinlesionError, match=r"nothing\.jpg cannot be read"):
        read_image(tmp_path / "nothing.jpg")


def test_what_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 40)
    with pytest.raises(SkinlesionError, match="8 x 6 pixels, at most 40"):
        read_image(encoded("PNG"))
    monkeypatch.setattr(images, "MOST_BYTES", 50)
    with pytest.raises(SkinlesionError, match="at most 0"):
        read_image(encoded("PNG", (64, 64), "RGBA"))
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    with pytest.raises(SkinlesionError, match="at most 0"):
        read_image(tmp_path / "a.png")


def test_an_array_must_be_pixels() -> None:
    with pytest.raises(SkinlesionError, match="found float64"):
        read_image(np.zeros((4, 4, 3)))
    with pytest.raises(SkinlesionError, match=r"\(3, 4, 4\)"):
        read_image(np.zeros((3, 4, 4), np.uint8))


def test_a_folder_stands_for_its_images_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    other = tmp_path / "elsewhere.tif"
    assert [p.name for p in images_in([other, tmp_path])] == ["elsewhere.tif", "a.png", "b.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkinlesionError, match="holds no image"):
        images_in([tmp_path / "empty"])
