"""The gallery of mistakes: which, with what captions, and when there is none."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.archive import ImageArchive
from skinlesion.reporting.figures.mistakes import (
    metadata_words,
    mistakes,
    picture,
    surest_mistakes,
)
from skinlesion.reporting.figures.source import Source, open_source
from tests.reporting.figures.conftest import Y, data_config, part_of, texts


@pytest.fixture
def source(archive):
    found = open_source(data_config(), archive)
    assert found is not None
    return found


def shown(page):
    return [image for axes in page.figure.axes for image in axes.get_images()]


def test_the_surest_mistakes_of_each_true_class_come_first():
    assert surest_mistakes(part_of()) == [[1], [], [5]]
    y = np.zeros(9, dtype=int)
    told = np.linspace(0.6, 0.9, 9)
    part = part_of(y, np.column_stack([1 - told, told, 0 * told]))
    assert surest_mistakes(part) == [[8, 7, 6, 5, 4, 3], [], []]


def test_each_picture_has_what_was_said_its_metadata_and_its_name(source):
    ids = source.table.index[:6].to_numpy()
    page = mistakes(part_of(ids=ids), source)
    assert page is not None
    written = texts(page)
    assert len(shown(page)) == 2
    assert written[written.index("1 of 2 wrong") + 1] == "bcc (0.50)"
    assert ids[1] in written
    assert ids[0] not in written
    assert metadata_words(source.table, ids[1]) in " ".join(written)
    assert "no mistakes" in written
    assert "age, sex, localization" in " ".join(written)


def test_metadata_is_a_line_and_what_is_unknown_says_so():
    table = pd.DataFrame({"age": [55.0, np.nan], "sex": ["male", "unknown"]}, index=["a", "b"])
    assert metadata_words(table, "a") == "55 · male"
    assert metadata_words(table, "b") == "age unknown · sex unknown"


def test_what_is_nearly_sure_is_not_rounded_to_one(source):
    ids = source.table.index[:1].to_numpy()
    page = mistakes(part_of(np.array([0]), np.array([[0.0004, 0.9996, 0]]), ids=ids), source)
    assert "bcc (>0.99)" in texts(page)


def test_without_any_mistake_the_classes_say_so(source):
    ids = source.table.index[:4].to_numpy()
    page = mistakes(part_of(Y[:4], np.eye(3)[Y[:4]], ids=ids), source)
    assert shown(page) == []
    assert texts(page).count("no mistakes") == 2
    assert texts(page).count("no image of this class") == 1


def test_a_picture_is_the_central_square():
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, 10:50] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=0)
    square = picture(file.getvalue())
    assert square.shape == (40, 40, 3)
    assert abs(square.astype(int)[:, 4:-4] - 200).max() < 20
    file = io.BytesIO()
    Image.fromarray(np.zeros((900, 1200, 3), dtype=np.uint8)).save(file, "JPEG")
    assert picture(file.getvalue()).shape == (300, 300, 3)


def test_without_images_one_line_says_why_and_how_to_get_it(tmp_path, archive, source, caplog):
    assert open_source(data_config(), None) is None
    assert open_source(data_config(), tmp_path / "elsewhere") is None
    assert mistakes(part_of(), source) is None
    assert [record.getMessage().count("\n") for record in caplog.records] == [0, 0, 0]
    collected, elsewhere, other = (record.getMessage() for record in caplog.records)
    assert "it was collected). With the folder of its images: python -m " in collected
    assert "elsewhere: no such folder. With the folder of its images: " in elsewhere
    assert "lacks image1, image5. With the folder of its images: " in other


def test_an_image_that_cannot_be_read_is_named_and_draws_nothing(tmp_path, caplog):
    (tmp_path / "image1.jpg").write_bytes(b"no jpeg")
    (tmp_path / "image5.jpg").write_bytes(b"no jpeg")
    table = pd.DataFrame({"age": [1.0, 2.0]}, index=["image1", "image5"])
    assert mistakes(part_of(), Source(ImageArchive(tmp_path), table)) is None
    assert "mistakes of val are not drawn: an image cannot be read" in caplog.text


def test_a_tie_of_probabilities_is_told_as_everywhere():
    # The first of equals is predicted: nothing wrong here.
    assert surest_mistakes(part_of(np.array([0]), np.array([[0.5, 0.5, 0.0]]))) == [[], [], []]
