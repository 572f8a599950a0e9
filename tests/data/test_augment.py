"""Augmentation: the same seed gives the same image, and each argument does what it says."""

import pickle
from collections.abc import Callable
from typing import Any

import albumentations
import numpy as np
import pytest

from skinlesion.data.augment import Geometric

SIDE = 65
MIDDLE = SIDE // 2


@pytest.fixture(scope="module")
def datta() -> Geometric:
    return Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def only(**arguments: Any) -> Geometric:
    return Geometric(**{"rotation": 0, "shift": 0, "zoom": 0, "flip": False} | arguments)


def dot(x: int, y: int) -> np.ndarray:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    return image


def centre(image: np.ndarray) -> np.ndarray:
    """The brightness' centre (x, y), from the middle of the image."""
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() - MIDDLE


def test_shape_and_dtype_are_kept_and_the_original_is_not_touched(
    datta: Geometric, noise: np.ndarray
) -> None:
    before = noise.copy()
    wide = noise[:40]
    for seed in range(5):
        assert datta(noise, seed).shape == noise.shape
        assert datta(wide, seed).shape == wide.shape
        assert datta(noise, seed).dtype == np.uint8
    np.testing.assert_array_equal(noise, before)


def test_the_seed_alone_decides_the_image(datta: Geometric, noise: np.ndarray) -> None:
    first = [datta(noise, seed) for seed in range(20)]
    again = [datta(noise, seed) for seed in reversed(range(20))][::-1]
    fresh = Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True)
    for seed in range(20):
        np.testing.assert_array_equal(first[seed], again[seed])
        np.testing.assert_array_equal(first[seed], fresh(noise, seed))
    assert len({image.tobytes() for image in first}) == 20


def test_other_random_numbers_are_neither_used_nor_moved(
    datta: Geometric, noise: np.ndarray
) -> None:
    np.random.seed(0)  # noqa: NPY002
    expected = datta(noise, 3)
    state = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(datta(noise, 3), expected)
    np.random.seed(0)  # noqa: NPY002
    datta(noise, 4)
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index,union-attr]  # noqa: NPY002


def test_it_can_be_sent_to_a_worker_that_is_not_forked(datta: Geometric, noise: np.ndarray) -> None:
    sent = pickle.loads(pickle.dumps(datta))
    np.testing.assert_array_equal(sent(noise, 7), datta(noise, 7))


def test_with_every_argument_at_zero_nothing_changes(noise: np.ndarray) -> None:
    np.testing.assert_array_equal(only()(noise, 0), noise)


def test_flips_mirror_either_way_half_of_the_time_each(noise: np.ndarray) -> None:
    flip = only(flip=True)
    kinds = [noise, noise[:, ::-1], noise[::-1], noise[::-1, ::-1]]
    found = [
        [np.array_equal(flip(noise, seed), kind) for kind in kinds].index(True)
        for seed in range(200)
    ]
    # 200 draws of a quarter: 50 on average, with a deviation of 6.1
    assert all(25 < found.count(kind) < 75 for kind in range(4))


def test_flips_turns_and_shifts_are_drawn_apart_from_each_other() -> None:
    augment = Geometric(rotation=45, shift=0.1, zoom=0, flip=True)
    corner = np.zeros((SIDE, SIDE, 3), np.uint8)
    for channel, (x, y) in enumerate([(-12, 0), (0, 0), (0, -12)]):
        corner[..., channel] = dot(MIDDLE + x, MIDDLE + y)[..., 0]
    found = set()
    for seed in range(200):
        image = augment(corner, seed)
        arm, origin, up = (centre(image[..., channel, None]) for channel in range(3))
        (ax, ay), (_, by) = arm - origin, up - origin
        left_right, top_bottom, turned_right = ax > 0, by > 0, ax * ay > 0
        found.add((left_right, top_bottom, turned_right, origin[0] > 0, origin[1] > 0))
    assert len(found) == 32  # every combination


def test_rotation_turns_by_any_angle_up_to_the_given_one_either_way() -> None:
    turned = np.array([centre(only(rotation=30)(dot(MIDDLE + 25, MIDDLE), s)) for s in range(100)])
    assert np.hypot(*turned.T) == pytest.approx(25, abs=0.7)
    angles = np.rad2deg(np.arctan2(turned[:, 1], turned[:, 0]))
    assert -31 < angles.min() < -20
    assert 20 < angles.max() < 31
    all_around = [centre(only(rotation=180)(dot(MIDDLE + 25, MIDDLE), s)) for s in range(100)]
    assert {(x > 0, y > 0) for x, y in all_around} == {(a, b) for a in (0, 1) for b in (0, 1)}


def test_a_shift_moves_width_and_height_apart_by_up_to_the_share() -> None:
    moved = np.array([centre(only(shift=0.2)(dot(MIDDLE, MIDDLE), seed)) for seed in range(100)])
    assert np.abs(moved).max() <= 0.2 * SIDE + 1
    assert (moved.min(axis=0) < -0.12 * SIDE).all()
    assert (moved.max(axis=0) > 0.12 * SIDE).all()
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.35


def test_a_zoom_scales_width_and_height_apart_by_up_to_the_share() -> None:
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    square[MIDDLE - 15 : MIDDLE + 16, MIDDLE - 15 : MIDDLE + 16] = 255
    zoomed = [only(zoom=0.3)(square, seed)[..., 0].astype(float) / 255 for seed in range(100)]
    sizes = np.array([(image[MIDDLE].sum(), image[:, MIDDLE].sum()) for image in zoomed]) / 31
    assert 0.65 < sizes.min() < 0.8
    assert 1.2 < sizes.max() < 1.35
    assert abs(np.corrcoef(sizes.T)[0, 1]) < 0.35


def test_empty_corners_repeat_the_nearest_pixel(datta: Geometric) -> None:
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert all((datta(white, seed) == 255).all() for seed in range(20))


@pytest.mark.parametrize("name", ["HorizontalFlip", "VerticalFlip", "Affine"])
def test_an_argument_that_albumentations_does_not_know_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    known: Callable[..., Any] = getattr(albumentations, name)
    monkeypatch.setattr(albumentations, name, lambda **given: known(**given, cval=0))
    with pytest.raises(ValueError, match="cval"):
        _ = Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True).albumentations
