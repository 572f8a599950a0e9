"""Figures that show images: which, and with what words."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.run_images import RunImages
from skinlesion.reporting.figures import gallery
from skinlesion.serving.attention import Explanation
from skinlesion.serving.model import Prediction
from tests.reporting.figures.conftest import CLASSES, Y, part_of, pictures, written

ALIKE = np.full((16, 2, 2), 0.25)  # attention maps


def explanation(maps: np.ndarray | None, cam: Any = ((0.0, 1.0), (0.5, 0.0))) -> Explanation:
    image, probabilities = np.full((12, 12, 3), 90, np.uint8), dict.fromkeys(CLASSES, 0.05)
    prediction = Prediction(probabilities | {"bcc": 0.9}, probabilities | {"bcc": 0.9}, ("age",))
    return Explanation(
        image=image, prediction=prediction, target="bcc", maps=maps, cam=np.array(cam)
    )


def test_of_a_class_the_surest_come_first() -> None:
    assert [gallery.surest(part_of(), c, correct=False) for c in range(3)] == [[1], [], [5]]
    assert [gallery.surest(part_of(), c, correct=True) for c in range(3)] == [[0], [2, 3], [4]]
    rising = part_of([0, 0, 0], [[0.4, 0.6, 0], [0.3, 0.7, 0], [0.2, 0.8, 0]])
    assert gallery.surest(rising, 0, correct=False) == [2, 1, 0]


def test_each_mistake_has_what_was_predicted_its_metadata_and_its_name(images) -> None:
    ids = images.table.index
    figure = gallery.mistakes(part_of(ids=ids), "a run", images)
    assert [picture.shape[0] / picture.shape[1] for picture in pictures(figure)] == [1, 1]
    words = ["akiec 1 of 2 wrong", "bcc (0.50)", "no mistakes", "age, sex, localization, the"]
    words += gallery.caption(images, ids[1]).split()
    assert [word for word in words if word not in written(figure)] == []
    assert ids[0] not in written(figure)
    few = gallery.mistakes(part_of(Y[:4], np.eye(3)[Y[:4]], ids=ids), "a run", images)
    assert "no image of this class" in written(few)


def test_words_at_a_picture_say_what_is_unknown_and_round_nothing_to_sure(images) -> None:
    assert gallery.predicted(part_of([0], [[0.0004, 0.9996, 0]]), 0) == "bcc (>0.99)"
    values = {"age": [55.0, np.nan], "sex": ["male", "unknown"], "site": ["upper extremity", "ear"]}
    changed = RunImages(images.archive, pd.DataFrame(values, index=["a", "b"]), tuple(values))
    assert gallery.caption(changed, "a") == "55 · male · upper\nextremity\na"
    assert gallery.caption(changed, "b") == "age unknown · sex\nunknown · ear\nb"


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
    image, _, _, *small = sorted(pictures(figure), key=lambda picture: -picture.size)[:19]
    assert (image == 90).all()
    np.testing.assert_allclose(small[3], 4 * maps[3])
    assert "predicted bcc (0.90 calibrated), without age; 2x2 positions" in written(figure)
    assert "bright 2.8 times its mean" in written(figure)


def test_what_is_everywhere_alike_or_missing_is_said_and_not_stretched() -> None:
    figure = gallery.explanation_figure(explanation(ALIKE), "a.jpg")
    assert len(np.unique(pictures(figure)[1].reshape(-1, 3), axis=0)) == 1
    assert "1.00 to 1.00" in written(figure)
    figure = gallery.explanation_figure(explanation(None, cam=np.zeros((2, 2))), "a.jpg")
    assert len([picture for picture in pictures(figure) if picture.shape == (12, 12, 3)]) == 2
    assert "no soft attention" in written(figure)
    assert "Grad-CAM for bcc: nothing speaks for it" in written(figure)
