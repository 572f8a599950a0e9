"""Whether what explains a network can be trusted: the checks of Young et al. 2019.

arXiv:1908.06612; the second is Adebayo et al.'s (2018, arXiv:1810.03292). An explanation should
come out the same again, should change when what the network has learnt is destroyed, and should be
alike between networks that differ in their seed alone. Likeness is the structural similarity
(SSIM, Wang et al. 2004, doi:10.1109/TIP.2003.819861) of two maps, each stretched to [0, 1] and
enlarged to the image: 1 for the same. Explanations that stay alike while layers are randomised do
not show what the network has learnt. Stretching makes much of attention that is nearly flat, so it
is compared as it is drawn, too.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from skinlesion.models.classifier import Classifier, build_classifier
from skinlesion.serving.attention import top_of_scale
from skinlesion.serving.model import LesionModel, run_directory
from skinlesion.serving.saliency import METHODS, Floats
from skinlesion.text import aligned, number

STAGES = (0.25, 0.5, 0.75, 1.0)  # shares of the layers, from the last one on
AGAIN, LAST, SEEDS = "the same again", "last layer", "another seed"
DRAWN = "soft-attention, as drawn"


def siblings(path: Path) -> list[Path]:
    """Return the finished runs of other seeds beside a run, or beside that of a checkpoint."""
    own = run_directory(path).path.resolve()
    seeds = sorted(own.parent.glob("seed*")) if own.is_dir() else []  # beside a file are none
    beside = [run_directory(seed) for seed in seeds if seed != own]
    return [run.path for run in beside if run.best.exists() and run.predictions.exists()]


def similarity(one: Floats, other: Floats, size: int) -> float:
    """Return the SSIM of two maps (h, w), stretched; NaN where the first one says nothing.

    Size is that of the image, S.
    """
    if not np.ptp(one):  # such as Grad-CAM of a class that nothing speaks for
        return float("nan")
    apart = float(np.ptp(other)) or 1.0
    return ssim((one - one.min()) / np.ptp(one), (other - other.min()) / apart, size)


def ssim(one: Floats, other: Floats, size: int) -> float:
    """Return the SSIM of two maps (h, w) in [0, 1], enlarged to (size, size)."""
    large = [
        nn.functional.interpolate(torch.from_numpy(v)[None, None], (size, size), mode="bilinear")
        for v in (one, other)
    ]
    found: Any = structural_similarity_index_measure(large[0], large[1], data_range=1.0)
    return float(found)


def randomised(
    network: Classifier, described: Mapping[str, Any], seed: int = 0
) -> Iterator[tuple[str, Classifier]]:
    """Yield a copy of the network whose layers are as before training, from the last one on.

    They get the weights and statistics of another network that has learnt nothing. It is the same
    copy each time, with the name of the stage.

    Args:
        network: stays as it is.
        described: the arguments of `build_classifier`.
        seed: of the other network.
    """
    copied = copy.deepcopy(network).eval()  # the copy of a graph is in training mode
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = build_classifier(**described).state_dict()
    named = copied.named_modules()
    layers = [name for name, m in named if [*m.parameters(recurse=False)]][::-1]
    stages = {LAST: 1} | {f"{share:.0%} of layers": round(share * len(layers)) for share in STAGES}
    for name, until in stages.items():
        chosen = [key for key in fresh if key.rpartition(".")[0] in layers[:until]]
        copied.load_state_dict({key: fresh[key] for key in chosen}, strict=False)
        yield name, copied


def check_image(
    model: LesionModel,
    others: Sequence[LesionModel],
    image: np.ndarray,
    metadata: Mapping[str, Any],
    methods: Sequence[str],
    target: str | None = None,
    **options: Any,
) -> list[tuple[str, str, float]]:
    """Return (method, check, similarity) of each method and check for one image.

    Kernel SHAP draws anew each time: networks that are asked the same would share its noise, and
    look alike by that.

    Args:
        model: whose explanations are checked.
        others: of other seeds.
        image: (S, S, 3) uint8, of the network's size.
        metadata: by property.
        methods: of `METHODS`.
        target: the class that is explained; None for the predicted one.
        options: of Kernel SHAP.

    Raises:
        SkinlesionError: if a method does not suit the network.
    """
    target = target or model.predict_batch(image[None], [metadata])[0].label
    place = model.place(target)

    def explained(own: LesionModel, network: Classifier, method: str, seed: int = 1) -> Floats:
        row: Tensor = torch.from_numpy(own.encoder.encode_typed([metadata])).to(own.device)
        given = options if method == "kernel-shap" else {}
        return METHODS[method](network, own.as_batch(image[None]), row, place, seed, **given)

    usual = {method: explained(model, model.network, method, seed=0) for method in methods}
    found = [(m, AGAIN, explained(model, model.network, m)) for m in methods]
    for stage, network in randomised(model.network, model.description["network"]):
        found += [(method, stage, explained(model, network, method)) for method in methods]
    for other in others:
        found += [(method, SEEDS, explained(other, other.network, method)) for method in methods]
    alike = [(m, check, similarity(usual[m], values, model.size)) for m, check, values in found]
    for method, check, values in found:
        if method == "soft-attention":
            before, after = (v / top_of_scale(v) for v in (usual[method], values))
            alike.append((DRAWN, check, ssim(before, after, model.size)))
    return alike


def as_text(found: pd.DataFrame) -> str:
    """Return the mean similarity of each method in each check, over images, as text.

    The columns are image, method, check and ssim.
    """
    mean = found.groupby(["method", "check"], sort=False)["ssim"].mean()
    methods, checks = (found[name].unique().tolist() for name in ("method", "check"))
    rows = [[method, *(number(mean[method, check]) for check in checks)] for method in methods]
    return aligned([["SSIM", *checks], None, *rows])
