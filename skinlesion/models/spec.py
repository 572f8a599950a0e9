"""How a backbone is built, cut and fed: one file of conf/backbone/, and conf/preprocess/."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass

from skinlesion.errors import SkinlesionError, listing

Colours = tuple[float, float, float]

# Mean and std of red, green, blue, for pixels in 0…1, by the modes of Keras' preprocess_input:
# x / 127.5 - 1; (x / 255 - mean) / std of ImageNet; x - mean of ImageNet, without scaling.
MODES: Mapping[str, tuple[Colours, Colours]] = {
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}


def _in_timm(model: str) -> str:
    """A spec also comes from model files of strangers: timm would fetch from a hub or a folder."""
    if not all(character.isalnum() or character in "_." for character in model):
        raise ValueError("expected the name of one of timm's models, not of a hub or a folder")
    return model


def _of_the_architecture(kwargs: dict[str, Any]) -> dict[str, Any]:
    """timm would read a file that `checkpoint_path` names, or build a million layers."""
    if files := [name for name in kwargs if name.startswith(("pretrained", "checkpoint", "cache"))]:
        raise ValueError(f"expected arguments of the architecture, not {listing(files)}")
    if large := [name for name, value in kwargs.items() if not _is_small(value)]:
        raise ValueError(f"expected numbers of at most {LARGEST:,} in {listing(large)}")
    return kwargs


def _is_small(value: Any) -> bool:
    if isinstance(value, list | dict):
        inside = value.values() if isinstance(value, dict) else value
        return len(value) <= LARGEST and all(map(_is_small, inside))
    return not isinstance(value, int | float) or abs(value) <= LARGEST


LARGEST = 1024  # number in an argument of timm
Text = Annotated[str, Field(max_length=200)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BackboneSpec:
    """How to build, cut and feed one backbone; one file of conf/backbone/ each.

    Attributes:
        name: the config's name, such as `mobilenet_v3_small`.
        timm_model: timm's name of the architecture.
        cut: where the feature map t is taken, see `skinlesion.models.backbone`.
        input_size: height and width of the image, in pixels.
        mean, std: per channel as fed, for pixels in 0…1.
        channels: the order in which the image's channels are fed.
        pretrained: timm's tag of the ImageNet weights; None where there are none.
        timm_kwargs: further arguments of `timm.create_model`.
        strides: `keras_v1` moves a ResNet block's stride from its 3x3 to its first 1x1 convolution.
        keras_momentum: how fast batch norms' statistics move in Keras' model, as PyTorch counts it
            (1 - Keras'); None where there is no batch norm.
        mask: whether an image has its lesion's mask as a fourth channel.
        drop_block: see `skinlesion.models.drop_block.DropBlock`; None for none.
    """

    name: Text
    timm_model: Annotated[Text, AfterValidator(_in_timm)]
    cut: Text
    input_size: Annotated[int, Strict(), Field(ge=1, le=4096)]
    mean: tuple[Number, Number, Number]
    std: tuple[Positive, Positive, Positive]
    channels: Literal["rgb", "bgr"] = "rgb"
    pretrained: Text | None = None
    timm_kwargs: Annotated[dict[str, Any], AfterValidator(_of_the_architecture)] | None = None
    strides: Literal["keras_v1"] | None = None
    keras_momentum: Annotated[Number, Field(gt=0, le=1)] | None = None
    drop_block: dict[str, Any] | None = None
    mask: bool = False


def resolve_preprocess(
    spec: BackboneSpec, preprocess: Mapping[str, Any], weights: str
) -> BackboneSpec:
    """Return the spec as a table of conf/preprocess/ feeds it, or as its weights were trained.

    Keras' caffe networks want blue first, timm's want red first; a mean always follows its colour.
    With `swapped`, blue and red are exchanged against what the network wants, but the means stay:
    that is what the released code did, reading with cv2 (blue, green, red) and never reversing.

    Args:
        spec: after the weights have had their say; its channels are the order that they want.
        preprocess: `name`, and unless that is `weights`: `modes`, one of MODES by the backbone's
            name (a backbone without one keeps its mean and std), and `swapped`.
        weights: `imagenet`, `none` or the path of a file.

    Raises:
        SkinlesionError: if there are no weights to follow, or no such mode.
    """
    if preprocess["name"] == "weights":
        if weights == "none":
            raise SkinlesionError(
                "preprocess=weights feeds a backbone as its weights were trained, but weights=none "
                "has none: say preprocess=paper (section 3.1), or name weights."
            )
        return spec
    if mode := preprocess["modes"].get(spec.name):
        if mode not in MODES:
            raise SkinlesionError(
                f"preprocess.modes.{spec.name}={mode}: expected one of {', '.join(MODES)}."
            )
        mean, std = MODES[mode]
        if spec.channels == "bgr":
            mean, std = mean[::-1], std[::-1]
        spec = replace(spec, mean=mean, std=std)
    if preprocess["swapped"]:
        spec = replace(spec, channels="rgb" if spec.channels == "bgr" else "bgr")
    return spec
