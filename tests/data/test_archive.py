"""Images are found wherever people keep them, and what cannot be read is said."""

import os
import random
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from skinlesion.data.archive import WAYS, ImageArchive, image_name
from skinlesion.errors import SkinlesionError

ZIP = "HAM10000_images_part_1.zip"


def test_every_layout_holds_the_same_images_for_several_threads(place, layout):
    archive = ImageArchive(place.write(layout))
    assert len(archive.ids) == 60
    assert "ISIC_0000060" not in archive.ids
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(archive.read, place.ids * 3)] == [place.jpegs[i] for i in place.ids * 3]


def test_images_of_any_ending_count_and_other_files_do_not(tmp_path):
    for name in ("a.jpg", "b.JPG", "c.jpeg", "d.PNG", "e.webp", "._a.jpg", "f.txt", "jpg"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "g.jpg").mkdir()
    with zipfile.ZipFile(tmp_path / ZIP, "w") as file:
        for name in ("folder/", "folder/h.jpg", "__MACOSX/folder/._h.jpg", "folder/i.csv"):
            file.writestr(name, b"")
    for name, target in (("j.jpg", "j.jpg"), ("k.jpg", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
    os.mkfifo(tmp_path / "l.jpg")
    archive = ImageArchive(tmp_path)
    assert sorted(archive.ids) == ["a", "b", "c", "d", "e", "h"]


@pytest.mark.parametrize(
    ("text", "image_id"),
    [
        ("ISIC_1", "ISIC_1"),
        ("photos/left arm/ISIC_1.JPEG", "ISIC_1"),
        (r"C:\photos\ISIC_1.png", "ISIC_1"),
        ("1.2.840.113", "1.2.840.113"),
        ("scan.tif", "scan.tif"),
        (unicodedata.normalize("NFD", "Müller.png"), unicodedata.normalize("NFC", "Müller")),
    ],
)
def test_an_id_a_files_name_and_a_path_mean_the_same_image(text, image_id):
    assert image_name(text) == image_id


def test_an_absent_root_names_the_ways_to_get_the_data(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(SkinlesionError, match=f"{root}: no such folder") as caught:
            ImageArchive(root)
        assert str(caught.value).endswith(WAYS)


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_zip_whose_download_broke_off_is_named_with_the_mend(place, kept):
    path = place.write("zips") / ZIP
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SkinlesionError, match=r"part_1\.zip .*broke off.*make data"):
        ImageArchive(path.parent)


def test_whatever_is_damaged_in_a_zip_is_one_clear_line(tmp_path):
    with zipfile.ZipFile(tmp_path / ZIP, "w", zipfile.ZIP_DEFLATED) as file:
        for name in "abc":
            file.writestr(f"{name}.jpg", bytes(99) + name.encode())
    whole, draw, refused = (tmp_path / ZIP).read_bytes(), random.Random(0), []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / ZIP).write_bytes(data)
        try:
            archive = ImageArchive(tmp_path)
            for name in "abc":
                archive.read(name)
        except SkinlesionError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 290
    assert not [why for why in refused if "\n" in why]


@pytest.mark.parametrize(
    ("fault", "offset", "value"),
    [("wrong checksum", 14, 255), ("encrypted", 6, 1), ("Windows' Deflate64", 8, 9)],
)
def test_a_zip_member_that_cannot_be_read_says_why(place, fault, offset, value):
    path = place.write("zips") / ZIP
    data = bytearray(path.read_bytes())
    # A field of the first member's two headers.
    data[data.index(b"PK\x03\x04") + offset] = value
    data[data.index(b"PK\x01\x02") + offset + 2] = value
    path.write_bytes(data)
    archive = ImageArchive(path.parent)
    with pytest.raises(SkinlesionError, match=r"^cannot be read: "):
        archive.read("ISIC_0000000")
    assert archive.read("ISIC_0000001")
    with pytest.raises(SkinlesionError, match="no such image"):
        archive.read("ISIC_0000060")


def test_a_zip_member_is_limited_by_what_it_announces_and_by_what_it_gives(tmp_path):
    with zipfile.ZipFile(tmp_path / ZIP, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", bytes(31_000_000))
        file.writestr("c.jpg", b"", zipfile.ZIP_BZIP2)
        file.writestr("d.jpg", b"", zipfile.ZIP_LZMA)
        file.writestr("b.jpg", bytes(31_000_000))
    data = (tmp_path / ZIP).read_bytes()
    at = data.rindex((31_000_000).to_bytes(4, "little"))  # of the second, in the directory
    (tmp_path / ZIP).write_bytes(data[:at] + (9).to_bytes(4, "little") + data[at + 4 :])
    archive = ImageArchive(tmp_path)
    with pytest.raises(SkinlesionError, match="31 MB, at most 30"):
        archive.read("a")
    with pytest.raises(SkinlesionError, match="cannot be read: Bad CRC-32"):
        archive.read("b")
    for image_id in "cd":  # whose decompressors of Python know no limit
        with pytest.raises(SkinlesionError, match="compressed, and not by Deflate"):
            archive.read(image_id)


def test_two_files_of_one_name_that_differ_are_ambiguous_and_copies_are_not(tmp_path):
    sizes = {"images/a.jpg": 9, "masks/a.png": 7, "images/b.jpg": 9, "copies/b.jpg": 9}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    for part, content in ((1, b"one"), (2, b"two")):
        with zipfile.ZipFile(tmp_path / f"HAM10000_images_part_{part}.zip", "w") as file:
            file.writestr("c.jpg", content)
            file.writestr("d.jpg", b"both")
    for name, content in (("images/e.jpg", b"one"), ("copies/e.jpg", b"two"), ("d.jpg", b"Both")):
        (tmp_path / name).write_bytes(content)
    archive = ImageArchive(tmp_path)
    assert archive.read("b") == bytes(9)
    # Those of one size are compared when they are read.
    for image_id, message in (
        ("e", r"copies/e\.jpg and images/e\.jpg differ"),
        ("d", "d.* differ"),
    ):
        with pytest.raises(SkinlesionError, match=message):
            archive.read(image_id)
    assert archive.ambiguous == {
        "a": "images/a.jpg and masks/a.png",
        "c": "HAM10000_images_part_1.zip/c.jpg and HAM10000_images_part_2.zip/c.jpg",
    }


@pytest.mark.parametrize("layout", ["zips", "folders"])
def test_the_fingerprint_changes_with_the_images_asked_for_and_only_with_them(place, layout):
    root, asked = place.write(layout), ["ISIC_0000000", "ISIC_0000001"]
    before = ImageArchive(root).fingerprint(asked)
    assert ImageArchive(root).fingerprint(asked) == before
    assert before not in {ImageArchive(root).fingerprint(ids) for ids in (asked[:1], asked[::-1])}
    for name, same in (("ISIC_0000002", True), ("ISIC_0000001", False)):
        place.jpegs[name] = place.jpegs[name][:-3] + b"\0" + place.jpegs[name][-2:]
        if layout == "folders":
            next(root.rglob(f"{name}.jpg")).write_bytes(place.jpegs[name])
        else:
            (place.write(layout) / ZIP).replace(root / ZIP)
        assert (ImageArchive(root).fingerprint(asked) == before) == same
