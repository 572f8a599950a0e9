"""Backbones padded as in TensorFlow, computed on images rotated by 180 degrees.

TensorFlow's "same" padding of a convolution with stride 2 puts more on the right and below, which
PyTorch does by a padded copy of the feature map. Of the rotated map it puts more on the left and
above: so do PyTorch's convolutions with equal padding, as they leave out what is over on the other
sides. They need no copy.
"""

from operator import add, mul

import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn

POINTWISE = (nn.BatchNorm2d, nn.Identity, nn.ReLU, nn.Hardswish, nn.Hardsigmoid)
FUNCTIONS = (add, mul, "mean")  # "mean" is over all positions


class RotatedConv2d(nn.Conv2d):
    """A convolution whose kernel is rotated by 180 degrees, its weight as it was.

    Args:
        conv: a convolution of stride 1 with equal padding, or timm's with TensorFlow's.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # pairs, as nn.Conv2d keeps them
            stride=conv.stride,  # type: ignore[arg-type]
            padding=[(size - 1) // 2 for size in conv.kernel_size],  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, image: Tensor) -> Tensor:
        """Return the rotated map (B, C', h', w') of a rotated map (B, C, h, w)."""
        weight = self.weight.flip(2, 3)
        return F.conv2d(image, weight, self.bias, self.stride, self.padding, groups=self.groups)


def rotate(trunk: nn.Module) -> bool:
    """Let a trunk compute the rotated feature map of a rotated image, if that saves copies.

    Args:
        trunk: as timm's feature extractor gives it; its convolutions are replaced.

    Returns:
        Whether it was done; see `rotatable`.
    """
    if not rotatable(trunk):
        return False
    for name, module in [*trunk.named_modules()]:
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            trunk.set_submodule(name, RotatedConv2d(module))
    return True


def rotatable(trunk: nn.Module) -> bool:
    """Return whether a trunk pads as TensorFlow and no other op minds which way its input lies."""
    if not isinstance(trunk, fx.GraphModule):
        return False
    called = [node for node in trunk.graph.nodes if node.op not in ("placeholder", "output")]
    modules = [trunk.get_submodule(node.target) for node in called if node.op == "call_module"]
    return (
        any(isinstance(module, Conv2dSame) for module in modules)
        and all(node.op == "call_module" or node.target in FUNCTIONS for node in called)
        and all(map(_module_rotatable, modules))
    )


def _module_rotatable(conv: nn.Module) -> bool:
    """Return whether it gives the rotated map of a rotated map, see `RotatedConv2d`."""
    if not isinstance(conv, nn.Conv2d):
        return isinstance(conv, POINTWISE)
    sides = {*conv.kernel_size}
    if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or not all(s % 2 for s in sides):
        return False
    if isinstance(conv, Conv2dSame):
        # A kernel of one pixel and stride 2 would take the other pixels.
        return conv.stride == (1, 1) or (conv.stride == (2, 2) and min(sides) > 1)
    equal = tuple((side - 1) // 2 for side in conv.kernel_size)
    return conv.stride == (1, 1) and conv.padding in (equal, "same")
