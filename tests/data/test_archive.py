"""Images are found wherever people keep them, and what is no image is named."""

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from skinlesion.data.archive import ImageArchive, in_parallel
from skinlesion.errors import SkinlesionError

Write = Callable[..., Path]


def test_every_layout_holds_the_same_images(
    write: Write, layout: str, jpegs: dict[str, bytes]
) -> None:
    archive = ImageArchive(write(layout))
    assert len(archive) == 60
    assert {image_id: archive.read(image_id) for image_id in jpegs} == jpegs
    assert "ISIC_0000000" in archive
    assert "ISIC_0000060" not in archive


def test_images_of_any_suffix_of_jpeg_and_png_count_and_other_files_do_not(
    tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    for name in ("a.jpg", "b.JPG", "c.jpeg", "d.PNG", "._a.jpg", "e.txt", "jpg"):
        (tmp_path / name).write_bytes(jpeg(0))
    (tmp_path / "f.jpg").mkdir()
    with zipfile.ZipFile(tmp_path / "HAM10000_images_part_1.zip", "w") as file:
        for name in ("folder/", "folder/g.jpg", "__MACOSX/folder/._g.jpg", "folder/h.csv"):
            file.writestr(name, jpeg(0) if name.endswith("g.jpg") else b"")
    archive = ImageArchive(tmp_path)
    assert [i for i in "abcdefgh" if i in archive] == ["a", "b", "c", "d", "g"]
    assert len(archive) == 5


def test_an_absent_root_names_the_three_ways_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(SkinlesionError) as caught:
        ImageArchive(tmp_path / "absent")
    for expected in (tmp_path / "absent", "make data", "machine.data=", "HAM10000_ROOT", "data=demo"):
        assert str(expected) in str(caught.value)


def test_a_file_for_a_root_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SkinlesionError, match="no such folder"):
        ImageArchive(tmp_path / "file")


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_zip_whose_download_broke_off_is_named_with_the_mend(write: Write, kept: int) -> None:
    root = write("zips")
    path = root / "HAM10000_images_part_2.zip"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SkinlesionError, match=r"part_2\.zip .*broke off.*make data"):
        ImageArchive(root)


def test_what_is_no_whole_jpeg_or_png_is_named(write: Write, jpegs: dict[str, bytes]) -> None:
    png = io.BytesIO()
    Image.new("RGB", (40, 30)).save(png, "PNG")
    ids = list(jpegs)
    jpegs[ids[3]] = jpegs[ids[3]][:-200]
    jpegs[ids[11]] = b""
    jpegs[ids[20]] = png.getvalue()  # Pillow tells by the bytes, whatever the file is called
    jpegs[ids[30]] = png.getvalue()[:-12]
    jpegs[ids[59]] = b"<html>404 Not Found</html>"
    for layout in ("zips", "folders"):
        archive = ImageArchive(write(layout, jpegs=jpegs))
        assert archive.broken(ids) == [ids[3], ids[11], ids[30], ids[59]]
        assert archive.broken(ids[4:11]) == []


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(write: Write, jpegs: dict[str, bytes]) -> None:
    jpegs["ISIC_0000000"] += b"\0" * 500
    assert ImageArchive(write("folders", jpegs=jpegs)).broken(list(jpegs)) == []


def _flip_a_byte(path: Path, image: bytes) -> None:
    data = path.read_bytes()
    middle = data.index(image) + len(image) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def _patch_headers(path: Path, local: int, central: int, value: int) -> None:
    """Write a byte into a field of the first member's two headers."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x03\x04") + local] = value
    data[data.index(b"PK\x01\x02") + central] = value
    path.write_bytes(data)


@pytest.mark.parametrize("fault", ["wrong checksum", "encrypted", "Windows' Deflate64"])
def test_a_zip_member_that_cannot_be_read_is_named(
    write: Write, jpegs: dict[str, bytes], fault: str
) -> None:
    root = write("zips")
    path = root / "HAM10000_images_part_1.zip"
    if fault == "wrong checksum":
        _flip_a_byte(path, jpegs["ISIC_0000000"])
    elif fault == "encrypted":
        _patch_headers(path, 6, 8, 1)
    else:
        _patch_headers(path, 8, 10, 9)
    assert ImageArchive(root).broken(sorted(jpegs)) == ["ISIC_0000000"]


def test_images_can_be_read_from_several_threads(write: Write, jpegs: dict[str, bytes]) -> None:
    archive = ImageArchive(write("zips"))
    wanted = list(jpegs) * 10
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(archive.read, wanted)) == [jpegs[image_id] for image_id in wanted]


@pytest.mark.parametrize("layout", ["zips", "folders"])
def test_the_fingerprint_changes_with_the_images_asked_for_and_only_with_them(
    write: Write, layout: str, jpegs: dict[str, bytes], jpeg: Callable[..., bytes]
) -> None:
    root = write(layout)
    first = ["ISIC_0000000", "ISIC_0000001"]
    before = ImageArchive(root).fingerprint(first)
    assert ImageArchive(root).fingerprint(first) == before
    assert ImageArchive(root).fingerprint(first[:1]) != before
    assert ImageArchive(root).fingerprint(first[::-1]) != before

    def replace(image_id: str) -> None:
        data = jpegs[image_id][:-3] + b"\0" + jpegs[image_id][-2:]  # as long as it was
        if layout == "folders":
            next(root.rglob(f"{image_id}.jpg")).write_bytes(data)
        else:
            path = root / "HAM10000_images_part_1.zip"
            path.unlink()
            with zipfile.ZipFile(path, "w") as file:
                for name in sorted(jpegs)[:30]:
                    file.writestr(f"{name}.jpg", data if name == image_id else jpegs[name])

    replace("ISIC_0000002")
    assert ImageArchive(root).fingerprint(first) == before
    replace("ISIC_0000001")
    assert ImageArchive(root).fingerprint(first) != before


def test_parallel_results_come_in_order() -> None:
    def late(item: int) -> int:
        time.sleep(0.002 * (item % 5 == 0))
        return item * item

    assert list(in_parallel(late, range(50), "squares")) == [item * item for item in range(50)]


def test_a_failure_stops_the_parallel_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    begun = []

    def fail(item: int) -> None:
        begun.append(item)
        time.sleep(0.002)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(in_parallel(fail, range(1000), "failing"))
    assert len(begun) < 100


def test_reading_the_table_and_splitting_it_do_not_load_torch() -> None:
    code = """
import sys
import skinlesion.data.archive
assert not {"torch", "pandas", "PIL", "sklearn"} & set(sys.modules), "archive"
import skinlesion.data.split, skinlesion.data.encoding
assert "torch" not in sys.modules, "split"
import skinlesion.data.cache
assert "torch" not in sys.modules, "cache"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_files_of_one_name_that_differ_are_ambiguous_and_copies_are_not(
    tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    for name in ("images/a.jpg", "masks/a.png", "images/b.jpg", "copies/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(1, width=20 if "masks" in name else 40))
    assert ImageArchive(tmp_path).ambiguous == {"a": "images/a.jpg and masks/a.png"}
