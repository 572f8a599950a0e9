"""Every image decoded once into a cache that is whole or absent."""

import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from skinlesion.data import archive as archive_module
from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import cache_path, open_cache
from skinlesion.data.pixels import decode, to_square
from skinlesion.errors import SkinlesionError

IDS = [f"ISIC_{number:07d}" for number in range(60)]


def opened(place, root, size=16):
    return open_cache(place.cache, ImageArchive(root), IDS, size)


def caches(place):
    """What is in the folder besides locks."""
    return sorted(path.name for path in place.cache.glob("*") if path.suffix != ".lock")


def test_row_i_is_the_ith_image_asked_for_mapped_from_disk(place):
    ids = IDS[40:20:-1]
    images = open_cache(place.cache / "new", ImageArchive(place.write("zips")), ids, 24).images
    assert (images.shape, images.dtype) == ((20, 24, 24, 3), np.uint8)
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    for image, image_id in zip(images, ids, strict=True):
        np.testing.assert_array_equal(image, to_square(decode(place.jpegs[image_id]), 24))


def test_another_size_and_a_replaced_image_make_another_cache(place):
    root = place.write("folders")
    before = opened(place, root)
    assert opened(place, root, 8).images.shape[1:] == (8, 8, 3)
    next(root.rglob(f"{IDS[7]}.jpg")).write_bytes(place.jpegs[IDS[8]])
    after = opened(place, root)
    assert len(caches(place)) == 3
    assert before.digest != after.digest
    assert [i for i in range(60) if (before.images[i] != after.images[i]).any()] == [7]


def test_images_that_cannot_be_decoded_are_all_named_with_why_and_leave_no_cache(place):
    place.jpegs[IDS[3]] = place.jpegs[IDS[3]][:-100]
    place.jpegs[IDS[20]] = b"GIF89a"
    # Another start of an image among the pixels: libjpeg gives up.
    place.jpegs[IDS[50]] = place.jpegs[IDS[50]][:700] + b"\xff\xd8" + place.jpegs[IDS[50]][700:]
    with pytest.raises(SkinlesionError) as caught:
        opened(place, place.write("zips"))
    message = str(caught.value)
    assert "3 of 60 images cannot be decoded: " in message
    assert f"{IDS[3]} (damaged: image file is truncated" in message
    assert f"{IDS[20]} (no JPEG, PNG or WebP), {IDS[50]} (damaged: " in message
    assert "make data" in message
    assert caches(place) == []


def test_a_second_builder_waits_for_the_first_and_uses_its_cache(place, monkeypatch):
    root, go, decoded = place.write(), Event(), []

    def wait(data):
        decoded.append(data)
        go.wait(60)
        return decode(data)

    monkeypatch.setattr(archive_module, "decode", wait)
    with ThreadPoolExecutor(2) as pool:  # each with a lock file of its own, as processes have
        builders = [pool.submit(opened, place, root) for _ in range(2)]
        time.sleep(0.5)
        go.set()
        first, second = (builder.result(60) for builder in builders)
    assert len(decoded) == 60
    np.testing.assert_array_equal(first.images, second.images)


def test_a_crash_leaves_no_cache_and_what_a_kill_left_is_cleared_away_first(place, monkeypatch):
    root = place.write()
    path = cache_path(place.cache, ImageArchive(root), IDS, 16)
    monkeypatch.setattr(archive_module, "decode", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        opened(place, root)
    monkeypatch.setattr(archive_module, "decode", decode)
    assert caches(place) == []
    left = path.with_name(f"{path.name}.building")
    left.mkdir()
    (left / "images.npy").touch()
    # It does not count as used space.
    free = lambda _: SimpleNamespace(free=0 if left.exists() else 1e9)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    assert opened(place, root).images.any(axis=(1, 2, 3)).all()
    assert caches(place) == [path.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=os.strerror)
@pytest.mark.parametrize("step", ["os.posix_fallocate", "pathlib.Path.mkdir", "os.replace"])
def test_whatever_the_disk_refuses_is_one_line_and_leaves_nothing(place, monkeypatch, number, step):
    root = place.write()
    monkeypatch.setattr(step, Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(SkinlesionError, match=f"{os.strerror(number)}.*machine.cache=") as refusal:
        opened(place, root)
    assert "\n" not in str(refusal.value)
    assert caches(place) == []


def test_a_disk_too_small_is_said_before_the_work(place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    monkeypatch.setattr(ImageArchive, "read", None)
    with pytest.raises(SkinlesionError) as caught:
        opened(place, place.write(), 8_000)
    # 60 images of 8,000 * 8,000 * 3 bytes
    assert f"needs 11.5 GB in {place.cache}, where 0.0 GB are free" in str(caught.value)
    assert "machine.cache=<folder> or SKINLESION_CACHE" in str(caught.value)
    assert caches(place) == []
