"""A timm backbone, truncated at a cut (paper section 4.3; the authors cut by Keras layer index).

A cut is a node of the model's graph; everything behind it is pruned:

    <node>                 the node's value
    <node>.before_act      of a batch norm that timm joins with its activation: before that
    <either>+3             plus 3

Keras computes hard-swish as x ReLU6(x + 3) / 6 and hard-sigmoid as ReLU6(x + 3) / 6, each operation
a layer of its own, and some rows of Table 9 cut at the "+ 3". Pixels are normalised here, because
mean and std belong to the weights.
"""

import difflib
import logging
import re
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d, get_graph_node_names
from timm.models import create_feature_extractor
from torch import Tensor, nn

from skinlesion.errors import SkinlesionError, listing
from skinlesion.models.spec import BackboneSpec

log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A normalised, truncated backbone, as timm initialises it until `load` is called.

    Args:
        spec: how to build, cut and feed it.

    Attributes:
        uninitialised: names that a weights file did not hold.

    Shape:
        image (B, 3, H, W) uint8, RGB, or (B, 4, H, W) with a mask → t (B, C, h, w) float; (B, C)
        where the cut is behind timm's own pooling.

    Raises:
        SkinlesionError: if timm cannot build it, or there is no such cut.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        model = _create(spec)
        self.trunk, self.offset = _truncate(model, spec.cut)
        if spec.drop_block is not None:
            from skinlesion.models.drop_block import add_drop_block

            add_drop_block(self.trunk, spec.drop_block)
        for module in self.trunk.modules():
            if isinstance(module, nn.Hardswish):
                module.inplace = False  # in place, autograd copies the input first
        self._full_names = set(model.state_dict())
        self.uninitialised: list[str] = []
        self.frozen = False
        self.mean: Tensor
        self.std: Tensor
        of_mask = [0.5] * spec.mask  # fed as -1 and 1
        self.register_buffer("mean", 255.0 * torch.tensor([*spec.mean, *of_mask]).view(-1, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor([*spec.std, *of_mask]).view(-1, 1, 1))

    def move_statistics_as_keras(self) -> None:
        """Let batch norms' statistics move as in Keras' model, 10 to 333 times slower."""
        for module in self.trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.spec.keras_momentum

    def freeze(self) -> None:
        """Train nothing here: neither weights nor batch norms' statistics."""
        self.frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Leave evaluation mode unless frozen."""
        return super().train(mode and not self.frozen)

    def load(self, weights: str) -> None:
        """Take pretrained weights.

        Args:
            weights: `imagenet` (timm's pinned tag, downloaded once), `none`, or a file's path,
                perhaps of a whole trained network.

        Raises:
            SkinlesionError: if the weights cannot be had or do not fit.
        """
        if weights == "none":
            return
        from skinlesion.models.weights import download, load_into

        file = download(self.spec) if weights == "imagenet" else weights
        self.uninitialised = load_into(self.trunk, self._full_names, file)
        if self.uninitialised:
            log.warning("%s leaves uninitialised: %s", weights, listing(self.uninitialised, 20))

    def forward(self, image: Tensor) -> Tensor:
        """Return the feature map t (B, C, h, w) of uint8 images (B, 3 or 4, H, W)."""
        if image.dtype != torch.uint8:
            raise TypeError(
                f"expected a uint8 image with pixels in 0…255, found {image.dtype}: "
                "the backbone normalises by itself, pass the image as it was decoded"
            )
        channels = len(self.mean)
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(f"expected images (B, {channels}, H, W), found {tuple(image.shape)}")
        if self.spec.channels == "bgr":
            image = image[:, [2, 1, 0, 3]] if self.spec.mask else image.flip(1)
        normalised = image.to(self.mean.dtype).sub_(self.mean).div_(self.std)  # (B, 3, H, W)
        t = self.trunk(normalised)["t"]  # (B, C, h, w)
        return t + self.offset if self.offset else t

    def feature_shape(self) -> tuple[int, ...]:
        """Return (C, h, w) of the feature map at the backbone's own input size, or (C,)."""
        size, training = self.spec.input_size, self.training
        image = self.mean.new_zeros((1, len(self.mean), size, size), dtype=torch.uint8)
        try:
            with torch.no_grad():
                t = self.eval()(image)
        except (RuntimeError, AssertionError) as error:  # timm asserts
            raise SkinlesionError(
                f"{self.spec.timm_model} cannot take RGB images of {size} x {size} pixels "
                f"(backbone.input_size): {error}"
            ) from None
        finally:
            self.train(training)
        return tuple(t.shape[1:])


def _create(spec: BackboneSpec) -> nn.Module:
    kwargs = (spec.timm_kwargs or {}) | ({"in_chans": 4} if spec.mask else {})
    try:
        model: Any
        if spec.timm_model == "nasnetamobile":  # which timm does not have
            from skinlesion.models.nasnet import NASNetAMobile

            model = NASNetAMobile(**kwargs)
        else:
            model = timm.create_model(spec.timm_model, **kwargs)
        if getattr(model, "output_fmt", "") == "NHWC":
            raise TypeError("its maps lie as (h, w, C), as Swin's do")
    except Exception as error:  # each of timm's models has its own exceptions
        raise SkinlesionError(
            f"backbone.timm_model={spec.timm_model} with {kwargs} cannot be built: {error}"
        ) from None
    if spec.strides == "keras_v1":
        if not hasattr(model, "layer2"):
            raise SkinlesionError(
                f"backbone.strides=keras_v1: only a ResNet has such strides, not {spec.timm_model}."
            )
        # Keras has the stride of a stage's first block on its first 1x1 convolution.
        for layer in (model.layer2, model.layer3, model.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return model


def _truncate(model: nn.Module, cut: str) -> tuple[nn.Module, float]:
    """Return the model up to the cut, and what is to be added to its output."""
    parts = re.fullmatch(r"(.*?)(\.before_act)?(\+3)?", cut)
    assert parts is not None  # the pattern fits any line
    node, before_act, plus_three = parts.groups()
    try:
        trunk = create_feature_extractor(model, {node: "t"})
    except ValueError:
        names = get_graph_node_names(model)[1]
        near = difflib.get_close_matches(node, names, n=8, cutoff=0.3)
        raise SkinlesionError(
            f"backbone.cut={cut}: {type(model).__name__} has no such node. "
            f"Nearest: {', '.join(near or names[-8:])}."
        ) from None
    if before_act:
        # Nothing lies behind the cut any more, so it is enough to take the activation away. The
        # graph knows the module: repeated names are counted otherwise in nodes than in modules.
        output = next(iter(reversed(trunk.graph.nodes)))
        last = output.args[0]["t"]
        module = trunk.get_submodule(last.target) if last.op == "call_module" else None
        if not isinstance(module, BatchNormAct2d):
            raise SkinlesionError(
                f"backbone.cut={cut}: {node} is no batch norm joined with an activation, so there "
                "is nothing before it to cut at. Name the node itself, or the one before."
            )
        module.act = nn.Identity()
    return trunk, 3.0 if plus_three else 0.0
