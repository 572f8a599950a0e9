"""Figures that show images: which, and with what words."""

from typing import Any

import numpy as np
import pytest

from skinlesion.data.run_images import RunImages
from skinlesion.reporting.figures import gallery
from skinlesion.serving.attention import Explanation
from skinlesion.serving.model import Prediction
from tests.reporting.figures.conftest import CLASSES, Y, part_of, pictures, written

ALIKE = np.full((16, 2, 2), 0.25)  # attention maps


def explanation(maps: np.ndarray | None, cam: Any = ((0.0, 1.0), (0.5, 0.0))) -> Explanation:
    image, probabilities = np.full((12, 12, 3), 90, np.uint8), dict.fromkeys(CLASSES, 0.05)
    said = Prediction(probabilities | {"bcc": 0.9}, probabilities | {"bcc": 0.9}, ("age",))
    return Explanation(image=image, prediction=said, target="bcc", maps=maps, cam=np.array(cam))


def test_of_a_class_the_surest_come_first() -> None:
    assert [gallery.surest(part_of(), c, correct=False) for c in range(3)] == [[1], [], [5]]
    assert [gallery.surest(part_of(), c, correct=True) for c in range(3)] == [[0], [2, 3], [4]]
    sure = np.linspace(0.6, 0.9, 4)
    part = part_of(np.zeros(4, dtype=int), np.column_stack([1 - sure, sure, 0 * sure]))
    assert gallery.surest(part, 0, correct=False) == [3, 2, 1, 0]
    tie = part_of(np.array([0]), np.array([[0.5, 0.5, 0.0]]))  # the first of equals is predicted
    assert gallery.surest(tie, 0, correct=False) == []


def test_each_mistake_has_what_was_predicted_its_metadata_and_its_name(images, ids) -> None:
    figure = gallery.mistakes(part_of(ids=ids), "a run", images)
    assert [picture.shape[0] / picture.shape[1] for picture in pictures(figure)] == [1, 1]
    text = written(figure)
    assert "akiec 1 of 2 wrong" in text
    assert "bcc (0.50)" in text
    assert " ".join(gallery.caption(images, ids[1]).split()) in text
    assert ids[0] not in text
    assert "age, sex, localization, the image's name" in text


def test_without_any_mistake_the_classes_say_so(images, ids) -> None:
    text = written(gallery.mistakes(part_of(Y[:4], np.eye(3)[Y[:4]], ids=ids), "a run", images))
    assert text.count("no mistakes") == 2
    assert text.count("no image of this class") == 1


def test_words_at_a_picture_say_what_is_unknown_and_round_nothing_to_sure(images, ids) -> None:
    assert gallery.told(part_of([0], [[0.0004, 0.9996, 0]]), 0) == "bcc (>0.99)"
    table = images.table.copy()
    table.loc[ids[0], ["age", "sex", "localization"]] = [np.nan, "unknown", "back"]
    table.loc[ids[1], ["age", "sex", "localization"]] = [55.0, "male", "upper extremity"]
    changed = RunImages(images.archive, table, images.properties)
    assert gallery.caption(changed, ids[0]) == f"age unknown · sex\nunknown · back\n{ids[0]}"
    assert gallery.caption(changed, ids[1]) == f"55 · male · upper\nextremity\n{ids[1]}"


@pytest.mark.parametrize("maps", [ALIKE, None])
def test_the_panel_has_the_surest_of_each_class_right_and_wrong(maps) -> None:
    asked: list[str] = []
    figure = gallery.class_panel(part_of(), "", lambda i: asked.append(i) or explanation(maps))
    assert asked == ["image0", "image1", "image2", "image4", "image5"]
    assert len(pictures(figure)) == 5 * (2 if maps is None else 3)
    assert written(figure).count("none") == 1
    assert ("This network has no soft attention" in written(figure)) is (maps is None)


def test_an_image_its_sum_grad_cam_and_each_map_are_drawn() -> None:
    maps = ALIKE.copy()
    maps[3] = [[0.7, 0.1], [0.1, 0.1]]
    figure = gallery.explanation_figure(explanation(maps), "a.jpg")
    small = [picture for picture in pictures(figure) if picture.shape == (2, 2)]
    large = [picture for picture in pictures(figure) if picture.shape == (12, 12, 3)]
    assert (len(small), len(large)) == (16, 3)
    np.testing.assert_allclose(small[3], 4 * maps[3])
    assert (large[0] == 90).all()
    text = written(figure)
    assert "predicted bcc (0.90 calibrated), without age; 2x2 positions" in text
    assert "bright 2.8 times its mean" in text


def test_attention_that_looks_everywhere_alike_is_one_colour() -> None:
    figure = gallery.explanation_figure(explanation(ALIKE), "a.jpg")
    _, flat, *_ = pictures(figure)
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    assert "1.00 to 1.00" in written(figure)


def test_a_network_without_attention_and_a_class_that_nothing_speaks_for_say_so() -> None:
    figure = gallery.explanation_figure(explanation(None, cam=np.zeros((2, 2))), "a.jpg")
    assert len([picture for picture in pictures(figure) if picture.shape == (12, 12, 3)]) == 2
    assert "no soft attention" in written(figure)
    assert "Grad-CAM for bcc: nothing speaks for it" in written(figure)
