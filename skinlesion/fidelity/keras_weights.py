"""Keras' names and layouts of a backbone's weights, made ours.

The layers are those of keras.applications (mobilenet_v3.py, nasnet.py). NumPy alone: it serves both
sides.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from skinlesion.errors import SkinlesionError, listing
from skinlesion.files import replacing

VARIABLES = {
    **dict.fromkeys(("kernel", "depthwise_kernel", "pointwise_kernel", "gamma"), "weight"),
    **dict.fromkeys(("bias", "beta"), "bias"),
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _mobilenet_v3_large(layer: str, variable: str) -> str | None:
    around = {
        "conv": "conv_stem",
        "conv_bn": "bn1",
        "conv_1": "blocks.6.0.conv",
        "conv_1_bn": "blocks.6.0.bn1",
        "conv_2": "conv_head",
        "logits": "classifier",
    }
    block = re.fullmatch(r"expanded_conv(?:_(\d+))?_([a-z].*)", layer)
    if block is None:
        return around.get(layer)
    number, part = int(block[1] or 0), block[2]
    stages = [f"blocks.{stage}.{i}" for stage, n in enumerate((1, 2, 3, 4, 2, 3)) for i in range(n)]
    # The first block expands nothing, so timm counts and names its layers otherwise.
    names = {
        "expand": "conv_pw",
        "expand_bn": "bn1",
        "depthwise": "conv_dw",
        "depthwise_bn": "bn2" if number else "bn1",
        "squeeze_excite_conv": "se.conv_reduce",
        "squeeze_excite_conv_1": "se.conv_expand",
        "project": "conv_pwl" if number else "conv_pw",
        "project_bn": "bn3" if number else "bn2",
    }
    return f"{stages[number]}.{names[part]}" if part in names else None


def _nasnet_mobile(layer: str, variable: str) -> str | None:
    around = {"stem_conv1": "conv0.conv", "stem_bn1": "conv0.bn", "predictions": "last_linear"}
    cell = re.fullmatch(r"(.*?)_(?:(stem|reduce)_)?(\d+)", layer)
    if layer in around or cell is None:
        return around.get(layer)
    part, kind, number = cell[1], cell[2], int(cell[3])
    # Keras counts the first reduction among the cells, but not the second.
    ours = number - (number > 3)
    cells = {"stem": f"cell_stem_{number - 1}", "reduce": f"reduction_cell_{number // 4 - 1}"}
    here = cells.get(kind, f"cell_{ours}")
    halves = here == "cell_stem_1" or (kind is None and ours % 4 == 0)  # every second pixel, twice
    names = {
        "adjust_conv_projection": "conv_prev_1x1.conv",
        "adjust_conv_1": "path_1.conv",
        "adjust_conv_2": "path_2.conv",
        "adjust_bn": "final_path_bn" if halves else "conv_prev_1x1.bn",
        **dict.fromkeys(("normal_conv_1", "reduction_conv_1"), "conv_1x1.conv"),
        **dict.fromkeys(("normal_bn_1", "reduction_bn_1"), "conv_1x1.bn"),
    }
    branch = re.fullmatch(r"separable_conv_(1|2)_(bn_)?(normal|reduction)_(left|right)(\d)", part)
    if branch is None:
        return f"{here}.{names[part]}" if part in names else None
    i, norm, kind, side, n = branch.groups()
    # The left of a reduction's fifth pair is called 4 in Keras.
    pair = 4 if (kind, side, n) == ("reduction", "left", "4") else int(n) - 1
    convolution = f"separable_{i}.{variable.removesuffix('_kernel')}_conv2d"
    return f"{here}.comb_iter_{pair}_{side}.{f'bn_sep_{i}' if norm else convolution}"


_NAMES: dict[str, Callable[[str, str], str | None]] = {
    "mobilenet_v3_large": _mobilenet_v3_large,
    "nasnet_mobile": _nasnet_mobile,
}
_TIMM = {"mobilenet_v3_large": "tf_mobilenetv3_large_100", "nasnet_mobile": "nasnetamobile"}
BACKBONES = tuple(_NAMES)


def our_name(backbone: str, keras: str) -> str | None:
    """Return our name of a weight of Keras, `layer/variable`, in the words of Keras 2 or 3."""
    layer, _, variable = keras.removesuffix(":0").rpartition("/")
    layer = layer.replace("/", "_").lower().replace("batchnorm", "bn")
    ours = _NAMES[backbone](layer, variable)
    return f"{ours}.{VARIABLES[variable]}" if ours and variable in VARIABLES else None


def _value(name: str, value: np.ndarray) -> np.ndarray:
    """Return Keras' array in our layout, float32."""
    if value.ndim == 4:
        depthwise = "conv_dw" in name or "depthwise" in name
        value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    if name == "classifier.weight":  # a 1x1 convolution of Keras
        value = value[:, :, 0, 0]
    if name == "last_linear.weight":
        value = value.T
    return np.ascontiguousarray(value, np.float32)


def to_torch(backbone: str, named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return Keras' weights of one of BACKBONES under our names and in our layout.

    They are named by Keras' layer and variable, with or without the classifier; a SkinlesionError
    if a name is unknown.
    """
    ours = {keras: our_name(backbone, keras) for keras in named}
    if unknown := [keras for keras, name in ours.items() if name is None]:
        raise SkinlesionError(f"this is not Keras' {backbone}, which has no {listing(unknown)}.")
    return {name: _value(name, named[keras]) for keras, name in ours.items() if name}


def write_weights(
    path: str | Path, backbone: str, named: Mapping[str, np.ndarray], source: str
) -> None:
    """Write what `to_torch` makes of weights as a safetensors file for `weights=<file>`.

    The header says where they come from, the `source`.
    """
    state = to_torch(backbone, named)
    halves = json.dumps([0.5] * 3)  # both of Keras' models were trained on pixels in -1…1
    header = {"backbone": backbone, "timm_model": _TIMM[backbone], "timm_kwargs": "{}"}
    header |= {"mean": halves, "std": halves, "source": source}
    with replacing(path) as temporary:
        save_file(state, temporary, header)
