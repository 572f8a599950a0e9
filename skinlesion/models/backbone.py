"""A timm backbone, truncated at a cut (paper section 4.3; the authors cut by Keras layer index).

The cut is a node of the model's graph; everything behind it is pruned. Pixels are normalised here,
because mean and std belong to the weights.
"""

import difflib
import logging
from typing import Any

import huggingface_hub
import requests
import timm
import torch
from timm.layers import get_graph_node_names
from timm.models import create_feature_extractor
from torch import Tensor, nn

import skinlesion.models.nasnet  # noqa: F401  registers nasnetamobile with timm
from skinlesion.errors import SkinlesionError, listing
from skinlesion.models.weights import BackboneSpec, load_into, resolve_spec

log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A normalised, truncated backbone.

    Args:
        spec: how to build, cut and feed it.
        weights: `imagenet` (timm's pinned tag, downloaded once), `none`, or a file's path.

    Attributes:
        spec: the spec after the weights have had their say.
        uninitialised: names that a weights file did not hold.

    Shape:
        image (B, 3, H, W) uint8, RGB → t (B, C, h, w) float.

    Raises:
        SkinlesionError: if the cut is no node or gives no map, or the weights cannot be had.
    """

    def __init__(self, spec: BackboneSpec, weights: str = "none") -> None:
        """Build the model, load its weights and prune what lies behind the cut."""
        super().__init__()
        self.spec = resolve_spec(spec, weights)
        model = _create(self.spec, pretrained=weights == "imagenet")
        self.trunk = _truncate(model, self.spec.cut)
        self.uninitialised: list[str] = []
        if weights not in ("imagenet", "none"):
            self.uninitialised = load_into(self.trunk, set(model.state_dict()), weights)
            if self.uninitialised:
                log.warning("%s leaves uninitialised: %s", weights, listing(self.uninitialised, 20))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(self.spec.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(self.spec.std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return the feature map t (B, C, h, w) of uint8 images (B, 3, H, W)."""
        if image.dtype != torch.uint8:
            raise TypeError(
                f"expected a uint8 image with pixels in 0…255, found {image.dtype}: "
                "the backbone normalises by itself, pass the image as it was decoded"
            )
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), found {tuple(image.shape)}")
        normalised = (image - self.mean) / self.std  # (B, 3, H, W)
        return self.trunk(normalised)["t"]  # (B, C, h, w)

    def feature_shape(self) -> tuple[int, int, int]:
        """Return (C, h, w) of the feature map at the backbone's own input size."""
        size, training = self.spec.input_size, self.training
        image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=self.mean.device)
        try:
            with torch.no_grad():
                t = self.eval()(image)
        except RuntimeError as error:
            raise SkinlesionError(
                f"{self.spec.timm_model} cannot take RGB images of {size} x {size} pixels "
                f"(backbone.input_size): {error}"
            ) from None
        finally:
            self.train(training)
        if t.ndim != 4:
            raise SkinlesionError(
                f"backbone.cut={self.spec.cut} of {self.spec.timm_model} gives a tensor of shape "
                f"{tuple(t.shape)}, but soft attention needs a feature map (B, C, h, w): "
                "choose a node further from the end."
            )
        return t.shape[1], t.shape[2], t.shape[3]


def _create(spec: BackboneSpec, pretrained: bool) -> nn.Module:
    options: dict[str, Any] = dict(spec.timm_kwargs or {})
    if pretrained:
        file = _download(f"timm/{spec.timm_model}.{spec.pretrained}")
        options |= {"pretrained_cfg": spec.pretrained, "pretrained_cfg_overlay": {"file": file}}
    try:
        model = timm.create_model(spec.timm_model, pretrained=pretrained, **options)
    except Exception as error:  # each of timm's models and loaders has its own exceptions
        raise SkinlesionError(
            f"backbone.timm_model={spec.timm_model} with {spec.timm_kwargs or {}} "
            f"cannot be built: {error}"
        ) from None
    if spec.strides is not None:
        _move_strides(model, spec)
    return model


def _download(repository: str) -> str:
    """Return the path of timm's weights on this machine, downloading them at the first use."""
    try:
        requests.head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except requests.RequestException:
        # The hub's client would retry for a minute; what was downloaded before is all there is.
        online = False
    else:
        online = True
    try:
        return huggingface_hub.hf_hub_download(
            repository, "model.safetensors", local_files_only=not online
        )
    except Exception as error:  # the client's exceptions differ between its releases
        why = next(iter(str(error).splitlines()), repr(error)) if online else "no network"
        raise SkinlesionError(
            f"weights=imagenet: {repository} could not be downloaded ({why}). Without a network: "
            "weights=<file.safetensors or .pth> takes weights from a file, weights=none starts "
            "from scratch."
        ) from None


def _move_strides(model: Any, spec: BackboneSpec) -> None:
    """Put the stride of a stage's first block on its first 1x1 convolution, as Keras does."""
    if spec.strides != "keras_v1" or not hasattr(model, "layer2"):
        raise SkinlesionError(
            f"backbone.strides={spec.strides}: only keras_v1, for a ResNet, is known "
            f"(backbone: {spec.timm_model})."
        )
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)


def _truncate(model: nn.Module, cut: str) -> nn.Module:
    try:
        return create_feature_extractor(model, {cut: "t"})
    except ValueError:
        names = get_graph_node_names(model)[1]
        near = difflib.get_close_matches(cut, names, n=8, cutoff=0.3)
        raise SkinlesionError(
            f"backbone.cut={cut}: {type(model).__name__} has no such node. "
            f"Nearest: {', '.join(near or names[-8:])}."
        ) from None
