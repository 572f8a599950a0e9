"""Where a network looks: its soft-attention maps, and Grad-CAM on the same feature map.

Soft attention (paper section 4.2) multiplies the feature map by the sum of its maps, whatever the
class. Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391; here captum's) says which positions of the
feature map speak for one class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinlesion.data.pixels import AnyImage, read_image, to_square
from skinlesion.errors import SkinlesionError
from skinlesion.serving.model import LesionModel, Prediction

Floats = NDArray[np.float64]

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
    """

    image: NDArray[np.uint8]
    prediction: Prediction
    target: str
    maps: Floats | None
    cam: Floats

    @property
    def attention(self) -> Floats | None:
        """(h, w) sum of the maps as multiples of its mean: 1 where it looks everywhere alike."""
        if self.maps is None:
            return None
        total = self.maps.sum(axis=0)
        return total / total.mean()


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
) -> Explanation:
    """Return where a model looks in an image.

    Args:
        model: from `load_run`.
        image: see `read_image`.
        metadata: by property; what is not given counts as unknown.
        target: the class to explain; None for the predicted one.

    Raises:
        SkinlesionError: as `LesionModel.predict`; if there is no such class, or the network's cut
            gives no feature map.
    """
    if target is not None and target not in model.classes:
        raise SkinlesionError(f"there is no class {target}: expected {', '.join(model.classes)}.")
    fitted = to_square(read_image(image), model.size)
    (prediction,) = model.predict_batch(fitted[None], [metadata or {}])
    target = target or prediction.label
    row = model.encoder.encode_typed([metadata or {}])
    batch, encoded = model.as_batch(fitted[None]), torch.from_numpy(row).to(model.device)
    network = model.network
    with torch.no_grad():
        t = network.backbone(batch)  # (1, C, h, w)
        if t.ndim != 4:
            raise SkinlesionError(
                f"the cut {network.backbone.spec.cut} gives a vector and no feature map: there are "
                "no positions to look at."
            )
        attention: Any = network.attention
        soft = hasattr(attention, "maps")  # a spectral layer has none
        maps = attention.maps(t)[0].cpu().double().numpy() if soft else None
    return Explanation(fitted, prediction, target, maps, _grad_cam(model, batch, encoded, target))


def overlay(image: NDArray[np.uint8], values: Floats, high: float) -> NDArray[np.uint8]:
    """Return the image (S, S, 3) with values (h, w) in [0, high] over it, dark to bright."""
    import matplotlib

    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None].float(), size=image.shape[:2], mode="bilinear"
    )
    share = np.clip(enlarged[0, 0].numpy() / high, 0, 1)  # (S, S)
    colour = matplotlib.colormaps[COLOURS](share)[..., :3]  # (S, S, 3)
    return (255 * (0.5 * colour + 0.5 * image / 255)).round().astype(np.uint8)


def _grad_cam(model: LesionModel, batch: Tensor, encoded: Tensor, target: str) -> Floats:
    from captum.attr import LayerGradCam

    cam = LayerGradCam(model.network, model.network.backbone)
    found = cam.attribute(
        batch,
        target=model.classes.index(target),
        additional_forward_args=(encoded,),
        relu_attributions=True,
    )
    values = found[0, 0].detach().cpu().double().numpy()  # (h, w)
    return values / values.max() if values.max() > 0 else values
