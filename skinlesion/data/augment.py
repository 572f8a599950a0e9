"""Augmentation by albumentations, behind one function."""

import os
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Augment = Callable[[np.ndarray, int], np.ndarray]


def geometric(rotation: float, shift: float, zoom: float, flip: bool) -> Augment:
    """Return the geometric augmentation of Datta et al. 2021 (arXiv:2105.03358).

    Args:
        rotation: degrees either way.
        shift: share of the width and of the height either way.
        zoom: share of the size either way, drawn for width and height apart.
        flip: whether to mirror, left-right and top-bottom, half of the time each.

    Returns:
        A function of an image (H, W, 3) uint8 and a seed, giving an image of the same shape; the
        same seed gives the same image. Empty corners repeat the nearest pixel.

    Raises:
        ValueError: if albumentations does not know an argument (it would only warn).
    """
    # albumentations asks the network for its newest release unless told not to.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # the data loader's workers are the parallelism
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            transform = A.Compose(
                [
                    A.HorizontalFlip(p=0.5 * flip),
                    A.VerticalFlip(p=0.5 * flip),
                    A.Affine(
                        rotate=(-rotation, rotation),
                        translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                        scale={"x": (1 - zoom, 1 + zoom), "y": (1 - zoom, 1 + zoom)},
                        border_mode=cv2.BORDER_REPLICATE,
                        p=1.0,
                    ),
                ]
            )
        except UserWarning as warning:
            raise ValueError(str(warning)) from None

    return partial(_apply, transform)


def _apply(transform: Any, image: np.ndarray, seed: int) -> np.ndarray:
    # One stream for all steps: by set_random_seed each would draw the same numbers, so that an
    # image would be flipped both ways or not at all.
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return transform(image=image)["image"]
