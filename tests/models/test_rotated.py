"""A backbone on rotated images computes what it computes on images as they are."""

from functools import cache

import pytest
import torch
from timm.layers import Conv2dSame
from timm.models import create_feature_extractor
from torch import nn

from skinlesion.models.rotated import RotatedConv2d, rotatable, rotate


@pytest.fixture(scope="module")
def pairs(build):
    """A backbone with random weights, and the same on rotated images; batch norms in training."""

    @cache
    def pair(name):
        torch.manual_seed(0)
        plain, rotated = (build(name).double() for _ in range(2))
        rotated.rotate()
        rotated.load_state_dict(plain.state_dict())  # the names and the weights are the same
        return plain, rotated

    return pair


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large"])
# At 96 all maps with a stride are even, at 97 odd; the others meet both.
@pytest.mark.parametrize("size", [(96, 96), (97, 97), (75, 58)])
def test_the_feature_map_and_every_gradient_are_the_same(pairs, name, size):
    backbones = pairs(name)
    for backbone in backbones:
        backbone.zero_grad()
    image = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8)
    maps = [backbone(image) for backbone in backbones]
    assert maps[0].std() > 0.1
    assert not torch.allclose(maps[0], maps[0].flip(2, 3), atol=0.1)  # which way it lies is seen
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(maps[0])
    for t in maps:
        t.backward(direction)
    plain, rotated = (dict(backbone.named_parameters()) for backbone in backbones)
    for key, parameter in plain.items():
        assert parameter.grad is not None
        torch.testing.assert_close(rotated[key].grad, parameter.grad, rtol=1e-7, atol=1e-9)


def test_no_map_is_padded_by_a_copy(pairs):
    plain, rotated = (backbone.modules() for backbone in pairs("mobilenet_v3_small"))
    assert sum(isinstance(m, Conv2dSame) and m.stride == (2, 2) for m in plain) == 5
    assert not any(isinstance(m, Conv2dSame) and m.stride == (2, 2) for m in rotated)


@pytest.mark.parametrize(
    "name",
    ["baseline/vgg16", "resnet50", "densenet201", "mobilenet_v1", "mobilenet_v2", "nasnet_mobile"],
)
def test_backbones_that_nothing_would_be_saved_for_stay_as_they_are(on_meta, name):
    backbone = on_meta(name)
    kinds = [type(module) for module in backbone.modules()]
    backbone.rotate()
    assert not backbone.rotated
    assert [type(module) for module in backbone.modules()] == kinds


def trunk(*modules):
    return create_feature_extractor(nn.Sequential(*modules), {str(len(modules) - 1): "t"})


SAME = Conv2dSame(3, 4, 3, stride=2)


@pytest.mark.parametrize("convolution", [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)])
def test_convolutions_of_stride_one_do_not_mind(convolution):
    plain, image = trunk(SAME, nn.ReLU(), convolution), torch.rand(1, 3, 12, 14)
    expected = plain(image)["t"]
    assert rotate(plain)
    torch.testing.assert_close(plain(image.flip(2, 3))["t"].flip(2, 3), expected)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, stride=2, padding=1),  # leaves out the last row of the rotated map
        Conv2dSame(4, 4, 1, stride=2),  # takes the other pixels
        Conv2dSame(4, 4, 2),  # padded on one side
        Conv2dSame(4, 4, 3, stride=3),
        nn.Conv2d(4, 4, 3, dilation=2, padding=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ],
)
def test_a_trunk_that_would_compute_something_else_is_not_rotated(other):
    whole = trunk(SAME, other)
    assert not rotatable(whole)
    assert not rotate(whole)
    assert not any(isinstance(module, RotatedConv2d) for module in whole.modules())
