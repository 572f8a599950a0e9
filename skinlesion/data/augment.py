"""Augmentation, in two ways from one description: by albumentations in a loader's workers, image by
image, or by torch where the images already lie on the device, batch by batch.

torchvision's transforms draw once for a whole batch and cannot repeat the edge in empty corners, so
the second way is plain torch: one affine grid for each image, read bilinearly.
"""

import math
import os
import random
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from skinlesion.errors import SkinlesionError

# ImageNet's mean, which a network sees as 0, or nearly: what fills a hole.
MEAN = (124, 116, 104)


class _ByAlbumentations:
    """What albumentations does with an image, in a worker."""

    DRAWS: ClassVar[int] = 0  # random numbers that `on_device` wants for an image; 0: there is none
    _transforms: Callable[[Any, Any], list[Any]]  # of the modules albumentations and cv2

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Return an image (H, W, 3) uint8 as another of that shape, which the seed decides.

        A fourth channel is a mask: it moves along and keeps its values.
        """
        # One stream for all steps: by set_random_seed each would draw the same numbers, so that an
        # image would be flipped both ways or not at all.
        self.albumentations.set_random_state(np.random.default_rng(seed), random.Random(seed))
        if image.shape[2] == 3:
            return self.albumentations(image=image)["image"]
        parts = self.albumentations(image=image[..., :3].copy(), mask=image[..., 3].copy())
        return np.dstack([parts["image"], parts["mask"]])

    @cached_property
    def albumentations(self) -> Any:
        """The transform; a SkinlesionError says if albumentations or OpenCV are not installed."""
        # albumentations asks the network for its newest release unless told not to.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        try:
            import albumentations as A
            import cv2
        except ImportError as error:
            raise SkinlesionError(
                f"augmentation in workers needs albumentations and OpenCV ({error}): install them, "
                "or data.resident=true, which augments on the device without them."
            ) from None

        cv2.setNumThreads(0)  # the data loader's workers are the parallelism
        return A.Compose(self._transforms(A, cv2))


@dataclass(frozen=True, config={"extra": "forbid"})
class Geometric(_ByAlbumentations):
    """The geometric augmentation of Datta et al. 2021 (arXiv:2105.03358).

    Empty corners repeat the nearest pixel.

    Attributes:
        rotation: degrees either way.
        shift: share of the width and of the height either way.
        zoom: share of the size either way, drawn for width and height apart; below 1.
        flip: whether to mirror, left-right and top-bottom, half of the time each.
    """

    rotation: float = Field(ge=0, allow_inf_nan=False)
    shift: float = Field(ge=0, lt=1)
    zoom: float = Field(ge=0, lt=1)
    flip: bool = Field(strict=True)

    DRAWS: ClassVar[int] = 7

    def _transforms(self, A: Any, cv2: Any) -> list[Any]:
        shift, zoom = (-self.shift, self.shift), (1 - self.zoom, 1 + self.zoom)
        return [
            A.HorizontalFlip(p=0.5 * self.flip),
            A.VerticalFlip(p=0.5 * self.flip),
            A.Affine(
                rotate=(-self.rotation, self.rotation),
                translate_percent={"x": shift, "y": shift},
                scale={"x": zoom, "y": zoom},
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            ),
        ]

    def on_device(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images (B, 3, S, S) uint8 as others of that shape; draws (B, DRAWS) in [0, 1)."""
        size = images.shape[-1]
        mirrored_x, mirrored_y, *drawn = draws.unbind(1)  # each (B,)
        rotated, moved_x, moved_y, wider, higher = (2 * draw - 1 for draw in drawn)
        angle = math.radians(self.rotation) * rotated
        sine, cosine = angle.sin(), angle.cos()
        half = (size - 1) / 2  # pixels from the centre, where an affine grid has 0, to its 1
        x0, y0 = ((self.shift * size * moved).trunc() / half for moved in (moved_x, moved_y))
        mirror_x, mirror_y = (
            torch.where(mirrored < 0.5 * self.flip, -1.0, 1.0)
            for mirrored in (mirrored_x, mirrored_y)
        )
        # Where an output's pixel comes from: shifted back, rotated back, scaled back, mirrored.
        to_x, to_y = mirror_x / (1 + self.zoom * wider), mirror_y / (1 + self.zoom * higher)
        rows = [
            torch.stack([to_x * cosine, -to_x * sine, to_x * (sine * y0 - cosine * x0)]),
            torch.stack([to_y * sine, to_y * cosine, -to_y * (sine * x0 + cosine * y0)]),
        ]
        # Not by F.affine_grid: a GPU would round its matrix product to TF32, 0.1 of a pixel.
        x = torch.linspace(-1, 1, size, device=images.device)  # (S,)
        of_x, of_y, by = torch.stack(rows, dim=2)[..., None, None]  # each (B, 2, 1, 1)
        grid = (of_x * x + of_y * x[:, None] + by).permute(0, 2, 3, 1)  # (B, S, S, 2)
        read = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=True)
        return read.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, config={"extra": "forbid"})
class Cutout:
    """One square of ImageNet's mean (DeVries and Taylor 2017, arXiv:1708.04552).

    Its side is a share of the image's; its centre is any pixel, so it may reach over the edge.
    """

    side: float = Field(ge=0, le=2)

    DRAWS: ClassVar[int] = 2

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Return an image (S, S, 3) uint8 with a hole, whose place the seed decides."""
        draws = torch.from_numpy(np.random.default_rng(seed).random((1, 2), np.float32))
        cut = self.on_device(torch.tensor(image).permute(2, 0, 1)[None], draws)
        return cut[0].permute(1, 2, 0).numpy()

    def on_device(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images (B, 3, S, S) uint8 with a hole each; draws (B, 2) in [0, 1): its centre."""
        size = images.shape[-1]
        length = round(self.side * size)
        first = (draws * size).long() - length // 2  # (B, 2): x, y
        away = torch.arange(size, device=images.device) - first[..., None]  # (B, 2, S)
        x, y = ((away >= 0) & (away < length)).unbind(1)  # each (B, S)
        hole = (y[:, :, None] & x[:, None])[:, None]  # (B, 1, S, S)
        mean = torch.stack([torch.full_like(images[0, 0], value) for value in MEAN])  # (3, S, S)
        cut = torch.where(hole, mean, images[:, :3])
        cut = torch.cat([cut, images[:, 3:]], dim=1)  # a mask stays
        return cut.contiguous(memory_format=torch.channels_last)


class Steps:
    """One augmentation after another, by name; None is left out."""

    def __init__(self, **steps: Any) -> None:
        self.steps = [step for step in steps.values() if step is not None]
        draws = [step.DRAWS for step in self.steps]
        self.DRAWS = sum(draws) if all(draws) else 0

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Return an image (H, W, 3) uint8 as another of that shape, which the seed decides."""
        for number, step in enumerate(self.steps):
            image = step(image, seed + number)
        return image

    def on_device(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images (B, 3, S, S) uint8 as others of that shape; draws (B, DRAWS) in [0, 1)."""
        parts = draws.split([step.DRAWS for step in self.steps], dim=1)
        for step, own in zip(self.steps, parts, strict=True):
            images = step.on_device(images, own)
        return images


@dataclass(frozen=True, config={"extra": "forbid"})
class RandAugment(_ByAlbumentations):
    """The modified RandAugment of Yao et al. 2022 (arXiv:2102.01284), in workers only.

    First operations on colour, then on shape, none twice, of a strength that is uniform up to
    magnitude / 10 of its maximum. albumentations lacks their mix-up and vignetting.
    """

    probability: float = Field(ge=0, le=1)  # of each operation that was chosen: their P
    magnitude: float = Field(ge=0, le=20)  # their M
    colour: int = Field(strict=True, ge=0, le=11)  # operations of a kind; their scheme v1_1: 1, 1
    shape: int = Field(strict=True, ge=0, le=8)

    def _transforms(self, A: Any, cv2: Any) -> list[Any]:
        m, p = self.magnitude / 10, {"p": self.probability}
        filled = p | {"fill": MEAN, "border_mode": cv2.BORDER_CONSTANT}
        same = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}

        def either(most: float, middle: float = 0.0) -> tuple[float, float]:
            return middle - most * m, middle + most * m

        colour = [
            *(A.ColorJitter(**same | {name: either(0.4, 1)}, **p) for name in list(same)[:3]),
            A.Sharpen(alpha=(0, 0.4 * m), lightness=(1, 1), **p),
            A.GaussNoise(std_range=(0, 10 / 255 * m), **p),
            A.RGBShift(*[either(30)] * 3, **p),
            *(A.Equalize(by_channels=apart, **p) for apart in (True, False)),  # False: the luma
            A.AutoContrast(method="pil", **p),
            A.Posterize(num_bits=(8 - round(3 * m), 8), **p),
            A.Solarize(threshold_range=(1 - 0.5 * m, 1), **p),
        ]
        shape = [
            A.Affine(rotate=either(40), **filled),
            *(A.Affine(shear={"x": 0, "y": 0} | {d: either(15)}, **filled) for d in "xy"),
            *(A.Affine(scale=either(0.2, 1), keep_ratio=kept, **filled) for kept in (True, False)),
            A.OpticalDistortion(distort_limit=either(0.09), **filled),
            A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], **p),
            A.CoarseDropout((1, 1), *[(0.001, 0.001 + 0.22 * m)] * 2, fill=MEAN, **p),
        ]
        kinds = ((colour, self.colour), (shape, self.shape))
        return [A.SomeOf(kind, n, replace=False, p=1) for kind, n in kinds if n]
