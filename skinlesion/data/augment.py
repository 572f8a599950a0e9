"""Augmentation, in two ways from one description: by albumentations in a loader's workers, image by
image, or by torch where the images already lie on the device, batch by batch.

torchvision's transforms draw once for a whole batch and cannot repeat the edge in empty corners, so
the second way is plain torch: one affine grid for each image, read bilinearly.
"""

import math
import os
import random
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from skinlesion.errors import SkinlesionError


@dataclass(frozen=True, config={"extra": "forbid"})
class Geometric:
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

    DRAWS: ClassVar[int] = 7  # random numbers that `on_device` wants for an image

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Return an image (H, W, 3) uint8 as another of that shape, which the seed decides."""
        # One stream for all steps: by set_random_seed each would draw the same numbers, so that an
        # image would be flipped both ways or not at all.
        self.albumentations.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return self.albumentations(image=image)["image"]

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
        shift, zoom = (-self.shift, self.shift), (1 - self.zoom, 1 + self.zoom)
        return A.Compose(
            [
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
        )

    def on_device(self, images: Any, draws: Any) -> Any:
        """Return images (B, 3, S, S) uint8 as others of that shape, on the device where they lie.

        Args:
            images: square images.
            draws: (B, DRAWS) float, in [0, 1): what decides each image.
        """
        import torch
        import torch.nn.functional as F

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
