"""Our side: the same weights and image, and how far what comes out is from Keras.

    python -m skinlesion.fidelity.parity all.npz

The weights take the way of any weights file: written as safetensors, loaded by the backbone.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from skinlesion.cli import report_errors
from skinlesion.errors import SkinlesionError, listing, validated
from skinlesion.fidelity.cases import TOLERANCE, cuts, numbers, picture, read
from skinlesion.fidelity.keras_weights import BACKBONES, write_weights
from skinlesion.fidelity.ledger import backbones
from skinlesion.models.backbone import Backbone
from skinlesion.models.weights import BackboneSpec, resolve_spec


def spec_of(backbone: str) -> BackboneSpec:
    """Return a backbone's spec as conf/backbone has it."""
    return validated(BackboneSpec, backbones()[backbone], "backbone")


def build(spec: BackboneSpec, weights: Path) -> Backbone:
    """Return our backbone in evaluation mode, with a file's weights.

    Raises:
        SkinlesionError: if the file does not fit, or leaves something out.
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


def compare(reference: Path) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield for each cut what is compared (backbone, layer, index, cut, shape) and how far off."""
    layers, _ = read(reference)
    for backbone in BACKBONES:
        spec = spec_of(backbone)
        with TemporaryDirectory() as folder:
            weights = Path(folder) / "w.safetensors"
            write_weights(weights, backbone, numbers(backbone), "drawn")
            for key, cut in cuts(backbone).items():
                layer = layers[backbone][key]
                ours = output(build(replace(spec, cut=cut), weights))
                shape = " x ".join(map(str, layer.shape))
                yield (backbone, layer.name, str(key), cut, shape), layer.error(ours)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.fidelity.parity",
        description="Compare our backbones with what came out of Keras.",
    )
    parser.add_argument("reference", type=Path, help="what `keras_side record` has written")
    options = parser.parse_args(arguments)

    _, about = read(options.reference)
    print(", ".join(f"{name} {version}" for name, version in about.items()))
    head = ("backbone", "Keras layer", "index", "our cut", "shape", "relative error")
    line = "{:20}{:38}{:>6}  {:34}{:14}{:>15}".format
    print(line(*head))
    worst = 0.0
    for row, error in compare(options.reference):
        print(line(*row, f"{error:.1e}"), flush=True)
        worst = max(worst, error)
    if worst > TOLERANCE:
        raise SkinlesionError(f"the largest relative error is above {TOLERANCE:.0e}.")
    print(f"every relative error is at most {TOLERANCE:.0e}")


if __name__ == "__main__":
    with report_errors():
        main()
