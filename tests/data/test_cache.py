"""Every image decoded once, as the authors' smart_resize would, into a cache that is whole."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from skinlesion.data import cache as module
from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import DECODE_ERRORS, ImageCache, cache_path, decode, open_cache
from skinlesion.errors import SkinlesionError

Write = Callable[..., Path]
Jpeg = Callable[..., bytes]

IDS = [f"ISIC_{number:07d}" for number in range(60)]


def squares(values: list[list[int]]) -> np.ndarray:
    """Grey squares of 8 px: at quality 100 a JPEG keeps them exactly."""
    return np.kron(np.array(values, np.uint8), np.ones((8, 8), np.uint8))


def opened(root: Path, folder: Path, size: int = 16) -> ImageCache:
    return open_cache(folder, ImageArchive(root), IDS, size)


def caches(folder: Path) -> list[str]:
    """What is in the folder besides locks."""
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


# --- from a file to pixels ----------------------------------------------------------------------


def test_the_square_in_the_centre_is_kept(jpeg: Jpeg) -> None:
    wide = jpeg(squares([[10, 20, 30, 40], [50, 60, 70, 80]]), quality=100)
    assert decode(wide, 2)[..., 0].tolist() == [[20, 30], [60, 70]]
    tall = jpeg(squares([[10, 50], [20, 60], [30, 70], [40, 80]]), quality=100)
    assert decode(tall, 2)[..., 0].tolist() == [[20, 60], [30, 70]]


def test_an_odd_margin_is_cut_as_int_would_round_it(jpeg: Jpeg) -> None:
    # smart_resize: int((35 - 32) / 2) = 1 px on the left, so 2 px on the right.
    pixels = np.zeros((32, 35), np.uint8)
    pixels[:, 1] = 255
    kept = decode(jpeg(pixels, quality=100), 32)[:, :, 0]
    assert kept[:, 0].min() > 200
    assert kept[:, 1:].max() < 60


def test_growing_is_bilinear_between_pixel_centres(jpeg: Jpeg) -> None:
    # Row x of 32 lies at (x + 0.5) / 2 - 0.5 of 16: 7.25 and 7.75 around the edge.
    grown = decode(jpeg(squares([[40, 80], [40, 80]]), quality=100), 32)
    assert grown[0, :, 0].tolist() == [40] * 15 + [50, 70] + [80] * 15


def test_shrinking_is_bilinear_without_antialias(jpeg: Jpeg) -> None:
    # Column x of 5 lies at (x + 0.5) * 3.2 - 0.5 of 16: 1.1, 4.3, 7.5, 10.7, 13.9.
    shrunk = decode(jpeg(squares([[40, 80], [40, 80]]), quality=100), 5)
    assert shrunk[0, :, 0].tolist() == [40, 40, 60, 80, 80]
    # Column x of 4 lies at 1.5, 5.5, ...: an antialias would mix the squares at 5.5.
    shrunk = decode(jpeg(squares([[40, 80], [40, 80]]), quality=100), 4)
    assert shrunk[0, :, 0].tolist() == [40, 40, 80, 80]


@pytest.mark.parametrize(("width", "height", "size"), [(60, 45, 22), (45, 60, 64), (40, 40, 40)])
def test_pixels_are_opencvs_bilinear_ones(jpeg: Jpeg, width: int, height: int, size: int) -> None:
    data = jpeg(1, width, height, subsampling=0)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    top, left = (height - min(whole.shape[:2])) // 2, (width - min(whole.shape[:2])) // 2
    square = whole[top : height - top, left : width - left][: min(width, height)]
    square = square[:, : min(width, height)]
    expected = cv2.resize(square.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    # A pixel where libjpeg builds differ, or a tie in rounding, may be one off.
    assert np.abs(decode(data, size) - expected).max() <= 1.6
    assert np.abs(decode(data, size) - expected).mean() < 0.35


def test_channels_are_red_green_blue(jpeg: Jpeg) -> None:
    orange = np.full((16, 16, 3), (200, 120, 20), np.uint8)
    assert np.abs(decode(jpeg(orange), 8)[4, 4] - np.array([200, 120, 20])).max() <= 3


def test_a_grey_jpeg_gets_three_equal_channels(jpeg: Jpeg) -> None:
    pixels = decode(jpeg(squares([[10, 200], [90, 30]])), 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xd9"])
def test_what_is_neither_jpeg_nor_png_is_an_oserror(data: bytes) -> None:
    with pytest.raises(OSError, match="identify"):
        decode(data, 8)


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", [None, "L", "P", "LA", "RGBA"])
def test_a_png_keeps_its_pixels_whatever_its_kind(mode: str | None) -> None:
    pixels = squares([[10, 20, 30, 40], [50, 60, 70, 80]])
    found = decode(png(pixels, mode), 2)
    assert found.tolist() == [[[20] * 3, [30] * 3], [[60] * 3, [70] * 3]]


def test_what_is_transparent_keeps_its_colour() -> None:
    clear = np.zeros((8, 8, 4), np.uint8) + np.array([200, 120, 20, 0], np.uint8)
    assert decode(png(clear), 8)[4, 4].tolist() == [200, 120, 20]


def test_a_png_of_16_bits_is_refused_and_not_cut_off_at_255() -> None:
    with pytest.raises(ValueError, match="expected 8 bits a channel"):
        decode(png(np.full((8, 8), 30_000, np.uint16)), 8)


def test_a_png_that_is_cut_is_a_decoding_error() -> None:
    whole = png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    with pytest.raises(DECODE_ERRORS):
        decode(whole[:2000], 8)


# --- the cache ----------------------------------------------------------------------------------


def test_row_i_is_the_ith_image_asked_for(
    write: Write, tmp_path: Path, jpegs: dict[str, bytes]
) -> None:
    ids = IDS[40:20:-1]
    images = open_cache(tmp_path / "cache", ImageArchive(write("zips")), ids, 24).images
    assert images.shape == (20, 24, 24, 3)
    assert images.dtype == np.uint8
    for image, image_id in zip(images, ids, strict=True):
        np.testing.assert_array_equal(image, decode(jpegs[image_id], 24))


def test_the_images_are_mapped_and_cannot_be_written(write: Write, tmp_path: Path) -> None:
    images = opened(write(), tmp_path / "cache").images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_the_second_use_decodes_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write()
    first = opened(root, tmp_path / "cache")
    monkeypatch.setattr(module, "decode", None)
    monkeypatch.setattr(ImageArchive, "read", None)
    second = opened(root, tmp_path / "cache")
    np.testing.assert_array_equal(first.images, second.images)
    assert first.digest == second.digest


def test_every_layout_has_the_same_digest(write: Write, layout: str, tmp_path: Path) -> None:
    expected = opened(write("root"), tmp_path / "cache")
    found = opened(write(layout), tmp_path / "cache")
    assert found.digest == expected.digest
    np.testing.assert_array_equal(found.images, expected.images)


def test_another_size_makes_another_cache(write: Write, tmp_path: Path) -> None:
    root = write()
    assert opened(root, tmp_path / "cache", 16).images.shape[1:] == (16, 16, 3)
    assert opened(root, tmp_path / "cache", 8).images.shape[1:] == (8, 8, 3)
    assert len(caches(tmp_path / "cache")) == 2


@pytest.mark.parametrize("layout", ["zips", "folders"])
def test_a_replaced_image_makes_another_cache(
    write: Write, tmp_path: Path, layout: str, jpegs: dict[str, bytes], jpeg: Jpeg
) -> None:
    root = write(layout)
    before = opened(root, tmp_path / "cache")
    jpegs[IDS[7]] = jpeg(1000)
    changed = write(layout, jpegs=jpegs)
    if layout == "folders":
        path = next(root.rglob(f"{IDS[7]}.jpg"))
        path.write_bytes(jpegs[IDS[7]])
    else:
        name = "HAM10000_images_part_1.zip"
        (changed / name).replace(root / name)
    after = opened(root, tmp_path / "cache")
    assert before.digest != after.digest
    assert [i for i in range(60) if (before.images[i] != after.images[i]).any()] == [7]


def test_a_folder_that_does_not_exist_is_made(write: Write, tmp_path: Path) -> None:
    assert len(opened(write(), tmp_path / "a" / "b").images) == 60


# --- what goes wrong ----------------------------------------------------------------------------


def test_images_that_cannot_be_decoded_are_all_named_and_leave_no_cache(
    write: Write, tmp_path: Path, jpegs: dict[str, bytes]
) -> None:
    for image_id in (IDS[3], IDS[50]):
        data = jpegs[image_id]
        # Another start of an image among the pixels: libjpeg gives up.
        jpegs[image_id] = data[: len(data) // 2] + b"\xff\xd8" + data[len(data) // 2 :]
    root = write("zips", jpegs=jpegs)
    assert ImageArchive(root).broken(IDS) == []  # their first and last bytes are good
    with pytest.raises(SkinlesionError) as caught:
        opened(root, tmp_path / "cache")
    message = str(caught.value)
    assert "2 of 60 images cannot be decoded" in message
    assert [image_id for image_id in IDS if image_id in message] == [IDS[3], IDS[50]]
    assert "make data" in message
    assert caches(tmp_path / "cache") == []


class Crash(BaseException):
    pass


def test_a_crash_in_the_middle_leaves_no_cache_and_the_next_run_builds_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write()
    begun = []

    def crash(data: bytes, size: int) -> np.ndarray:
        begun.append(data)
        if len(begun) > 30:
            raise Crash
        return np.zeros((size, size, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", crash)
        with pytest.raises(Crash):
            opened(root, tmp_path / "cache")
    assert caches(tmp_path / "cache") == []
    assert opened(root, tmp_path / "cache").images.any(axis=(1, 2, 3)).all()


# Without torch, which takes seconds to import. Each decoded image is a line in the log.
PROCESS = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from skinlesion.data import cache
from skinlesion.data.archive import ImageArchive

root, folder, log, go = map(Path, sys.argv[1:5])
die = sys.argv[5] == "die"

def decode(data, size):
    with log.open("a") as file:
        file.write("decoded\\n")
    if die and len(log.read_text().splitlines()) > 10:
        os.kill(os.getpid(), signal.SIGKILL)
    while not (die or go.exists()):
        time.sleep(0.01)
    return np.full((size, size, 3), 7, np.uint8)

cache.decode = decode
ids = [f"ISIC_{number:07d}" for number in range(60)]
opened = cache.open_cache(folder, ImageArchive(root), ids, 16)
assert (np.asarray(opened.images) == 7).all()
print(opened.digest)
"""


def start(root: Path, tmp_path: Path, mode: str) -> subprocess.Popen[str]:
    arguments = [root, tmp_path / "cache", tmp_path / "log", tmp_path / "go", mode]
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_leaves_no_cache_and_the_next_run_builds_it(
    write: Write, tmp_path: Path
) -> None:
    root, folder = write(), tmp_path / "cache"
    process = start(root, tmp_path, "die")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not cache_path(folder, ImageArchive(root), IDS, 16).exists()
    assert len(opened(root, folder).images) == 60
    assert caches(folder) == [cache_path(folder, ImageArchive(root), IDS, 16).name]


def test_a_second_process_waits_for_the_first_and_uses_its_cache(
    write: Write, tmp_path: Path
) -> None:
    root, log = write(), tmp_path / "log"
    first = start(root, tmp_path, "wait")
    wait_for(log.exists)
    second = start(root, tmp_path, "wait")
    time.sleep(1)
    (tmp_path / "go").touch()
    results = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], results
    assert results[0][0] == results[1][0] != ""
    assert log.read_text().count("decoded") == 60


def test_a_full_disk_is_said_before_the_work(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    monkeypatch.setattr(ImageArchive, "read", None)
    with pytest.raises(SkinlesionError) as caught:
        opened(write(), tmp_path / "cache", 8_000)
    # 60 images of 8,000 * 8,000 * 3 bytes
    assert f"needs 11.5 GB in {tmp_path / 'cache'}, where 0.0 GB are free" in str(caught.value)
    assert "machine.cache=" in str(caught.value)
    assert "SKINLESION_CACHE" in str(caught.value)
    assert caches(tmp_path / "cache") == []


def test_what_a_killed_process_left_does_not_count_as_used_space(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = write(), tmp_path / "cache"
    path = cache_path(folder, ImageArchive(root), IDS, 16)
    left = path.with_name(f"{path.name}.building")
    left.mkdir(parents=True)
    (left / "images.npy").touch()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(free=0 if left.exists() else 1e9)
    )
    assert len(opened(root, folder).images) == 60


def test_a_folder_that_cannot_be_written_is_named(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SkinlesionError, match=r"cannot be written in .*file.* data\.cache="):
        opened(write(), tmp_path / "file" / "cache")
