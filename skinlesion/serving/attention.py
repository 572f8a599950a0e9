"""Where a network looks in an image: what `skinlesion.serving.saliency` computes, to be shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skinlesion.data.pixels import AnyImage, read_image, to_square
from skinlesion.serving.model import LesionModel, Prediction
from skinlesion.serving.saliency import Floats, attention_maps, attention_sum, grad_cam, kernel_shap

COLOURS = "viridis"  # unlike any skin, even in lightness, also for the colour-blind


@dataclass(frozen=True)
class Explanation:
    """What a network saw in an image.

    Attributes:
        image: (S, S, 3) uint8, as the network is fed.
        prediction: what it said.
        target: the class that Grad-CAM speaks for.
        maps: (K, h, w) attention maps, each summing to 1; None for a network without attention.
        cam: (h, w) Grad-CAM in [0, 1]: 1 speaks most for the target, 0 not at all.
        shap: (h, w) Kernel SHAP, what each part adds to the target's probability; None: not asked.
    """

    image: NDArray[np.uint8]
    prediction: Prediction
    target: str
    maps: Floats | None
    cam: Floats
    shap: Floats | None = None

    @property
    def attention(self) -> Floats | None:
        """(h, w) sum of the maps as multiples of its mean: 1 where it looks everywhere alike."""
        return None if self.maps is None else attention_sum(self.maps)


def top_of_scale(attention: Floats) -> float:
    """Return the end of the scale, from 0, that multiples of the mean are drawn on.

    At least 2: attention that looks everywhere alike is then flat, and not a stretched nothing.
    """
    return max(2.0, float(attention.max()))


def explain(
    model: LesionModel,
    image: AnyImage,
    metadata: Mapping[str, Any] | None = None,
    target: str | None = None,
    samples: int = 0,
) -> Explanation:
    """Return where a model looks in an image.

    Args:
        model: from `load_run`.
        image: see `read_image`.
        metadata: by property; what is not given counts as unknown.
        target: the class to explain; None for the predicted one.
        samples: of Kernel SHAP; 0: none of it.

    Raises:
        SkinlesionError: as `LesionModel.predict`; if there is no such class, or the network's cut
            gives no feature map.
    """
    if target is not None:
        model.place(target)
    fitted = to_square(read_image(image), model.size)
    (prediction,) = model.predict_batch(fitted[None], [metadata or {}])
    target = target or prediction.label
    row = model.encoder.encode_typed([metadata or {}])
    batch, encoded = model.as_batch(fitted[None]), torch.from_numpy(row).to(model.device)
    given = (model.network, batch, encoded, model.place(target))
    maps, cam = attention_maps(model.network, batch), grad_cam(*given)
    shap = kernel_shap(*given, samples=samples) if samples else None
    return Explanation(fitted, prediction, target, maps, cam, shap)


def overlay(image: NDArray[np.uint8], values: Floats, high: float) -> NDArray[np.uint8]:
    """Return the image (S, S, 3) with values (h, w) in [0, high] over it, dark to bright."""
    import matplotlib

    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None].float(), size=image.shape[:2], mode="bilinear"
    )
    share = np.clip(enlarged[0, 0].numpy() / high, 0, 1)  # (S, S)
    colour = matplotlib.colormaps[COLOURS](share)[..., :3]  # (S, S, 3)
    return (255 * (0.5 * colour + 0.5 * image / 255)).round().astype(np.uint8)
