"""Keras' names, shapes and layouts of a backbone's weights, and ours.

The lists are spelt out layer by layer after keras.applications (mobilenet_v3.py, nasnet.py), so
that what is unknown, missing or of another shape is found. NumPy alone: it serves both sides.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from skinlesion.errors import SkinlesionError, listing
from skinlesion.files import replacing

CLASSES = 1000  # ImageNet's


@dataclass(frozen=True)
class Weight:
    """One array.

    Attributes:
        keras: its name in Keras, without `:0`.
        torch: its name in our state dict.
        shape: its shape in Keras.
        axes: Keras' axes in our order.
        squeeze: whether a 1x1 convolution of Keras is a linear layer of ours.
        top: whether it belongs to what `include_top=False` leaves out.
    """

    keras: str
    torch: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = (0,)
    squeeze: bool = False
    top: bool = False

    @property
    def variable(self) -> str:
        """The last part of Keras' name, such as `gamma`."""
        return self.keras.rpartition("/")[2]

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        """Return Keras' array in our layout, float32."""
        turned = value.transpose(self.axes)
        if self.squeeze:
            turned = turned.reshape(turned.shape[:2])
        return np.ascontiguousarray(turned, np.float32)


def _conv(keras: str, torch: str, inputs: int, outputs: int, size: int = 1) -> Weight:
    shape = (size, size, inputs, outputs)
    return Weight(f"{keras}/kernel", f"{torch}.weight", shape, (3, 2, 0, 1))


def _depthwise(keras: str, torch: str, channels: int, size: int) -> Weight:
    shape = (size, size, channels, 1)
    return Weight(f"{keras}/depthwise_kernel", f"{torch}.weight", shape, (2, 3, 0, 1))


def _bias(keras: str, torch: str, channels: int) -> Weight:
    return Weight(f"{keras}/bias", f"{torch}.bias", (channels,))


def _norm(keras: str, torch: str, channels: int) -> Iterator[Weight]:
    for variable, name in (
        ("gamma", "weight"),
        ("beta", "bias"),
        ("moving_mean", "running_mean"),
        ("moving_variance", "running_var"),
    ):
        yield Weight(f"{keras}/{variable}", f"{torch}.{name}", (channels,))


# Howard et al. 2019, table 1: kernel, expanded and output channels, and those inside the squeeze
# and excitation (0: none), in timm's stages.
MOBILENET_V3_LARGE = (
    ((3, 16, 16, 0),),
    ((3, 64, 24, 0), (3, 72, 24, 0)),
    ((5, 72, 40, 24), (5, 120, 40, 32), (5, 120, 40, 32)),
    ((3, 240, 80, 0), (3, 200, 80, 0), (3, 184, 80, 0), (3, 184, 80, 0)),
    ((3, 480, 112, 120), (3, 672, 112, 168)),
    ((5, 672, 160, 168), (5, 960, 160, 240), (5, 960, 160, 240)),
)


def _mobilenet_v3_large() -> Iterator[Weight]:
    yield _conv("Conv", "conv_stem", 3, 16, 3)
    yield from _norm("Conv/BatchNorm", "bn1", 16)
    inputs = 16
    number = 0
    for stage, blocks in enumerate(MOBILENET_V3_LARGE):
        for i, (size, expanded, outputs, squeezed) in enumerate(blocks):
            keras = f"expanded_conv_{number}" if number else "expanded_conv"
            torch = f"blocks.{stage}.{i}"
            # The first block expands nothing, so timm counts its norms and names its
            # convolutions otherwise.
            norms = iter(("bn1", "bn2", "bn3"))
            if number:
                yield _conv(f"{keras}/expand", f"{torch}.conv_pw", inputs, expanded)
                yield from _norm(f"{keras}/expand/BatchNorm", f"{torch}.{next(norms)}", expanded)
            yield _depthwise(f"{keras}/depthwise", f"{torch}.conv_dw", expanded, size)
            yield from _norm(f"{keras}/depthwise/BatchNorm", f"{torch}.{next(norms)}", expanded)
            if squeezed:
                there, here = f"{keras}/squeeze_excite", f"{torch}.se"
                yield _conv(f"{there}/Conv", f"{here}.conv_reduce", expanded, squeezed)
                yield _bias(f"{there}/Conv", f"{here}.conv_reduce", squeezed)
                yield _conv(f"{there}/Conv_1", f"{here}.conv_expand", squeezed, expanded)
                yield _bias(f"{there}/Conv_1", f"{here}.conv_expand", expanded)
            project = "conv_pwl" if number else "conv_pw"
            yield _conv(f"{keras}/project", f"{torch}.{project}", expanded, outputs)
            yield from _norm(f"{keras}/project/BatchNorm", f"{torch}.{next(norms)}", outputs)
            inputs = outputs
            number += 1
    yield _conv("Conv_1", "blocks.6.0.conv", 160, 960)
    yield from _norm("Conv_1/BatchNorm", "blocks.6.0.bn1", 960)
    head, logits = (1, 1, 960, 1280), (1, 1, 1280, CLASSES)
    turn = (3, 2, 0, 1)
    yield Weight("Conv_2/kernel", "conv_head.weight", head, turn, top=True)
    yield Weight("Conv_2/bias", "conv_head.bias", (1280,), top=True)
    yield Weight("Logits/kernel", "classifier.weight", logits, turn, squeeze=True, top=True)
    yield Weight("Logits/bias", "classifier.bias", (CLASSES,), top=True)


# The separable branches of a cell: Keras' name, ours, the kernel, and which input each takes.
NORMAL = (
    ("left1", "comb_iter_0_left", 5, "last"),
    ("right1", "comb_iter_0_right", 3, "before"),
    ("left2", "comb_iter_1_left", 5, "before"),
    ("right2", "comb_iter_1_right", 3, "before"),
    ("left5", "comb_iter_4_left", 3, "last"),
)
REDUCTION = (
    ("left1", "comb_iter_0_left", 5, "last"),
    ("right1", "comb_iter_0_right", 7, "before"),
    ("right2", "comb_iter_1_right", 7, "before"),
    ("right3", "comb_iter_2_right", 5, "before"),
    ("left4", "comb_iter_4_left", 3, "last"),  # of Keras' fifth block, in spite of its name
)


def _nasnet_cell(
    kind: str, keras: str, torch: str, before: int, last: int, width: int, adjust: str
) -> Iterator[Weight]:
    """List a cell's weights.

    Args:
        kind: `normal` or `reduction`.
        keras: Keras' block id.
        torch: our cell.
        before: channels of the last cell's own input.
        last: channels of the last cell's output.
        width: channels of a branch.
        adjust: what is done to the former: `project` by a 1x1 convolution, `halve` by two that see
            every second pixel, or `none`.
    """
    if adjust == "project":
        yield _conv(f"adjust_conv_projection_{keras}", f"{torch}.conv_prev_1x1.conv", before, width)
        yield from _norm(f"adjust_bn_{keras}", f"{torch}.conv_prev_1x1.bn", width)
    elif adjust == "halve":
        for i in (1, 2):
            yield _conv(f"adjust_conv_{i}_{keras}", f"{torch}.path_{i}.conv", before, width // 2)
        yield from _norm(f"adjust_bn_{keras}", f"{torch}.final_path_bn", width)
    yield _conv(f"{kind}_conv_1_{keras}", f"{torch}.conv_1x1.conv", last, width)
    yield from _norm(f"{kind}_bn_1_{keras}", f"{torch}.conv_1x1.bn", width)
    for name, branch, size, source in NORMAL if kind == "normal" else REDUCTION:
        inputs = before if adjust == "none" and source == "before" else width
        for i in (1, 2):
            here = f"{torch}.{branch}.separable_{i}"
            there = f"separable_conv_{i}_{kind}_{name}_{keras}"
            yield _depthwise(there, f"{here}.depthwise_conv2d", inputs, size)
            yield Weight(
                f"{there}/pointwise_kernel",
                f"{here}.pointwise_conv2d.weight",
                (1, 1, inputs, width),
                (3, 2, 0, 1),
            )
            norm = f"separable_conv_{i}_bn_{kind}_{name}_{keras}"
            yield from _norm(norm, f"{torch}.{branch}.bn_sep_{i}", width)
            inputs = width


def _nasnet_mobile() -> Iterator[Weight]:
    stem, filters, cells = 32, 44, 4
    yield _conv("stem_conv1", "conv0.conv", 3, stem, 3)
    yield from _norm("stem_bn1", "conv0.bn", stem)
    before, last = stem, stem
    for i, (width, adjust) in enumerate(((filters // 4, "none"), (filters // 2, "halve"))):
        yield from _nasnet_cell(
            "reduction", f"stem_{i + 1}", f"cell_stem_{i}", before, last, width, adjust
        )
        before, last = last, 4 * width
    for stage in range(3):
        width = filters * 2**stage
        if stage:
            keras = f"reduce_{stage * cells}"
            torch = f"reduction_cell_{stage - 1}"
            yield from _nasnet_cell("reduction", keras, torch, before, last, width, "project")
            before, last = last, 4 * width
        for i in range(cells):
            ours = stage * cells + i
            # Keras counts the first reduction among the cells, but not the second.
            keras = f"{ours + (stage > 0)}"
            adjust = "project" if i else "halve"
            yield from _nasnet_cell("normal", keras, f"cell_{ours}", before, last, width, adjust)
            before, last = last, 6 * width
    yield Weight("predictions/kernel", "last_linear.weight", (last, CLASSES), (1, 0), top=True)
    yield Weight("predictions/bias", "last_linear.bias", (CLASSES,), top=True)


_LISTS: dict[str, Callable[[], Iterator[Weight]]] = {
    "mobilenet_v3_large": _mobilenet_v3_large,
    "nasnet_mobile": _nasnet_mobile,
}
BACKBONES = tuple(_LISTS)


def weights_of(backbone: str, top: bool = True) -> list[Weight]:
    """List a backbone's weights.

    Args:
        backbone: one of BACKBONES.
        top: with the classifier (Keras' `include_top`).

    Raises:
        SkinlesionError: if the backbone is another.
    """
    if backbone not in _LISTS:
        raise SkinlesionError(
            f"{backbone}: no list of Keras' weights, only of {listing(BACKBONES)}."
        )
    return [weight for weight in _LISTS[backbone]() if top or not weight.top]


def to_torch(backbone: str, named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return Keras' weights under our names and in our layout.

    Args:
        backbone: one of BACKBONES.
        named: arrays by Keras' names (`:0` or not), with or without the classifier.

    Raises:
        SkinlesionError: if a name is unknown or missing, or a shape is another.
    """
    found = {name.removesuffix(":0"): value for name, value in named.items()}
    top = any(weight.top and weight.keras in found for weight in weights_of(backbone))
    expected = {weight.keras: weight for weight in weights_of(backbone, top)}
    problems = []
    if unknown := sorted(found.keys() - expected.keys()):
        problems.append(f"unknown: {listing(unknown)}")
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing: {listing(missing)}")
    if misshapen := [
        f"{name} is {value.shape}, expected {expected[name].shape}"
        for name, value in found.items()
        if name in expected and value.shape != expected[name].shape
    ]:
        problems.append(f"shapes that differ: {listing(misshapen, 3)}")
    if problems:
        raise SkinlesionError(f"these are not Keras' weights of {backbone}: {'; '.join(problems)}.")
    return {weight.torch: weight.to_torch(found[name]) for name, weight in expected.items()}


# What tells our model how such weights want to be built and fed: both of Keras' models were trained
# on pixels scaled to -1…1.
_FED = {"timm_kwargs": {}, "mean": [0.5] * 3, "std": [0.5] * 3}
_TIMM = {"mobilenet_v3_large": "tf_mobilenetv3_large_100", "nasnet_mobile": "nasnetamobile"}


def write_weights(
    path: str | Path, backbone: str, named: Mapping[str, np.ndarray], source: str
) -> None:
    """Write Keras' weights as a safetensors file for `weights=<file>`.

    Args:
        path: the file, replaced as a whole.
        backbone: one of BACKBONES.
        named: arrays by Keras' names.
        source: where they come from, for the header.

    Raises:
        SkinlesionError: as `to_torch`.
    """
    state = to_torch(backbone, named)
    header = {"backbone": backbone, "timm_model": _TIMM[backbone], "source": source}
    header |= {key: json.dumps(value) for key, value in _FED.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, header)
