"""What a network is fed, worked out by hand for one red, one blue and one grey pixel.

The expected values are those of Keras' preprocess_input modes, and for `released` of the table of
the authors' code: cv2 gives blue, green, red; only a ResNet's preprocess_input reverses them.
"""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.errors import SkinlesionError, validated
from skinlesion.models import BackboneSpec
from skinlesion.models.weights import resolve_preprocess

CONF = Path(__file__).parents[2] / "conf"
PIXELS = {"red": (255, 0, 0), "blue": (0, 0, 255), "grey": (100, 100, 100)}
TF = ("inception_resnet_v2", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small")
TF += ("mobilenet_v3_large", "nasnet_mobile", "nasnet_large")
RESNETS = ("resnet50", "resnet152")


def choice(name):
    return OmegaConf.to_container(OmegaConf.load(CONF / f"preprocess/{name}.yaml"))


@pytest.fixture(scope="module")
def fed(config, build):
    """What the first convolution sees of each pixel, channel by channel."""

    def see(name, preprocess, **changes):
        spec = validated(BackboneSpec, config(name, **changes))
        spec = resolve_preprocess(spec, choice(preprocess), "imagenet")
        # Pixels are fed alike to every network: the smallest, which is left out.
        backbone = build(mean=spec.mean, std=spec.std, channels=spec.channels)
        backbone.trunk = PassThrough()
        image = torch.tensor([*PIXELS.values()], dtype=torch.uint8).T.view(1, 3, 1, len(PIXELS))
        return dict(zip(PIXELS, backbone(image)[0, :, 0].T.tolist(), strict=True))

    return see


class PassThrough(torch.nn.Module):
    def forward(self, x):
        return {"t": x}


def about(*values):
    return pytest.approx(values, abs=2e-3)


@pytest.mark.parametrize("name", TF)
def test_paper_scales_most_to_minus_one_and_one(fed, name):
    seen = fed(name, "paper")
    assert seen["red"] == about(1, -1, -1)
    assert seen["blue"] == about(-1, -1, 1)
    assert seen["grey"] == about(-0.2157, -0.2157, -0.2157)


def test_paper_scales_densenet_to_one_and_by_imagenets_mean_and_std(fed):
    seen = fed("densenet201", "paper")
    assert seen["red"] == about(2.2489, -2.0357, -1.8044)  # (1 - .485) / .229, -.456 / .224, …
    assert seen["blue"] == about(-2.1179, -2.0357, 2.64)


@pytest.mark.parametrize("name", RESNETS)
def test_paper_takes_imagenets_mean_from_a_resnets_pixels_and_scales_nothing(fed, name):
    # timm's weights want red first: every colour where the weights want it, less its own mean.
    seen = fed(name, "paper")
    assert seen["red"] == about(255 - 123.68, -116.779, -103.939)
    assert seen["blue"] == about(-123.68, -116.779, 255 - 103.939)
    # Keras' own ResNet weights, and the text: "converted from RGB to BGR".
    seen = fed(name, "paper", channels="bgr")
    assert seen["red"] == about(-103.939, -116.779, 255 - 123.68)


@pytest.mark.parametrize("name", ["densenet201", *TF])
def test_released_has_mobilenets_scaling_and_blue_where_red_belongs(fed, name):
    seen = fed(name, "released")
    assert seen["red"] == about(-1, -1, 1)
    assert seen["blue"] == about(1, -1, -1)


@pytest.mark.parametrize("name", RESNETS)
def test_released_resnet_gets_red_less_the_mean_of_blue(fed, name):
    # Read as blue, green, red and reversed: what Keras' network sees first is red, less 103.939.
    seen = fed(name, "released", channels="bgr")
    assert seen["red"] == about(255 - 103.939, -116.779, -123.68)
    assert seen["blue"] == about(-103.939, -116.779, 255 - 123.68)
    # For weights that want red first the same exchange: blue less the mean of red comes first.
    assert fed(name, "released")["blue"] == about(255 - 123.68, -116.779, -103.939)


@pytest.mark.parametrize(("preprocess", "red"), [("paper", (2, 0, 0)), ("released", (0, 0, 1))])
def test_a_backbone_that_a_table_does_not_name_keeps_its_own_mean_and_std(fed, preprocess, red):
    assert "tiny" not in choice(preprocess)["modes"]
    own = {"mean": [0, 0, 0], "std": [0.5, 0.5, 1]}
    assert fed("tiny", preprocess, **own)["red"] == about(*red)


@pytest.mark.parametrize("preprocess", ["paper", "released"])
def test_both_tables_name_the_ten_that_the_paper_lists(preprocess):
    assert choice(preprocess)["modes"].keys() >= {*TF, *RESNETS, "densenet201"}


def test_weights_change_nothing(config):
    spec = validated(BackboneSpec, config("mobilenet_v2"))
    assert resolve_preprocess(spec, choice("weights"), "imagenet") == spec


@pytest.mark.parametrize(
    ("table", "weights", "message"),
    [
        (choice("weights"), "none", r"preprocess=weights .* weights=none has none: say"),
        (
            choice("paper") | {"modes": {"tiny": "caffee"}},
            "imagenet",
            r"preprocess\.modes\.tiny=caffee: expected one of tf, torch, caffe",
        ),
    ],
)
def test_what_cannot_be_fed_is_refused(config, table, weights, message):
    with pytest.raises(SkinlesionError, match=message):
        resolve_preprocess(validated(BackboneSpec, config()), table, weights)
