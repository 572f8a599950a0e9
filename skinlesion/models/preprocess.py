"""How pixels are scaled, and in which order the channels are fed: the weights' way or a table's.

A table (conf/preprocess/) names a mode for each backbone, as Keras' `preprocess_input` does:

    tf      x / 127.5 - 1
    torch   (x / 255 - mean) / std of ImageNet
    caffe   x - mean of ImageNet, without scaling

Keras' caffe networks want blue first, timm's want red first; a mean always follows its colour. With
`swapped`, blue and red are exchanged against what the network wants, but the means stay: that is
what the released code did, reading with cv2 (blue, green, red) and never turning the channels.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skinlesion.errors import SkinlesionError
from skinlesion.models.weights import BackboneSpec

# Mean and std of red, green, blue, for pixels in 0…1.
MODES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}


def resolve_preprocess(
    spec: BackboneSpec, preprocess: Mapping[str, Any], weights: str
) -> BackboneSpec:
    """Return the spec as this choice of preprocessing feeds it.

    Args:
        spec: after the weights have had their say; its channels are the order that they want.
        preprocess: `name`, and unless that is `weights`: `modes`, a mode for each backbone's name,
            and `swapped`, whether blue and red are exchanged.
        weights: `imagenet`, `none` or the path of a file.

    Raises:
        SkinlesionError: if there are no weights to follow, or the table has no such backbone.
    """
    choice = preprocess["name"]
    if choice == "weights":
        if weights == "none":
            raise SkinlesionError(
                "preprocess=weights feeds a backbone as its weights were trained, but weights=none "
                "has none: say preprocess=paper (section 3.1), or name weights."
            )
        return spec
    modes = preprocess["modes"]
    if spec.name not in modes:
        raise SkinlesionError(
            f"preprocess={choice} says nothing about {spec.name}, only about {', '.join(modes)}: "
            "say preprocess=weights."
        )
    if (mode := modes[spec.name]) not in MODES:
        raise SkinlesionError(
            f"preprocess.modes.{spec.name}={mode}: expected one of {', '.join(MODES)}."
        )
    mean, std = MODES[mode]
    if spec.channels == "bgr":
        mean, std = mean[::-1], std[::-1]
    channels = spec.channels[::-1] if preprocess["swapped"] else spec.channels
    return replace(spec, mean=mean, std=std, channels=channels)
