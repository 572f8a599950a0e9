"""Where a network looks, drawn: which images, and what is written at them."""

import numpy as np
import pytest

from skinlesion.reporting.figures.attention import choose, class_panel, explanation_figure
from skinlesion.serving.attention import Explanation
from skinlesion.serving.model import Prediction
from tests.reporting.figures.conftest import CLASSES, part_of, texts


def explanation(maps: np.ndarray | None, label: str = "bcc") -> Explanation:
    probabilities = {name: 0.9 if name == label else 0.05 for name in CLASSES}
    return Explanation(
        image=np.full((12, 12, 3), 90, np.uint8),
        prediction=Prediction(probabilities, probabilities, ("age",)),
        target=label,
        maps=maps,
        cam=np.array([[0.0, 1.0], [0.5, 0.0]]),
    )


def pictures(page) -> list[np.ndarray]:
    return [image.get_array() for axes in page.figure.axes for image in axes.get_images()]


def test_an_image_its_sum_grad_cam_and_each_map_are_drawn():
    maps = np.full((16, 2, 2), 0.25)
    maps[3] = [[0.7, 0.1], [0.1, 0.1]]
    page = explanation_figure(explanation(maps), "a.jpg")
    drawn = pictures(page)
    # Three pictures, the scales of two, sixteen maps.
    assert len(drawn) == 3 + 2 + 16
    small = [picture for picture in drawn if picture.shape == (2, 2)]
    np.testing.assert_allclose(small[3], 4 * maps[3])
    written = " ".join(texts(page))
    assert "predicted bcc (0.90 calibrated), without age; 2x2 positions" in written
    assert "bright 2.8 times its mean" in written


def test_attention_that_looks_everywhere_alike_is_one_colour_in_mid_scale():
    page = explanation_figure(explanation(np.full((16, 2, 2), 0.25)), "a.jpg")
    grey, flat, _ = (p for p in pictures(page) if p.shape == (12, 12, 3))
    assert (grey == 90).all()
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    assert "1.00 to 1.00" in " ".join(texts(page))


def test_a_network_without_attention_says_so():
    page = explanation_figure(explanation(None), "a.jpg")
    assert len(pictures(page)) == 3
    said = [text.get_text() for axes in page.figure.axes for text in axes.texts]
    assert said == ["no soft attention"]


def test_the_surest_right_answer_and_the_surest_mistake_are_chosen():
    assert choose(part_of()) == {"akiec": (0, 1), "bcc": (2, None), "nv": (4, 5)}


@pytest.mark.parametrize("maps", [np.full((16, 2, 2), 0.25), None])
def test_the_panel_has_both_for_each_class(maps):
    asked: list[str] = []

    def explain(image_id: str) -> Explanation:
        asked.append(image_id)
        return explanation(maps)

    page = class_panel(part_of(), explain)
    assert asked == ["image0", "image1", "image2", "image4", "image5"]
    assert len(pictures(page)) == 5 * (2 if maps is None else 3)
    written = texts(page)
    assert written.count("none") == 1
    assert any("no soft attention" in text for text in written) is (maps is None)
