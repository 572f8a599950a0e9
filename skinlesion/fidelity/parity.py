"""Our side: the same weights and image, and how far what comes out is from Keras.

The weights take the way of any weights file: written as safetensors, loaded by the backbone.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from skinlesion.errors import SkinlesionError, listing, validated
from skinlesion.fidelity.cases import Reference, cuts, numbers, picture
from skinlesion.fidelity.keras_weights import write_weights
from skinlesion.fidelity.ledger import backbones
from skinlesion.models.backbone import Backbone
from skinlesion.models.spec import BackboneSpec
from skinlesion.models.weights import resolve_spec


def spec_of(backbone: str) -> BackboneSpec:
    """Return a backbone's spec as conf/backbone has it."""
    return validated(BackboneSpec, backbones()[backbone], "backbone")


def build(spec: BackboneSpec, weights: Path) -> Backbone:
    """Return our backbone in evaluation mode, with a file's weights.

    A SkinlesionError if the file does not fit, or leaves something out.
    """
    backbone = Backbone(resolve_spec(spec, str(weights))).eval()
    backbone.load(str(weights))
    if backbone.uninitialised:
        raise SkinlesionError(f"{weights} leaves out {listing(backbone.uninitialised)}.")
    return backbone


def output(backbone: Backbone) -> np.ndarray:
    """Return what comes out for the picture, (C, h, w) or (C,)."""
    image = torch.from_numpy(picture()).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return backbone(image)[0].numpy()


def compare(reference: Reference) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield for each cut what is compared (backbone, layer, index, cut, shape) and how far off."""
    for backbone, shapes in reference.weights.items():
        spec = spec_of(backbone)
        with TemporaryDirectory() as folder:
            weights = Path(folder) / "w.safetensors"
            write_weights(weights, backbone, numbers(backbone, shapes), "drawn")
            for key, cut in cuts(backbone).items():
                layer = reference.layers[backbone][key]
                ours = output(build(replace(spec, cut=cut), weights))
                shape = " x ".join(map(str, layer.shape))
                yield (backbone, layer.name, str(key), cut, shape), layer.error(ours)
