"""The views of test-time augmentation."""

import numpy as np

from skinlesion.data.views import VIEWS, mean_over_views, views


def test_flips_are_the_image_and_its_mirror_images() -> None:
    image = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = [*views(image, "flips")]
    expected = [image, image[:, :, ::-1], image[:, ::-1], image[:, ::-1, ::-1]]
    np.testing.assert_array_equal(found, expected)
    assert len(found) == VIEWS["flips"]
    (alone,) = views(image, None)
    np.testing.assert_array_equal(alone, image)


def test_crops_are_sixteen_windows_in_order_that_reach_every_edge() -> None:
    across = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3))  # its own columns
    found = np.stack([*views(np.stack([across, across.swapaxes(0, 1)]), "crops")])
    assert found.shape == (VIEWS["crops"], 2, 64, 64, 3)
    left, right = found[:, 0, 0, 0, 0], found[:, 0, 0, -1, 0]
    # Windows of 56 columns begin at 0, 8/3, 16/3 and 8, in every row of the grid.
    assert left.tolist() == [0, 3, 5, 8] * 4
    assert right.tolist() == [55, 58, 60, 63] * 4
    assert found[:, 1, 0, 0, 0].tolist() == sorted([0, 3, 5, 8] * 4)


def test_the_mean_is_over_what_is_predicted() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 0] = 8  # the corner goes round
    corner = mean_over_views(lambda view: view[:, 0, 0, :2].astype(float), image, "flips")
    np.testing.assert_array_equal(corner, [[2, 2]])
