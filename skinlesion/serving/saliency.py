"""Which places of an image a network's answer rests on, in three ways that can be compared.

Soft attention (paper section 4.2) is what the network itself multiplies its feature map by,
whatever the class. Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) says which positions of the
feature map speak for a class, Kernel SHAP (Lundberg and Lee 2017, arXiv:1705.07874) which parts of
the image do, by hiding them. The last two are captum's.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinlesion.errors import SkinlesionError
from skinlesion.models.classifier import Classifier

Floats = NDArray[np.float64]

GRID = 5  # superpixels start as so many squares along a side; of more, SAMPLES say less than noise
COMPACTNESS = 3.0  # differences of colour (CIELAB) that weigh as the side of such a square
SIGMA = 13 / 224  # of the blur before, of the image's side: both as Young et al. 2019
HIDDEN = 255  # white, as Young et al. 2019 (arXiv:1908.06612) hide a part
SAMPLES = 2500  # of which superpixels are hidden, as theirs
AT_ONCE = 50  # images


def attention_maps(network: Classifier, image: Tensor) -> Floats | None:
    """Return the soft-attention maps (K, h, w) of an image, None where a network has none."""
    attention: Any = network.attention
    if not hasattr(attention, "maps"):  # a spectral layer has none
        return None
    with torch.no_grad():
        maps: Floats = attention.maps(network.backbone(image))[0].cpu().double().numpy()
    return maps


def attention_sum(maps: Floats) -> Floats:
    """Return the sum (h, w) of maps (K, h, w) as multiples of its mean: 1 is everywhere alike."""
    total = maps.sum(axis=0)
    return total / total.mean()


def soft_attention(
    network: Classifier, image: Tensor, metadata: Tensor, target: int, seed: int = 0
) -> Floats:
    """Return `attention_sum` of an image; SkinlesionError if the network has no soft attention."""
    maps = attention_maps(network, image)
    if maps is None:
        raise SkinlesionError("--method soft-attention: this network has none (attention=…).")
    return attention_sum(maps)


def grad_cam(
    network: Classifier, image: Tensor, metadata: Tensor, target: int, seed: int = 0
) -> Floats:
    """Return Grad-CAM (h, w) in [0, 1]: 1 speaks most for the target, 0 not at all.

    Raises:
        SkinlesionError: if the network's cut gives a vector.
    """
    from captum.attr import LayerGradCam

    cam = LayerGradCam(network, network.backbone)
    found = cam.attribute(
        image, target=target, additional_forward_args=(metadata,), relu_attributions=True
    )
    if found.ndim != 4:
        raise SkinlesionError(
            f"the cut {network.backbone.spec.cut} gives a vector and no feature map: there are "
            "no positions to look at."
        )
    values = found[0, 0].detach().cpu().double().numpy()  # (h, w)
    return values / values.max() if values.max() > 0 else values


def superpixels(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return SLIC superpixels (S, S) of an image (S, S, 3), numbered from 0.

    k-means of colour and place (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120), over all pixels
    instead of those near each centre, which at a network's input size takes a moment; so a
    superpixel need not hang together.
    """
    import cv2
    from scipy.ndimage import gaussian_filter
    from sklearn.cluster import KMeans

    side = len(image)
    blurred = gaussian_filter(image / np.float32(255), (SIGMA * side, SIGMA * side, 0))
    y, x = np.mgrid[:side, :side] * (GRID * COMPACTNESS / side)
    points = np.dstack([cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), y, x])  # (S, S, 5)
    middles = ((np.arange(GRID) + 0.5) * side / GRID).astype(int)
    start = points[np.ix_(middles, middles)].reshape(-1, 5)
    means = KMeans(len(start), init=start, n_init=1, max_iter=10)
    labels = means.fit_predict(points.reshape(-1, 5))
    return np.unique(labels, return_inverse=True)[1].reshape(side, side)


def kernel_shap(
    network: Classifier,
    image: Tensor,
    metadata: Tensor,
    target: int,
    seed: int = 0,
    samples: int = SAMPLES,
) -> Floats:
    """Return (S, S), at each pixel how much its superpixel adds to the probability of the target.

    They sum to the image's probability less that of a white one. The seed decides which are hidden
    together; after each choice its complement is asked about, so that errors cancel (Covert and
    Lee 2021, arXiv:2012.01536).
    """
    from captum.attr import KernelShap

    class Paired(KernelShap):
        def kernel_shap_perturb_generator(
            self, original_inp: Any, **given: Any
        ) -> Iterator[Tensor]:
            drawn = super().kernel_shap_perturb_generator(original_inp, **given)
            yield next(drawn)  # all shown
            yield next(drawn)  # all hidden
            for shown in drawn:
                yield shown
                yield 1 - shown

    parts = torch.from_numpy(superpixels(image[0].permute(1, 2, 0).cpu().numpy()))

    def probability(pixels: Tensor, given: Tensor) -> Tensor:
        return network(pixels.to(torch.uint8), given.expand(len(pixels), -1)).softmax(dim=1)

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        found = Paired(probability).attribute(
            image,
            baselines=HIDDEN,
            target=target,
            additional_forward_args=(metadata,),
            feature_mask=parts[None, None].to(image.device),
            n_samples=samples,
            perturbations_per_eval=AT_ONCE,
        )
    return found[0, 0].cpu().double().numpy()


METHODS: Mapping[str, Callable[..., Floats]] = {
    "soft-attention": soft_attention,
    "grad-cam": grad_cam,
    "kernel-shap": kernel_shap,
}
