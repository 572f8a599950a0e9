"""Augmentation: seed and arguments decide the image, in workers and on the device alike."""

import pickle
from unittest.mock import Mock

import albumentations
import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from skinlesion.data.augment import MEAN, Cutout, Geometric, RandAugment, Steps
from skinlesion.errors import SkinlesionError, validated

SIDE = 48
DATTA = Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True)


def only(**arguments):
    return Geometric(**{"rotation": 0, "shift": 0, "zoom": 0, "flip": False} | arguments)


def drawn(images, seed=0):
    return np.random.default_rng(seed).random((images, Geometric.DRAWS), dtype=np.float32)


@pytest.fixture(scope="module")
def picture():
    """A smooth picture without symmetry (S, S, 3), so that every motion shows."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    bumps = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.06) for a, b in [(0.3, 0.3), (0.6, 0.4)]]
    return np.stack([255 * bumps[0], 255 * bumps[1], 40 + 150 * x * y], axis=2).astype(np.uint8)


def on_device(augment, image, draws):
    """One image by each row of draws: (B, S, S, 3)."""
    images = torch.from_numpy(image).permute(2, 0, 1).expand(len(draws), -1, -1, -1)
    return augment.on_device(images, torch.from_numpy(draws)).permute(0, 2, 3, 1).numpy()


def by_albumentations(augment, image, draw):
    """The same image by albumentations, told exactly what to do."""
    rotate, x, y, width, height = (2 * draw[2:] - 1) * np.array(
        [augment.rotation, augment.shift, augment.shift, augment.zoom, augment.zoom]
    )
    affine = albumentations.Affine(
        rotate=(rotate, rotate),
        translate_percent={"x": (x, x), "y": (y, y)},
        scale={"x": (1 + width,) * 2, "y": (1 + height,) * 2},
        border_mode=cv2.BORDER_REPLICATE,
        p=1.0,
    )
    flips = [albumentations.HorizontalFlip, albumentations.VerticalFlip]
    flipped = [flip(p=1) for flip, p in zip(flips, draw, strict=False) if augment.flip and p < 0.5]
    return albumentations.Compose([*flipped, affine])(image=image)["image"]


@pytest.mark.filterwarnings("error")  # albumentations warns of arguments that it does not know
@pytest.mark.parametrize(
    "augment", [DATTA, only(flip=True), only(rotation=40), only(shift=0.3), only(zoom=0.5)], ids=str
)
def test_told_the_same_both_ways_make_the_same_image(augment, picture):
    ours = on_device(augment, picture, drawn(40))
    theirs = np.stack([by_albumentations(augment, picture, draw) for draw in drawn(40)])
    difference = np.abs(ours.astype(float) - theirs)
    # OpenCV reads at 1/32 of a pixel, and a shift cut to whole pixels may fall on either side.
    assert difference.mean() < 0.5
    assert np.quantile(difference.mean(axis=(1, 2, 3)), 0.9) < 0.5
    assert np.abs(ours - picture.astype(float)).mean() > 5


@pytest.mark.filterwarnings("error")
def test_both_ways_draw_from_one_distribution(picture):
    n = 1500
    ours = on_device(DATTA, picture, drawn(n, seed=1)).astype(float)
    theirs = np.stack([DATTA(picture, seed) for seed in range(n)]).astype(float)
    # The mean of every pixel, by its own standard error; and its spread.
    errors = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / n)
    z = (ours.mean(axis=0) - theirs.mean(axis=0)) / errors
    assert np.sqrt((z**2).mean()) < 1.6
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.12)
    # Where the first bump lands, and how far from the second one (which zoom alone changes).
    apart = [np.linalg.norm(_centres(x, 0) - _centres(x, 1), axis=1) for x in (ours, theirs)]
    for a, b in (*zip(_centres(ours, 0).T, _centres(theirs, 0).T, strict=True), apart):
        assert ks_2samp(a, b).pvalue > 0.01
    # What the test can see: a zoom of 0.13 in place of 0.1.
    wider = Geometric(rotation=180, shift=0.1, zoom=0.13, flip=True)
    other = on_device(wider, picture, drawn(n, seed=1)).astype(float)
    far = np.linalg.norm(_centres(other, 0) - _centres(other, 1), axis=1)
    assert ks_2samp(far, apart[1]).pvalue < 1e-3


def _centres(images, channel):
    weight = images[..., channel] ** 2
    y, x = np.mgrid[:SIDE, :SIDE]
    total = weight.sum(axis=(1, 2))
    return np.stack([(weight * at).sum(axis=(1, 2)) / total for at in (x, y)], axis=1)  # (n, 2)


def test_empty_corners_repeat_the_nearest_pixel_and_of_nothing_comes_nothing(picture):
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert (on_device(DATTA, white, drawn(20)) == 255).all()
    assert all((DATTA(white, seed) == 255).all() for seed in range(20))
    assert (on_device(only(), picture, drawn(5)) == picture).all()
    np.testing.assert_array_equal(only()(picture, 0), picture)


def test_the_seed_alone_decides_the_image_also_in_a_worker_that_is_not_forked(picture):
    before = picture.copy()
    first = [DATTA(picture, seed) for seed in range(20)]
    sent = pickle.loads(pickle.dumps(DATTA))
    np.random.seed(1)  # noqa: NPY002  which is not used
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(sent(picture, seed), first[seed])
    assert len({image.tobytes() for image in first}) == 20
    assert DATTA(picture[:40], 0).shape == (40, SIDE, 3)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rotation": -1}, "augment.rotation=-1: expected greater than or equal to 0"),
        ({"rotation": float("inf")}, "augment.rotation=inf: expected a finite number"),
        ({"zoom": 1}, "augment.zoom=1: expected less than 1"),
        ({"shift": "far"}, "augment.shift=far: expected a valid number"),
        ({"flip": 0.5}, "augment.flip=0.5: expected a valid boolean"),
        ({"shfit": 0.1}, "augment.shfit: there is no such key. Did you mean augment.shift"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(wrong, message):
    whole = {"rotation": 0, "shift": 0, "zoom": 0, "flip": False}
    with pytest.raises(SkinlesionError) as refusal:
        validated(Geometric, whole | wrong, "augment")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("centre", "rows", "columns"),
    [
        ((0.5, 0.5), range(2, 6), range(2, 6)),  # pixel 4 of 8: half of 4 before it
        ((0.0, 0.99), range(5, 8), range(2)),  # over the left edge, and by a pixel over the lowest
    ],
)
def test_cutout_hides_one_square_that_may_reach_over_the_edge(centre, rows, columns, monkeypatch):
    image, draws = np.zeros((8, 8, 3), np.uint8), np.array([centre], np.float32)
    expected = image.copy()
    expected[np.ix_(rows, columns)] = MEAN
    cutout = Cutout(side=0.5)
    unmoved = np.full((1, Geometric.DRAWS), 0.5, np.float32)
    whole, after = Steps(geometric=only(), cutout=cutout), np.concatenate([unmoved, draws], axis=1)
    assert after.shape[1] == whole.DRAWS
    for augment, numbers in [(cutout, draws), (Steps(no=None, c=cutout), draws), (whole, after)]:
        np.testing.assert_array_equal(on_device(augment, image, numbers)[0], expected)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Mock(random=lambda *_: draws))
    np.testing.assert_array_equal(Steps(c=cutout)(image, 0), expected)
    assert not image.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kinds", [{"colour": 1, "shape": 0}, {"colour": 0, "shape": 1}], ids=str)
def test_randaugment_changes_the_share_of_images_that_its_probability_says(picture, kinds):
    def changed(probability):
        augment = RandAugment(probability=probability, magnitude=20, **kinds)
        images = [augment(picture, seed) for seed in range(400)]
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(augment))(picture, 7), images[7])
        assert {image.shape for image in images} == {picture.shape}
        return float(np.mean([(image != picture).any() for image in images]))

    assert changed(0) == 0
    # Of a small strength some round to nothing: posterise by no bit, a shear below a pixel.
    assert 0.85 < changed(1) <= 1
    assert changed(0.5) == pytest.approx(changed(1) / 2, abs=0.08)  # 3 standard errors
    assert RandAugment.DRAWS == Steps(one=Cutout(side=0), two=RandAugment(1, 1, 1, 1)).DRAWS == 0


@pytest.mark.parametrize("device", [False, True], ids=["workers", "device"])
def test_a_mask_moves_with_the_image_and_keeps_its_values(
    picture: np.ndarray, device: bool
) -> None:
    mask = np.where(picture[..., :1] > 99, 255, 0).astype(np.uint8)
    both = np.dstack([picture, mask])
    steps = Steps(geometric=only(flip=True, shift=0.3), cutout=Cutout(side=0.5))
    alone = Steps(geometric=only(flip=True, shift=0.3))
    draws = np.random.default_rng(0).random((9, steps.DRAWS), np.float32)
    if device:
        found, moved = on_device(steps, both, draws), on_device(alone, mask, draws[:, :7])
        image = on_device(steps, picture, draws)
    else:
        found = np.stack([steps(both, seed) for seed in range(9)])
        moved = np.stack([alone(mask.repeat(3, 2), seed)[..., :1] for seed in range(9)])
        image = np.stack([steps(picture, seed) for seed in range(9)])
    np.testing.assert_array_equal(found[..., :3], image)
    assert {*np.unique(found[..., 3])} == {0, 255}
    assert (found[..., 3] != moved[..., 0]).mean() < 0.02  # read bilinearly at its edge
    assert (found[..., 3] != mask[..., 0]).any()


def test_randaugment_leaves_the_values_of_a_mask(picture: np.ndarray) -> None:
    both = np.dstack([picture, np.where(picture[..., 0] > 99, 255, 0).astype(np.uint8)])
    augment = RandAugment(probability=1, magnitude=10, colour=2, shape=1)
    found = np.stack([augment(both, seed) for seed in range(30)])
    assert {*np.unique(found[..., 3])} == {0, 255}
    assert len(np.unique(found[..., 3], axis=0)) > 9
