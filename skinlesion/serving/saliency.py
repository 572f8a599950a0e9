"""Which places of an image a network's answer rests on, in three ways that can be compared.

Soft attention (paper section 4.2) is what the network itself multiplies its feature map by,
whatever the class. Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) says which positions of the
feature map speak for a class, Kernel SHAP (Lundberg and Lee 2017, arXiv:1705.07874) which parts of
the image do, by hiding them. The last two are captum's.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinlesion.errors import SkinlesionError
from skinlesion.models.classifier import Classifier

Floats = NDArray[np.float64]

GRID = 7  # parts of the image along a side, as many positions as the paper's feature maps have
HIDDEN = 255  # white, as Young et al. 2019 (arXiv:1908.06612) hide a part
SAMPLES = 500  # of which parts are hidden; theirs 2,500
AT_ONCE = 50  # images


def feature_map(network: Classifier, image: Tensor) -> Tensor:
    """Return t (1, C, h, w) of an image (1, 3, S, S) uint8.

    Raises:
        SkinlesionError: if the network's cut gives a vector.
    """
    with torch.no_grad():
        t: Tensor = network.backbone(image)
    if t.ndim != 4:
        raise SkinlesionError(
            f"the cut {network.backbone.spec.cut} gives a vector and no feature map: there are "
            "no positions to look at."
        )
    return t


def attention_maps(network: Classifier, image: Tensor) -> Floats | None:
    """Return the soft-attention maps (K, h, w) of an image, None where a network has none."""
    t, attention = feature_map(network, image), network.attention
    if not hasattr(attention, "maps"):  # a spectral layer has none
        return None
    with torch.no_grad():
        found: Any = attention.maps(t)  # type: ignore[union-attr,operator]
    maps: Floats = found[0].cpu().double().numpy()
    return maps


def soft_attention(
    network: Classifier, image: Tensor, metadata: Tensor, target: int, seed: int = 0
) -> Floats:
    """Return the sum of the maps as multiples of its mean, (h, w).

    Raises:
        SkinlesionError: if the network has none.
    """
    maps = attention_maps(network, image)
    if maps is None:
        raise SkinlesionError("--method soft-attention: this network has none (attention=…).")
    total = maps.sum(axis=0)
    return total / total.mean()


def grad_cam(
    network: Classifier, image: Tensor, metadata: Tensor, target: int, seed: int = 0
) -> Floats:
    """Return Grad-CAM (h, w) in [0, 1]: 1 speaks most for the target, 0 not at all."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(network, network.backbone)
    found = cam.attribute(
        image, target=target, additional_forward_args=(metadata,), relu_attributions=True
    )
    values = found[0, 0].detach().cpu().double().numpy()  # (h, w)
    return values / values.max() if values.max() > 0 else values


def kernel_shap(
    network: Classifier,
    image: Tensor,
    metadata: Tensor,
    target: int,
    seed: int = 0,
    samples: int = SAMPLES,
) -> Floats:
    """Return how much each of GRID x GRID squares adds to the probability of the target.

    The seed decides which are hidden together.
    """
    from captum.attr import KernelShap

    size = image.shape[-1]
    place = torch.arange(size, device=image.device) * GRID // size
    parts = (GRID * place[:, None] + place)[None, None].expand_as(image)

    def probability(pixels: Tensor, given: Tensor) -> Tensor:
        return network(pixels.to(torch.uint8), given.expand(len(pixels), -1)).softmax(dim=1)

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        found = KernelShap(probability).attribute(
            image,
            baselines=HIDDEN,
            target=target,
            additional_forward_args=(metadata,),
            feature_mask=parts,
            n_samples=samples,
            perturbations_per_eval=AT_ONCE,
            return_input_shape=False,
        )
    return found.reshape(GRID, GRID).cpu().double().numpy()


METHODS: Mapping[str, Callable[..., Floats]] = {
    "soft-attention": soft_attention,
    "grad-cam": grad_cam,
    "kernel-shap": kernel_shap,
}
