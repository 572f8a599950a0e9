"""Test-time augmentation: an image is predicted as the mean over several views of it.

`flips` are the image and its three mirror images. `crops` are 16 windows, 4 by 4 in order, of 7/8
of the side, enlarged to the whole side again. Yao et al. 2022 (arXiv:2102.01284) have 16 ordered
crops too, of a larger image than the network's: their training crops at random, ours does not, so
that ours differ less from what it has seen.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help of the commands that have --tta need not wait for it
    import numpy as np

VIEWS = {"flips": 4, "crops": 16}  # how many, and how many times as long it takes
TTA = "the mean over flips (4 times the time) or crops (16 times); default: as the run was measured"
SHARE = 7 / 8  # of the side
GRID = 4  # crops along a side


def views(images: "np.ndarray", tta: str | None) -> "Iterator[np.ndarray]":
    """Yield each view of images (B, S, S, C) uint8, of the same shape; None: the images alone."""
    import numpy as np

    if tta == "crops":
        side = images.shape[1]
        places = np.linspace(0, (1 - SHARE) * side, GRID)
        for top, left in ((top, left) for top in places for left in places):
            box = (left, top, left + SHARE * side, top + SHARE * side)
            yield np.stack([_enlarged(image, box) for image in images])
    else:
        for step in (1, -1) if tta else (1,):
            for other in (1, -1) if tta else (1,):
                yield np.ascontiguousarray(images[:, ::step, ::other])


def tta_of(asked: str | None, own: str | None) -> str | None:
    """Return what --tta means for a model that was measured with its own."""
    return own if asked is None else None if asked == "none" else asked


def mean_over_views(
    predict: "Callable[[np.ndarray], np.ndarray]", images: "np.ndarray", tta: str | None
) -> "np.ndarray":
    """Return the mean of what is predicted, (B, C), for each view of images (B, S, S, C)."""
    import numpy as np

    return np.mean([predict(view) for view in views(images, tta)], axis=0)


def _enlarged(image: "np.ndarray", box: tuple[float, float, float, float]) -> "np.ndarray":
    import numpy as np
    from PIL import Image

    def resized(channel: "np.ndarray") -> "np.ndarray":
        whole = Image.fromarray(channel)
        return np.asarray(whole.resize(whole.size, Image.Resampling.BILINEAR, box=box))

    # Channel by channel: Pillow would take a fourth one for transparency.
    return np.dstack([resized(channel) for channel in np.moveaxis(image, 2, 0)])
