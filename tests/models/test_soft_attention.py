"""Soft attention against what Keras computes, and against maps worked out by hand.

fixtures/soft_attention.npz: the paper's attention over all channels with gamma = 1, and the one of
the released code, computed in TensorFlow 2.12 for random features x, a kernel in the layout of
Keras' conv3d (C, 3, 3, 1, K) and a bias; channels come second in x, maps and attended.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from skinlesion.models import SoftAttention
from skinlesion.models.soft_attention import ReleasedSoftAttention

GOLDEN = np.load(Path(__file__).parent / "fixtures/soft_attention.npz")


def golden(case: str, name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[f"{case}_{name}"])


@pytest.fixture(params=["a", "b"], ids=["24 x 7 x 7, 16 maps", "6 x 5 x 8, 4 maps"])
def keras(request):
    """A case and the layer with the weights of Keras."""
    kernel = golden(request.param, "keras_kernel")
    attention = SoftAttention(kernel.shape[0], maps=kernel.shape[-1], gamma=1)
    attention.load_state_dict(
        {
            "conv.weight": kernel[:, :, :, 0, :].permute(3, 0, 1, 2),
            "conv.bias": golden(request.param, "bias"),
            "gamma": torch.tensor(1.0),
        }
    )
    return request.param, attention


def one_map_of_the_features(gamma: float) -> SoftAttention:
    """One channel, one map, whose score at a position is the feature there."""
    attention = SoftAttention(1, maps=1, gamma=gamma)
    with torch.no_grad():
        attention.conv.weight.zero_()
        attention.conv.weight[0, 0, 1, 1] = 1
    return attention


def test_maps_equal_keras(keras):
    case, attention = keras
    maps = attention.maps(golden(case, "x"))
    torch.testing.assert_close(maps, golden(case, "paper_maps"), rtol=0, atol=1e-5)


def test_attended_features_equal_keras(keras):
    case, attention = keras
    attended = attention(golden(case, "x"))
    torch.testing.assert_close(attended, golden(case, "paper_attended"), rtol=1e-5, atol=1e-5)


def test_attended_features_of_two_positions():
    # Scores 0 and ln 3: softmax 1/4 and 3/4.
    features = torch.tensor([[[[0.0, math.log(3)]]]])
    attended = one_map_of_the_features(gamma=2)(features)
    expected = torch.tensor([[[[0.0, 2 * 3 / 4 * math.log(3)]]]])
    torch.testing.assert_close(attended, expected)


def test_scores_below_zero_count_as_zero():
    # Without the ReLU before the softmax -5 would weigh less than 0.
    maps = one_map_of_the_features(gamma=1).maps(torch.tensor([[[[-5.0, 0.0]]]]))
    assert maps.tolist() == [[[[0.5, 0.5]]]]


def test_every_map_sums_to_one_and_alpha_to_the_number_of_maps():
    features = 3 * torch.randn(2, 5, 6, 4)
    attention = SoftAttention(5, maps=16, gamma=1)
    maps = attention.maps(features)
    assert maps.shape == (2, 16, 6, 4)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 16))
    alpha = (attention(features) / features)[:, 0]
    torch.testing.assert_close(alpha.sum(dim=(1, 2)), torch.full((2,), 16.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("channel", range(5))
def test_maps_look_at_every_channel(channel):
    # The released code looked at the first three only.
    torch.manual_seed(0)
    features = torch.rand(1, 5, 4, 4, requires_grad=True)
    SoftAttention(5).maps(features)[0, :, 0, 0].sum().backward()
    assert features.grad[0, channel].abs().sum() > 0


def test_at_one_position_attention_is_a_constant():
    features = torch.randn(2, 8, 1, 1)
    attention = SoftAttention(8, maps=16, gamma=0.25)
    torch.testing.assert_close(attention.maps(features), torch.ones(2, 16, 1, 1))
    torch.testing.assert_close(attention(features), 16 * 0.25 * features)


def test_gamma_is_learnable_and_starts_as_configured():
    assert SoftAttention(4).gamma.item() == pytest.approx(0.01)
    gamma = SoftAttention(4, gamma=0.5).gamma
    assert gamma.item() == 0.5
    assert isinstance(gamma, torch.nn.Parameter)
    assert gamma.requires_grad


def test_gradient_reaches_convolution_and_gamma():
    torch.manual_seed(0)
    attention = SoftAttention(4)
    attention(torch.randn(2, 4, 5, 5)).square().sum().backward()
    for parameter in attention.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


def test_starts_as_released():
    # He uniform: within sqrt(6 / fan-in), here sqrt(6 / (24 * 9)) = 1/6; the bias at zero.
    torch.manual_seed(0)
    conv = SoftAttention(24).conv
    assert 0.99 / 6 < conv.weight.abs().max() <= 1 / 6
    assert not conv.bias.any()


def test_needs_a_map():
    with pytest.raises(ValueError, match=r"attention\.maps=0: expected at least 1"):
        SoftAttention(4, maps=0)


@pytest.fixture(params=["a", "b"], ids=["24 x 7 x 7, 16 maps", "6 x 5 x 8, 4 maps"])
def released(request):
    """A case and the released code's layer with the weights of Keras."""
    kernel = golden(request.param, "keras_kernel")  # (C, 3, 3, 1, K)
    attention = ReleasedSoftAttention(kernel.shape[0], maps=kernel.shape[-1])
    attention.load_state_dict(
        {
            "weight": kernel[:, :, :, 0, :].permute(3, 2, 0, 1),
            "bias": golden(request.param, "bias"),
        }
    )
    return request.param, attention


def test_released_equals_keras(released):
    case, attention = released
    x = golden(case, "x")
    maps = golden(case, "released_maps")
    torch.testing.assert_close(attention.maps(x), maps, rtol=0, atol=1e-5)
    attended = golden(case, "released_attended")
    torch.testing.assert_close(attention(x), attended, rtol=1e-5, atol=1e-5)


def test_released_is_not_the_papers(released):
    case, attention = released
    apart = attention(golden(case, "x")) - golden(case, "paper_attended")
    assert apart.abs().max() > 0.1


def test_released_maps_look_at_three_channels_only():
    torch.manual_seed(0)
    features = torch.rand(1, 9, 4, 4, requires_grad=True)
    ReleasedSoftAttention(9).maps(features)[0, :, 0, 0].sum().backward()
    looked_at = features.grad[0].abs().sum(dim=(1, 2)) > 0
    assert looked_at.tolist() == [True] * 3 + [False] * 6


def test_released_has_the_authors_parameters_most_without_effect():
    # MobileNetV3Large, 7 x 7 x 960: 138,256 parameters, of which 1,888 are ever used: 3 channels,
    # 13 x 3 positions, 16 maps, and 16 biases.
    attention = ReleasedSoftAttention(960)
    assert sum(p.numel() for p in attention.parameters()) == 138_256
    attention(torch.rand(2, 960, 7, 7)).square().sum().backward()
    used = sum((p.grad != 0).sum().item() for p in attention.parameters())
    assert used <= 3 * 13 * 3 * 16 + 16 == 1_888
    assert used > 1_700  # a ReLU may hide some


def test_released_starts_he_uniform_with_kerass_fan_in():
    # A conv3d kernel (24, 3, 3) of one channel: sqrt(6 / (24 * 9)) = 1/6.
    torch.manual_seed(0)
    attention = ReleasedSoftAttention(24)
    assert 0.99 / 6 < attention.weight.abs().max() <= 1 / 6
    assert not attention.bias.any()


def test_released_at_one_position_is_the_constant_of_maps():
    features = torch.randn(2, 8, 1, 1)
    attention = ReleasedSoftAttention(8, maps=16)
    torch.testing.assert_close(attention(features), 16 * features)
    attention(features).sum().backward()
    assert not attention.weight.grad.any()


def test_released_needs_three_channels():
    with pytest.raises(ValueError, match="attention=released looks at 3 channels, the cut has 2"):
        ReleasedSoftAttention(2)
