"""What of an image the network sees, by its lesion's mask.

The variants of Mahbod et al. 2020 (doi:10.1016/j.cmpb.2020.105725, arXiv:2008.12602).
"""

import numpy as np
from PIL import Image

from skinlesion.data.schema import Region
from skinlesion.errors import SkinlesionError

MARGIN = 0.1  # of a dilated crop, in sides of the lesion's box, each way


def keep_region(image: np.ndarray, mask: np.ndarray, region: Region) -> np.ndarray:
    """Return the part of an image (H, W, 3) uint8 that a region names, (H', W', 3 or 4).

    `crop` is the smallest square that holds the lesion, as far as the image reaches;
    `dilated_crop` is a tenth of it larger on each side; `background_removed` leaves the lesion on
    black; `fourth_channel` is all of it, and the mask behind it, 255 on the lesion.

    Args:
        image: as it was decoded.
        mask: (h, w) of the same proportions, bool, True on the lesion.
        region: which part.

    Raises:
        SkinlesionError: if the mask is empty, or of other proportions than the image.
    """
    height, width = image.shape[:2]
    if abs(mask.shape[0] * width - mask.shape[1] * height) > max(height, width, *mask.shape):
        raise SkinlesionError(f"a mask {mask.shape} for an image {(height, width)}")
    mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    if not mask.any():
        raise SkinlesionError("its mask is empty")
    if region == "fourth_channel":
        return np.dstack([image, mask * np.uint8(255)])
    if region.startswith("background_removed"):
        image = image * mask[..., None]
    if region == "background_removed":
        return image
    ends = [np.flatnonzero(mask.any(axis=1 - axis))[[0, -1]] + (0, 1) for axis in (0, 1)]
    side = max(end - start for start, end in ends)
    side += 2 * round(MARGIN * side) if region == "dilated_crop" else 0
    window = []
    for (start, end), length in zip(ends, (height, width), strict=True):
        first = min(max((start + end - side) // 2, 0), max(length - side, 0))
        window.append(slice(first, first + side))
    return image[tuple(window)]
