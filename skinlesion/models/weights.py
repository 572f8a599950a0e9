"""Pretrained weights: timm's ImageNet tags, or a file that says how to build and feed itself.

A folder of `.safetensors` files stands for the one whose header names the backbone, so that a sweep
over backbones needs one path.

A `.safetensors` file may carry in its header, as text: `backbone`, `timm_model`, `timm_kwargs`
(JSON), `mean`, `std` (JSON, for pixels in 0…1), `channels`, `strides` (`keras_v1`) and `source`.
Without such a header, and for `.pth` files, the backbone's config says how to build and feed it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from skinlesion.errors import SkinlesionError, listing


@dataclass(frozen=True)
class BackboneSpec:
    """How to build, cut and feed one backbone; one file of conf/backbone/ each.

    Attributes:
        name: the config's name, such as `mobilenet_v3_small`.
        timm_model: timm's name of the architecture.
        cut: where the feature map t is taken, see `skinlesion.models.backbone`.
        input_size: height and width of the image, in pixels.
        mean: per channel as fed, for pixels in 0…1.
        std: per channel as fed, for pixels in 0…1.
        channels: `rgb` or `bgr`, the order in which the image's channels are fed.
        pretrained: timm's tag of the ImageNet weights; None where there are none.
        timm_kwargs: further arguments of `timm.create_model`.
        strides: `keras_v1` moves a ResNet block's stride from its 3x3 to its first 1x1 convolution.
        keras_momentum: how fast batch norms' statistics move in Keras' model, as PyTorch counts it
            (1 - Keras'); None where there is no batch norm.
    """

    name: str
    timm_model: str
    cut: str
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str = "rgb"
    pretrained: str | None = None
    timm_kwargs: Mapping[str, Any] | None = None
    strides: str | None = None
    keras_momentum: float | None = None

    def __post_init__(self) -> None:
        """Refuse a value of the wrong kind.

        Raises:
            SkinlesionError: naming the field.
        """
        size, kwargs, momentum = self.input_size, self.timm_kwargs, self.keras_momentum
        moves = momentum is None or (isinstance(momentum, int | float) and 0 < momentum <= 1)
        for field, fits, expected in (
            ("timm_model", isinstance(self.timm_model, str), "one of timm's names"),
            ("cut", isinstance(self.cut, str), "the name of a graph node"),
            ("input_size", isinstance(size, int) and size > 0, "a number of pixels"),
            ("mean", _are_three_numbers(self.mean), "three numbers"),
            ("std", _are_three_numbers(self.std) and min(self.std) > 0, "three numbers above 0"),
            ("channels", self.channels in ("rgb", "bgr"), "rgb or bgr"),
            ("keras_momentum", moves, "a number above 0, at most 1, or null"),
            ("timm_kwargs", isinstance(kwargs, Mapping | None), "names and values"),
        ):
            if not fits:
                found = getattr(self, field)
                raise SkinlesionError(f"backbone.{field}: expected {expected}, found {found!r}.")
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BackboneSpec":
        """Build a spec from a config's plain mapping.

        Raises:
            SkinlesionError: if a field is missing, unknown or of the wrong kind.
        """
        try:
            return cls(**config)
        except TypeError as error:
            raise SkinlesionError(f"conf/backbone: {error}") from None


def _are_three_numbers(values: Any) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == 3
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def resolve_spec(spec: BackboneSpec, weights: str) -> BackboneSpec:
    """Return the spec as the weights want it built and fed.

    Args:
        spec: the backbone's config.
        weights: `imagenet`, `none` or the path of a file.

    Raises:
        SkinlesionError: if there are no such weights or they belong to another backbone.
    """
    if weights == "none":
        return spec
    if weights == "imagenet":
        if spec.pretrained is None:
            raise SkinlesionError(
                f"weights=imagenet: timm has no ImageNet weights for {spec.name}. "
                "weights=<file> takes them from a file, weights=none preprocess=paper starts from "
                "scratch."
            )
        return spec
    header = _header(_existing(weights))
    if (owner := header.get("backbone", spec.name)) != spec.name:
        raise SkinlesionError(
            f"{weights} holds weights of {owner}, but backbone={spec.name} was asked for. "
            f"Say backbone={owner}, or name another file."
        )
    said: dict[str, Any] = {
        k: header[k] for k in ("timm_model", "channels", "strides") if k in header
    }
    try:
        said |= {k: json.loads(header[k]) for k in ("timm_kwargs", "mean", "std") if k in header}
        return replace(spec, **said)
    except (ValueError, SkinlesionError) as error:
        raise SkinlesionError(f"{weights}: its header does not say how to build: {error}") from None


def find_weights(weights: str, backbone: str) -> str:
    """Return the file in a folder of weights that belongs to a backbone; other weights as they are.

    Args:
        weights: `imagenet`, `none`, the path of a file, or of a folder of `.safetensors` files.
        backbone: the config's name.

    Raises:
        SkinlesionError: if the folder holds no such file, or several.
    """
    if weights in ("imagenet", "none", "") or not Path(weights).is_dir():
        return weights
    owners = {path: _header(path).get("backbone") for path in Path(weights).glob("*.safetensors")}
    found = sorted(path for path, owner in owners.items() if owner == backbone)
    if len(found) == 1:
        return str(found[0])
    if found:
        raise SkinlesionError(
            f"weights={weights}: several files are for {backbone}: "
            f"{listing([path.name for path in found])}. Name one of them."
        )
    there = sorted({owner for owner in owners.values() if owner})
    raise SkinlesionError(
        f"weights={weights}: no file in this folder is for {backbone}. Its headers name: "
        f"{listing(there, 20) or 'none'}. weights=imagenet downloads timm's, weights=none "
        "preprocess=paper starts from scratch."
    )


def load_state(path: str) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors`, `.pth`, `.pt` or `.bin` file.

    Raises:
        SkinlesionError: if the file is missing, damaged, of another kind, or holds no state dict.
    """
    file = _existing(path)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        import torch

        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch's own messages advise to run the code that a file may hold
        raise SkinlesionError(
            f"{path} cannot be read as weights: it is damaged, of another kind, or holds more than "
            "names and tensors. Expected a .safetensors file, or a .pth file written by "
            "torch.save(model.state_dict(), …)."
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise SkinlesionError(f"{path} holds no state dict (names and tensors).")
    return state


def load_into(trunk: nn.Module, full_names: set[str], path: str) -> list[str]:
    """Load a weights file into a cut backbone.

    Args:
        trunk: the cut backbone.
        full_names: names of the uncut backbone's state; those behind the cut are passed over.
        path: the weights file.

    Returns:
        Names of the trunk that the file does not hold, left as initialised.

    Raises:
        SkinlesionError: if names or shapes do not fit, with the first that do not.
    """
    found = load_state(path)
    wanted = trunk.state_dict()
    unknown = sorted(set(found) - full_names)
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    if unknown or shapes or not set(found) & set(wanted):
        problems = []
        if unknown:
            problems.append(f"names that the backbone does not have: {listing(unknown)}")
        if shapes:
            problems.append(f"shapes that differ: {listing(shapes, 3)}")
        if not problems:
            problems.append("no name of the backbone is in it")
        raise SkinlesionError(
            f"{path} does not fit the backbone: {'; '.join(problems)}. "
            "Set backbone.timm_model and backbone.timm_kwargs to what the file was made with."
        )
    trunk.load_state_dict({name: found[name] for name in wanted if name in found}, strict=False)
    counters = "num_batches_tracked"  # absent from older files, and without effect
    return [name for name in wanted if name not in found and not name.endswith(counters)]


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SkinlesionError(
            f"weights={path}: no such file. Expected imagenet, none, the path of a .safetensors or "
            ".pth file, or of a folder of .safetensors files."
        )
    return file


def _header(path: Path) -> dict[str, str]:
    """Return a safetensors file's own text fields; empty for other kinds."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise SkinlesionError(f"{path} cannot be read as safetensors: {error}") from None
