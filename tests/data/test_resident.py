"""Samples on the device: the batches of workers, and the same augmentation by other means."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from skinlesion.data.augment import Geometric
from skinlesion.data.module import LesionDataModule
from skinlesion.data.resident import ResidentLoader, ResidentSamples
from skinlesion.data.samples import Samples

SIDE = 48
DATTA = Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth picture without symmetry (S, S, 3), so that every motion shows."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    bumps = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.06) for a, b in [(0.3, 0.3), (0.6, 0.4)]]
    return np.stack([255 * bumps[0], 255 * bumps[1], 40 + 150 * x * y], axis=2).astype(np.uint8)


def on_device(augment: Geometric, image: np.ndarray, draws: Any) -> np.ndarray:
    """One image by each row of draws: (B, S, S, 3)."""
    draws = torch.as_tensor(draws, dtype=torch.float32)
    images = torch.from_numpy(image).permute(2, 0, 1).expand(len(draws), -1, -1, -1)
    return augment.on_device(images, draws).permute(0, 2, 3, 1).numpy()


def by_albumentations(augment: Geometric, image: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """The same image by albumentations, told exactly what to do."""
    turned, moved_x, moved_y, wider, higher = 2 * draw[2:] - 1

    def only(value: float) -> tuple[float, float]:
        return (value, value)

    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=float(augment.flip and draw[0] < 0.5)),
            albumentations.VerticalFlip(p=float(augment.flip and draw[1] < 0.5)),
            albumentations.Affine(
                rotate=only(augment.rotation * turned),
                translate_percent={
                    "x": only(augment.shift * moved_x),
                    "y": only(augment.shift * moved_y),
                },
                scale={"x": only(1 + augment.zoom * wider), "y": only(1 + augment.zoom * higher)},
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            ),
        ]
    )(image=image)["image"]


@pytest.mark.parametrize(
    "augment",
    [
        DATTA,
        Geometric(rotation=0, shift=0, zoom=0, flip=True),
        Geometric(rotation=40, shift=0, zoom=0, flip=False),
        Geometric(rotation=0, shift=0.3, zoom=0, flip=False),
        Geometric(rotation=0, shift=0, zoom=0.5, flip=False),
    ],
)
def test_told_the_same_both_ways_make_the_same_image(
    augment: Geometric, picture: np.ndarray
) -> None:
    draws = np.random.default_rng(0).random((40, Geometric.DRAWS), dtype=np.float32)
    ours = on_device(augment, picture, draws)
    theirs = np.stack([by_albumentations(augment, picture, draw) for draw in draws])
    difference = np.abs(ours.astype(float) - theirs)
    # OpenCV reads at 1/32 of a pixel, and a shift cut to whole pixels may fall on either side.
    assert difference.mean() < 0.5
    assert np.quantile(difference.mean(axis=(1, 2, 3)), 0.9) < 0.5
    assert np.abs(ours - picture.astype(float)).mean() > 5


def test_both_ways_draw_from_one_distribution(picture: np.ndarray) -> None:
    n = 4000
    draws = np.random.default_rng(1).random((n, Geometric.DRAWS), dtype=np.float32)
    ours = on_device(DATTA, picture, draws).astype(float)
    theirs = np.stack([DATTA(picture, seed) for seed in range(n)]).astype(float)
    # The mean of every pixel, by its own standard error; and its spread.
    errors = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / n)
    z = (ours.mean(axis=0) - theirs.mean(axis=0)) / errors
    assert 0.5 < np.sqrt((z**2).mean()) < 1.6
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.1)
    # Where the first bump lands, and how far from the second one (which zoom alone changes).
    apart = [np.linalg.norm(_centres(x, 0) - _centres(x, 1), axis=1) for x in (ours, theirs)]
    for a, b in (*zip(_centres(ours, 0).T, _centres(theirs, 0).T, strict=True), apart):
        assert ks_2samp(a, b).pvalue > 0.01
    # What the test can see: a zoom of 0.12 in place of 0.1.
    other = on_device(replace(DATTA, zoom=0.12), picture, draws).astype(float)
    wider = np.linalg.norm(_centres(other, 0) - _centres(other, 1), axis=1)
    assert ks_2samp(wider, apart[1]).pvalue < 1e-3


def _centres(images: np.ndarray, channel: int) -> np.ndarray:
    weight = images[..., channel] ** 2
    y, x = np.mgrid[:SIDE, :SIDE]
    total = weight.sum(axis=(1, 2))
    return np.stack([(weight * at).sum(axis=(1, 2)) / total for at in (x, y)], axis=1)  # (n, 2)


def test_empty_corners_repeat_the_nearest_pixel() -> None:
    draws = np.random.default_rng(0).random((20, Geometric.DRAWS))
    assert (on_device(DATTA, np.full((SIDE, SIDE, 3), 255, np.uint8), draws) == 255).all()


def test_with_every_argument_at_zero_nothing_changes(picture: np.ndarray) -> None:
    still = Geometric(rotation=0, shift=0, zoom=0, flip=False)
    draws = np.random.default_rng(0).random((5, Geometric.DRAWS))
    assert (on_device(still, picture, draws) == picture).all()


# --- loaders ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(samples: Samples) -> Callable[..., LesionDataModule]:
    return lambda **options: LesionDataModule(samples, 8, seed=3, **options)


def epochs(loader: Any, *numbers: int) -> list[list[dict[str, Tensor]]]:
    found = []
    for number in numbers:
        loader.sampler.set_epoch(number)
        found.append(list(loader))
    return found


def test_batches_are_those_of_workers(small: Callable[..., LesionDataModule]) -> None:
    resident, fetched = small(resident=True), small()
    assert isinstance(resident.train_dataloader(), ResidentLoader)
    pairs = [
        (resident.train_dataloader(), fetched.train_dataloader()),
        (resident.val_dataloader(), fetched.val_dataloader()),
        *zip(resident.predict_dataloader(), fetched.predict_dataloader(), strict=True),
    ]
    for ours, theirs in pairs:
        assert len(ours) == len(theirs)
        for one, other in zip(epochs(ours, 0, 5), epochs(theirs, 0, 5), strict=True):
            for batch, expected in zip(one, other, strict=True):
                assert batch.keys() == expected.keys()
                for name, value in batch.items():
                    assert torch.equal(value, expected[name])
                    assert value.dtype == expected[name].dtype
                    assert value.stride() == expected[name].stride()


def test_with_augmentation_order_labels_and_metadata_are_those_of_workers(
    small: Callable[..., LesionDataModule],
) -> None:
    ours = small(resident=True, augment=DATTA).train_dataloader()
    theirs = small(augment=DATTA, workers=0).train_dataloader()
    for one, other in zip(epochs(ours, 0, 5), epochs(theirs, 0, 5), strict=True):
        for batch, expected in zip(one, other, strict=True):
            for name in ("metadata", "label", "index"):
                assert torch.equal(batch[name], expected[name])
            assert batch["image"].shape == expected["image"].shape
            assert batch["image"].stride() == expected["image"].stride()
            assert not torch.equal(batch["image"], expected["image"])


def test_seed_epoch_and_sample_decide_the_augmentation_and_the_batch_size_does_not(
    samples: Samples,
) -> None:
    def images(batch_size: int, seed: int, number: int) -> dict[int, bytes]:
        loader = LesionDataModule(
            samples, batch_size, DATTA, seed, resident=True
        ).train_dataloader()
        (batches,) = epochs(loader, number)
        return {
            int(i): image.numpy().tobytes()
            for batch in batches
            for i, image in zip(batch["index"], batch["image"], strict=True)
        }

    expected = images(8, seed=3, number=2)
    assert images(5, seed=3, number=2) == expected
    others = [images(8, seed=3, number=1), images(8, seed=2, number=2)]
    for other in others:
        assert other.keys() == expected.keys()
        assert not any(other[sample] == image for sample, image in expected.items())


def test_held_out_samples_are_not_augmented(small: Callable[..., LesionDataModule]) -> None:
    plain, augmented = small(), small(resident=True, augment=DATTA)
    for batch, expected in zip(augmented.val_dataloader(), plain.val_dataloader(), strict=True):
        assert torch.equal(batch["image"], expected["image"])


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8, 8, 8, 6]), (29, [29]), (28, [28, 2])])
def test_a_last_training_batch_of_one_sample_is_dropped_and_no_other(
    samples: Samples, batch_size: int, sizes: list[int]
) -> None:
    loader = LesionDataModule(samples, batch_size, resident=True).train_dataloader()
    (batches,) = epochs(loader, 0)
    assert [len(batch["label"]) for batch in batches] == sizes
    assert len(loader) == len(sizes)


def test_on_a_cpu_the_mapped_cache_is_used_as_it_is(samples: Samples) -> None:
    resident = ResidentSamples(samples, torch.device("cpu"))
    assert resident.images.data_ptr() == samples.images.ctypes.data


def test_images_reach_another_device_some_at_a_time(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skinlesion.data.resident.UPLOAD", 10)
    # The meta device keeps no values, but every call that a GPU would get is made.
    resident = ResidentSamples(samples, torch.device("meta"))
    assert resident.images.shape == (len(samples.frame), *samples.images.shape[1:])
    assert {t.device.type for t in (resident.images, resident.metadata, resident.labels)} == {
        "meta"
    }


def test_without_a_gpu_the_images_stay_where_they_are(
    small: Callable[..., LesionDataModule],
) -> None:
    assert not isinstance(small(resident=None).train_dataloader(), ResidentLoader)


def test_evaluation_takes_batches_of_its_own_size(small: Callable[..., LesionDataModule]) -> None:
    for resident in (True, False):
        loaders = small(resident=resident, evaluation_batch=13)
        assert [len(batch["label"]) for batch in loaders.val_dataloader()] == [13, 1]
        assert len(next(iter(loaders.train_dataloader()))["label"]) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotation": -1}, "augment.rotation=-1: expected a number from 0"),
        ({"zoom": 1}, "augment.zoom=1: expected a number from 0, below 1"),
        ({"shift": "far"}, "augment.shift=far: expected a number from 0, below 1"),
        ({"flip": 0.5}, "augment.flip=0.5: expected true or false"),
    ],
)
def test_a_number_out_of_range_is_an_error(arguments: dict[str, Any], message: str) -> None:
    from skinlesion.errors import SkinlesionError

    whole = {"rotation": 0, "shift": 0, "zoom": 0, "flip": False} | arguments
    with pytest.raises(SkinlesionError, match=message):
        Geometric(**whole)
