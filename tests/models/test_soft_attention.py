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

from skinlesion.models.soft_attention import ReleasedSoftAttention, SoftAttention

GOLDEN = np.load(Path(__file__).parent / "fixtures/soft_attention.npz")


@pytest.fixture(params=["a", "b"], ids=["24 x 7 x 7, 16 maps", "6 x 5 x 8, 4 maps"])
def golden(request):
    """Keras' arrays of a case."""
    return lambda name: torch.from_numpy(GOLDEN[f"{request.param}_{name}"])


def with_keras_weights(kind, golden):
    kernel, bias = golden("keras_kernel")[:, :, :, 0], golden("bias")  # (C, 3, 3, K)
    attention = kind(kernel.shape[0], maps=kernel.shape[-1])
    state = {"weight": kernel.permute(3, 2, 0, 1), "bias": bias}
    if kind is SoftAttention:
        state = {"conv.weight": kernel.permute(3, 0, 1, 2), "conv.bias": bias}
        state["gamma"] = torch.tensor(1.0)
    attention.load_state_dict(state)
    return attention


@pytest.mark.parametrize(
    ("kind", "name", "other"),
    [(SoftAttention, "paper", "released"), (ReleasedSoftAttention, "released", "paper")],
)
def test_maps_and_attended_features_equal_keras(golden, kind, name, other):
    attention, x = with_keras_weights(kind, golden), golden("x")
    torch.testing.assert_close(attention.maps(x), golden(f"{name}_maps"), rtol=0, atol=1e-5)
    attended = attention(x)
    torch.testing.assert_close(attended, golden(f"{name}_attended"), rtol=1e-5, atol=1e-5)
    assert (attended - golden(f"{other}_attended")).abs().max() > 0.1


def test_attended_features_of_two_positions():
    # One channel, one map, whose score at a position is the feature there.
    attention = SoftAttention(1, maps=1, gamma=2)
    with torch.no_grad():
        attention.conv.weight.zero_()
        attention.conv.weight[0, 0, 1, 1] = 1
    # Scores 0 and ln 3: softmax 1/4 and 3/4.
    attended = attention(torch.tensor([[[[0.0, math.log(3)]]]]))
    torch.testing.assert_close(attended, torch.tensor([[[[0.0, 2 * 3 / 4 * math.log(3)]]]]))
    # Without the ReLU before the softmax -5 would weigh less than 0.
    assert attention.maps(torch.tensor([[[[-5.0, 0.0]]]])).tolist() == [[[[0.5, 0.5]]]]


@pytest.mark.parametrize(("kind", "channels"), [(SoftAttention, 9), (ReleasedSoftAttention, 3)])
def test_maps_look_at_every_channel_and_the_released_ones_at_the_first_three(kind, channels):
    torch.manual_seed(0)
    features = torch.rand(1, 9, 4, 4, requires_grad=True)
    kind(9).maps(features)[0, :, 0, 0].sum().backward()
    looked_at = features.grad[0].abs().sum(dim=(1, 2)) > 0
    assert looked_at.tolist() == [True] * channels + [False] * (9 - channels)


@pytest.mark.parametrize(
    ("attention", "constant"),
    [(SoftAttention(8, maps=16, gamma=0.25), 4), (ReleasedSoftAttention(8, maps=16), 16)],
)
def test_at_one_position_attention_is_a_constant(attention, constant):
    features = torch.randn(2, 8, 1, 1)
    torch.testing.assert_close(attention.maps(features), torch.ones(2, 16, 1, 1))
    torch.testing.assert_close(attention(features), constant * features)


@pytest.mark.parametrize("kind", [SoftAttention, ReleasedSoftAttention])
def test_starts_he_uniform_as_released(kind):
    # Within sqrt(6 / fan-in), for both sqrt(6 / (24 * 9)) = 1/6; the bias at zero, gamma at 0.01.
    torch.manual_seed(0)
    assert SoftAttention(24).gamma.item() == pytest.approx(0.01)
    weight, bias = (p for p in kind(24).parameters() if p.ndim)
    assert 0.99 / 6 < weight.abs().max() <= 1 / 6
    assert not bias.any()


def test_released_has_the_authors_parameters_most_without_effect():
    # MobileNetV3Large, 7 x 7 x 960: 138,256 parameters, of which 1,888 are ever used: 3 channels,
    # 13 x 3 positions, 16 maps, and 16 biases.
    attention = ReleasedSoftAttention(960)
    assert sum(p.numel() for p in attention.parameters()) == 138_256
    attention(torch.rand(2, 960, 7, 7)).square().sum().backward()
    used = sum((p.grad != 0).sum().item() for p in attention.parameters())
    assert used <= 3 * 13 * 3 * 16 + 16 == 1_888
    assert used > 1_700  # a ReLU may hide some


def test_released_needs_three_channels():
    with pytest.raises(ValueError, match="attention=released looks at 3 channels, the cut has 2"):
        ReleasedSoftAttention(2)
