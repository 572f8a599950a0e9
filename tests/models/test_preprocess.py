"""What a network is fed, worked out by hand for one red, one blue and one grey pixel.

The expected values are those of Keras' preprocess_input modes, and for `released` of the table of
the authors' code: cv2 gives blue, green, red; only a ResNet's preprocess_input turns them.
"""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.errors import SkinlesionError
from skinlesion.models import Backbone, BackboneSpec
from skinlesion.models.preprocess import resolve_preprocess

CONF = Path(__file__).parents[2] / "conf"
PIXELS = {"red": (255, 0, 0), "blue": (0, 0, 255), "grey": (100, 100, 100)}
TF = ["inception_resnet_v2", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"]
TF += ["mobilenet_v3_large", "nasnet_mobile", "nasnet_large"]


def choice(name):
    return OmegaConf.to_container(OmegaConf.load(CONF / f"preprocess/{name}.yaml"))


def fed(name, preprocess, config, **changes):
    """What the first convolution sees of each pixel, channel by channel."""
    spec = BackboneSpec.from_config(config(name, **changes))
    spec = resolve_preprocess(spec, choice(preprocess), "imagenet")
    # Pixels are fed alike to every network: the smallest, which is left out.
    small = config(**{field: getattr(spec, field) for field in ("mean", "std", "channels")})
    backbone = Backbone(BackboneSpec.from_config(small))
    backbone.trunk = PassThrough()
    image = torch.tensor([*PIXELS.values()], dtype=torch.uint8).T.view(1, 3, 1, len(PIXELS))
    return dict(zip(PIXELS, backbone(image)[0, :, 0].T.tolist(), strict=True))


class PassThrough(torch.nn.Module):
    def forward(self, x):
        return {"t": x}


def about(*values):
    return pytest.approx(values, abs=2e-3)


@pytest.mark.parametrize("name", TF)
def test_paper_scales_most_to_minus_one_and_one(name, config):
    seen = fed(name, "paper", config)
    assert seen["red"] == about(1, -1, -1)
    assert seen["blue"] == about(-1, -1, 1)
    assert seen["grey"] == about(-0.2157, -0.2157, -0.2157)


def test_paper_scales_densenet_to_one_and_by_imagenets_mean_and_std(config):
    seen = fed("densenet201", "paper", config)
    assert seen["red"] == about(2.2489, -2.0357, -1.8044)  # (1 - .485) / .229, -.456 / .224, …
    assert seen["blue"] == about(-2.1179, -2.0357, 2.64)


@pytest.mark.parametrize("name", ["resnet50", "resnet152"])
def test_paper_takes_imagenets_mean_from_a_resnets_pixels_and_scales_nothing(name, config):
    # timm's weights want red first: every colour where the weights want it, less its own mean.
    seen = fed(name, "paper", config)
    assert seen["red"] == about(255 - 123.68, -116.779, -103.939)
    assert seen["blue"] == about(-123.68, -116.779, 255 - 103.939)


@pytest.mark.parametrize("name", ["resnet50", "resnet152"])
def test_paper_turns_red_green_blue_for_weights_that_want_blue_first(name, config):
    # Keras' own ResNet weights, and the text: "converted from RGB to BGR".
    seen = fed(name, "paper", config, channels="bgr")
    assert seen["red"] == about(-103.939, -116.779, 255 - 123.68)


@pytest.mark.parametrize(
    "name", ["densenet201", "inception_resnet_v2", *(n for n in TF if n != "mobilenet_v1")]
)
def test_released_has_mobilenets_scaling_and_blue_where_red_belongs(name, config):
    seen = fed(name, "released", config)
    assert seen["red"] == about(-1, -1, 1)
    assert seen["blue"] == about(1, -1, -1)


@pytest.mark.parametrize("name", ["resnet50", "resnet152"])
def test_released_resnet_gets_red_less_the_mean_of_blue(name, config):
    # Read as blue, green, red and reversed: what Keras' network sees first is red, less 103.939.
    seen = fed(name, "released", config, channels="bgr")
    assert seen["red"] == about(255 - 103.939, -116.779, -123.68)
    assert seen["blue"] == about(-103.939, -116.779, 255 - 123.68)
    # For weights that want red first the same exchange: blue less the mean of red comes first.
    seen = fed(name, "released", config)
    assert seen["blue"] == about(255 - 123.68, -116.779, -103.939)


def test_weights_change_nothing(config):
    spec = BackboneSpec.from_config(config("mobilenet_v2"))
    assert resolve_preprocess(spec, choice("weights"), "imagenet") == spec


def test_weights_without_weights_is_refused(config):
    spec = BackboneSpec.from_config(config())
    with pytest.raises(SkinlesionError, match=r"preprocess=weights .* weights=none has none: say"):
        resolve_preprocess(spec, choice("weights"), "none")


def test_a_backbone_that_a_table_does_not_have_is_refused(config):
    spec = BackboneSpec.from_config(config("baseline/vgg16"))
    with pytest.raises(SkinlesionError, match="preprocess=released says nothing about vgg16, only"):
        resolve_preprocess(spec, choice("released"), "imagenet")


def test_an_unknown_mode_is_refused(config):
    spec = BackboneSpec.from_config(config())
    table = choice("paper") | {"modes": {spec.name: "caffee"}}
    with pytest.raises(SkinlesionError, match=r"small=caffee: expected one of tf, torch, caffe"):
        resolve_preprocess(spec, table, "imagenet")


@pytest.mark.parametrize("name", [path.stem for path in (CONF / "backbone").glob("*.yaml")])
@pytest.mark.parametrize("preprocess", ["paper", "released"])
def test_both_tables_have_the_ten(name, preprocess):
    assert name in choice(preprocess)["modes"]
