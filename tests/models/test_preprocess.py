"""What a network is fed, worked out by hand for a red and a blue pixel.

The expected values are those of Keras' preprocess_input modes, and for `released` of the table of
the authors' code: cv2 gives blue, green, red; only a ResNet's preprocess_input reverses them.
"""

import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.cli import CONF
from skinlesion.errors import SkinlesionError, validated
from skinlesion.models.spec import BackboneSpec, resolve_preprocess

WEIGHTS, PAPER, RELEASED = (
    OmegaConf.to_container(OmegaConf.load(CONF / "preprocess" / f"{name}.yaml"))
    for name in ("weights", "paper", "released")
)
TF = ("inception_resnet_v2", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small")
TF += ("mobilenet_v3_large", "nasnet_mobile", "nasnet_large")
RESNETS = ("resnet50", "resnet152")
OWN = {"mean": [0.0, 0.0, 0.0], "std": [0.5, 0.5, 1.0]}
BGR = {"channels": "bgr"}
LESS_THE_MEAN = (255 - 123.68, -116.779, -103.939), (-123.68, -116.779, 255 - 103.939)
EXCHANGED = (255 - 103.939, -116.779, -123.68), (-103.939, -116.779, 255 - 123.68)


class PassThrough(torch.nn.Module):
    def forward(self, x):
        return {"t": x}


@pytest.mark.parametrize(
    ("name", "table", "changes", "red", "blue"),
    [
        *((name, PAPER, {}, (1, -1, -1), (-1, -1, 1)) for name in TF),
        *((name, RELEASED, {}, (-1, -1, 1), (1, -1, -1)) for name in ("densenet201", *TF)),
        # (1 - .485) / .229, -.456 / .224, …
        ("densenet201", PAPER, {}, (2.2489, -2.0357, -1.8044), (-2.1179, -2.0357, 2.64)),
        # timm's weights want red first: every colour where the weights want it, less its own mean.
        *((name, PAPER, {}, *LESS_THE_MEAN) for name in RESNETS),
        # Keras' own ResNet weights, and the text: "converted from RGB to BGR".
        ("resnet50", PAPER, BGR, *EXCHANGED[::-1]),
        # Read as blue, green, red and reversed: Keras' network sees red less 103.939 first.
        *((name, RELEASED, BGR, *EXCHANGED) for name in RESNETS),
        # For weights that want red first the same exchange: blue less the mean of red comes first.
        ("resnet50", RELEASED, {}, *LESS_THE_MEAN[::-1]),
        # A backbone that a table does not name keeps its own mean and std.
        ("tiny", PAPER, OWN, (2, 0, 0), (0, 0, 1)),
        ("tiny", RELEASED, OWN, (0, 0, 1), (2, 0, 0)),
        ("tiny", WEIGHTS, OWN, (2, 0, 0), (0, 0, 1)),
    ],
)
def test_is_fed_as_the_table_says(config, build, name, table, changes, red, blue):
    spec = validated(BackboneSpec, config(name, **changes))
    spec = resolve_preprocess(spec, table, "imagenet")
    # Pixels are fed alike to every network: the tiny one, whose trunk is left out.
    backbone = build(mean=spec.mean, std=spec.std, channels=spec.channels)
    backbone.trunk = PassThrough()
    pixels = torch.tensor([[255, 0, 0], [0, 0, 255]], dtype=torch.uint8)
    seen = backbone(pixels.T.reshape(1, 3, 1, 2))[0, :, 0].T.tolist()
    assert seen == [pytest.approx(red, abs=2e-3), pytest.approx(blue, abs=2e-3)]


@pytest.mark.parametrize(
    ("table", "weights", "message"),
    [
        (WEIGHTS, "none", r"preprocess=weights .* weights=none has none: say"),
        (PAPER | {"modes": {"tiny": "caffee"}}, "imagenet", r"modes\.tiny=caffee: expected one of"),
    ],
)
def test_what_cannot_be_fed_is_refused(config, table, weights, message):
    with pytest.raises(SkinlesionError, match=message):
        resolve_preprocess(validated(BackboneSpec, config()), table, weights)
