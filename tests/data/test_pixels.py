"""One function from a file's bytes to pixels: each kind has its rule, the rest is refused."""

import io
import random
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from skinlesion.data import pixels
from skinlesion.data.pixels import decode, read_image, to_square
from skinlesion.errors import SkinlesionError

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}}


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    notes = Image.Exif()
    notes[274] = orientation
    return notes


# --- a file's pixels ------------------------------------------------------------------------------

# What stands upright for each orientation of EXIF.
UPRIGHT = {
    1: lambda rows: rows,
    2: lambda rows: rows[:, ::-1],
    3: lambda rows: np.rot90(rows, 2),
    4: lambda rows: rows[::-1],
    5: lambda rows: rows.swapaxes(0, 1),
    6: lambda rows: np.rot90(rows, -1),
    7: lambda rows: np.rot90(rows.swapaxes(0, 1), 2),
    8: lambda rows: np.rot90(rows),
    99: lambda rows: rows,
}


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_stands_upright_as_exif_says(kind, orientation):
    data = encoded(NOISE, kind, exif=exif(orientation), **LOSSLESS[kind])
    np.testing.assert_array_equal(decode(data), UPRIGHT[orientation](NOISE))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_of_any_mode_keeps_its_colours(mode):
    image = Image.fromarray(NOISE // 255 * 255).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), expected)


@pytest.mark.filterwarnings("error")
def test_transparency_is_ignored_wherever_it_is_noted():
    clear = np.dstack([NOISE, np.zeros((30, 40), np.uint8)])
    np.testing.assert_array_equal(decode(encoded(clear, "PNG")), NOISE)
    palette = Image.fromarray(NOISE).convert("P")
    for image, transparency in ((palette, bytes(256)), (Image.fromarray(NOISE), (1, 2, 3))):
        expected = np.asarray(image.convert("RGB"))
        data = encoded(image, "PNG", transparency=transparency)
        np.testing.assert_array_equal(decode(data), expected)


def test_cmyk_becomes_rgb_and_of_16_bits_colours_keep_the_upper_8_and_greys_are_refused():
    cmyk = decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 128)), "JPEG"))
    assert np.abs(cmyk.astype(int) - 127).max() <= 2
    colours = cv2.imencode(".png", NOISE.astype(np.uint16)[..., ::-1] * 256 + 7)[1].tobytes()
    np.testing.assert_array_equal(decode(colours), NOISE)
    grey_and_alpha = bytearray(encoded(Image.new("LA", (1, 1)), "PNG"))
    # Of 16 bits: Pillow would take the upper 8 without a word.
    grey_and_alpha[24], grey_and_alpha[29:33] = (
        16,
        zlib.crc32(b"IHDR\0\0\0\1\0\0\0\1\x10\4\0\0\0").to_bytes(4),
    )
    greys = encoded(np.full((8, 8), 3000, np.uint16), "PNG"), Image.new("I", (8, 8))
    for grey in (*greys, bytes(grey_and_alpha)):
        with pytest.raises(SkinlesionError, match="the image: more than 8 bits of grey"):
            read_image(grey)


def test_bytes_after_the_end_do_no_harm_and_of_several_pictures_the_first_counts():
    plain = encoded(NOISE, "JPEG")
    motion = plain + b"\0\0\0\x18ftypmp42" + bytes(5000)
    np.testing.assert_array_equal(decode(motion), decode(plain))
    several = encoded(NOISE, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    np.testing.assert_array_equal(decode(several), decode(plain))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no JPEG, PNG or WebP"),
        (b"<html>404 Not Found</html>", "no JPEG, PNG or WebP"),
        (encoded(NOISE, "GIF"), "no JPEG, PNG or WebP"),
        (encoded(NOISE, "TIFF"), "no JPEG, PNG or WebP"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "no JPEG, PNG or WebP but HEIC or AVIF: export it"),
        (encoded(NOISE, "JPEG")[:-2], "damaged: image file is truncated"),
        (encoded(NOISE, "PNG")[:2000], "damaged: image file is truncated"),
        (encoded(NOISE, "WEBP")[:-20], "damaged: "),
    ],
    ids=["nothing", "a page", "GIF", "TIFF", "HEIC", "cut JPEG", "cut PNG", "cut WebP"],
)
def test_what_is_no_whole_picture_is_refused_with_why(data, why):
    with pytest.raises(SkinlesionError) as refusal:
        decode(data)
    assert str(refusal.value).startswith(why)
    assert "\n" not in str(refusal.value)


def test_a_picture_or_a_file_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "MOST_PIXELS", 10_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12_000)  # Pillow refuses twice as many
    for size in ((101, 100), (300, 100)):
        with pytest.raises(SkinlesionError, match="more than 100,000,000 pixels"):
            decode(encoded(Image.new("L", size), "PNG"))
    with pytest.raises(SkinlesionError, match="31 MB, at most 30 are read"):
        decode(bytes(31_000_000))
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(31_000_000)
    with pytest.raises(SkinlesionError, match="/dev/zero: 30 MB, at most 30 are read"):
        read_image("/dev/zero")
    monkeypatch.setattr(Path, "open", None)
    with pytest.raises(SkinlesionError, match=r"large\.jpg: 31 MB, at most 30 are read"):
        read_image(tmp_path / "large.jpg")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_damaged_is_a_picture_or_one_clear_line():
    mpo = encoded(NOISE, "MPO", save_all=True, append_images=[Image.fromarray(NOISE)])
    whole = [mpo, *(encoded(NOISE, kind, exif=exif(6)) for kind in ("JPEG", "PNG", "WEBP"))]
    draw = random.Random(0)
    refused = []
    for _ in range(600):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.choice([1, 3, 20])):
            data[draw.randrange(draw.choice([200, len(data)]))] = draw.randrange(256)
        try:
            found = decode(bytes(data))
            assert (found.dtype, found.ndim, found.shape[2]) == (np.uint8, 3, 3)
        except SkinlesionError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 500
    assert not [why for why in refused if "\n" in why]


# --- whatever a person hands over -----------------------------------------------------------------


def test_a_path_bytes_a_picture_and_an_array_are_the_same_image(tmp_path):
    data = encoded(NOISE, "PNG", exif=exif(6))
    (tmp_path / "a.png").write_bytes(data)
    expected = np.rot90(NOISE, -1)
    opened = Image.open(io.BytesIO(data))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), data, opened, expected):
        np.testing.assert_array_equal(read_image(source), expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.jpg", r"absent\.jpg: cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("\0.jpg", "cannot be read: embedded null byte"),
        (b"no image", "the image: no JPEG, PNG or WebP"),
        (NOISE.astype(float), r"array \(H, W, 3\) of uint8, RGB, is expected, found float64"),
        (NOISE[..., 0], r"found uint8 \(30, 40\)"),
    ],
)
def test_what_is_no_image_is_named(source, message):
    with pytest.raises(SkinlesionError, match=message):
        read_image(source)


# --- the square that a network takes --------------------------------------------------------------


def squares(values):
    """Grey squares of 8 px as an image (H, W, 3)."""
    return np.kron(np.array(values, np.uint8)[..., None], np.ones((8, 8, 3), np.uint8))


def test_the_square_in_the_centre_is_kept():
    wide = squares([[10, 20, 30, 40], [50, 60, 70, 80]])
    assert to_square(wide, 2)[..., 0].tolist() == [[20, 30], [60, 70]]
    assert to_square(wide.swapaxes(0, 1), 2)[..., 0].tolist() == [[20, 60], [30, 70]]
    # An odd margin is cut as int would round it.
    # smart_resize: int((35 - 32) / 2) = 1 px on the left, so 2 px on the right.
    image = np.zeros((32, 35, 3), np.uint8)
    image[:, 1] = 255
    assert to_square(image, 32)[0, :, 0].tolist() == [255] + [0] * 31


def test_resizing_is_bilinear_between_pixel_centres_without_antialias():
    image = squares([[40, 80], [40, 80]])
    # Column x of 32 lies at (x + 0.5) / 2 - 0.5 of 16: 7.25 and 7.75 around the edge.
    assert to_square(image, 32)[0, :, 0].tolist() == [40] * 15 + [50, 70] + [80] * 15
    # Column x of 5 lies at (x + 0.5) * 3.2 - 0.5 of 16: 1.1, 4.3, 7.5, 10.7, 13.9.
    assert to_square(image, 5)[0, :, 0].tolist() == [40, 40, 60, 80, 80]
    # Column x of 4 lies at 1.5, 5.5, ...: an antialias would mix the squares at 5.5.
    assert to_square(image, 4)[0, :, 0].tolist() == [40, 40, 80, 80]
