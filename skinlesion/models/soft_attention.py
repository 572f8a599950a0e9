"""Soft attention (paper section 4.2; Datta et al. 2021, arXiv:2105.03358).

    f_sa = gamma * t * sum_k softmax(relu(W_k * t + b_k))        k = 1 … K

The softmax runs over the h x w positions of each map. The paper's formula leaves out the ReLU and
the bias, which Datta et al. and the released code have; gamma starts at 0.01 in Datta et al.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SoftAttention(nn.Module):
    """K attention maps from a 3x3 convolution over all channels, summed, times the features.

    Args:
        channels: C, the channels of the feature map.
        maps: K, the number of attention maps (paper: 16).
        gamma: starting value of the learnable scalar.

    Shape:
        features (B, C, h, w) → attended (B, C, h, w), of any spatial size.
    """

    def __init__(self, channels: int, maps: int = 16, gamma: float = 0.01) -> None:
        super().__init__()
        if maps < 1:
            raise ValueError(f"attention.maps={maps}: expected at least 1")
        self.conv = nn.Conv2d(channels, maps, kernel_size=3, padding=1)
        nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")  # as released
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.gamma = nn.Parameter(torch.tensor(float(gamma)))

    def maps(self, features: Tensor) -> Tensor:
        """Return the K attention maps (B, K, h, w); each sums to 1 over its positions."""
        return over_positions(self.conv(features))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, C, h, w) weighted by gamma times the sum of the maps."""
        alpha = self.maps(features).sum(dim=1, keepdim=True)  # (B, 1, h, w), sums to K
        return self.gamma * alpha * features  # (B, C, h, w)


class ReleasedSoftAttention(nn.Module):
    """Soft attention as the authors' code runs it: a conv3d over (h, w, channels) with stride C.

    1. The kernel spans C along the height, 3 along the width and 3 along the channels, where the
       paper has 3 x 3 x C: the maps see only the first three channels, and almost all of the kernel
       lies outside of the image. There is no gamma.
    2. At a 1 x 1 feature map the attention is the constant K (16), whatever the image.
    3. It costs as many parameters as the paper's (9 C K + K), most without effect.

    Args:
        channels: C, the channels of the feature map, at least 3.
        maps: K, the number of attention maps (authors: 16).

    Shape:
        features (B, C, h, w) → attended (B, C, h, w), of any spatial size.
    """

    def __init__(self, channels: int, maps: int = 16) -> None:
        super().__init__()
        if maps < 1:
            raise ValueError(f"attention.maps={maps}: expected at least 1")
        if channels < 3:
            raise ValueError(f"attention=released looks at 3 channels, the cut has {channels}")
        # (K, 3 channels, C high, 3 wide): Keras' (C, 3, 3, 1, K), axes 3 and 2 first
        self.weight = nn.Parameter(torch.empty(maps, 3, channels, 3))
        self.bias = nn.Parameter(torch.zeros(maps))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def maps(self, features: Tensor) -> Tensor:
        """Return the K attention maps (B, K, h, w); each sums to 1 over its positions."""
        height, tall = features.shape[2], self.weight.shape[2]
        middle = (tall - 1) // 2  # the kernel's row that meets an output's own row ("same")
        # Rows that meet nothing but padding are left out.
        first, last = max(middle - height + 1, 0), min(middle + height - 1, tall - 1)
        padded = F.pad(features[:, :3], (1, 1, middle - first, last - middle))
        return over_positions(F.conv2d(padded, self.weight[:, :, first : last + 1], self.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, C, h, w) weighted by the sum of the maps."""
        return self.maps(features).sum(dim=1, keepdim=True) * features  # (B, C, h, w)


def over_positions(scores: Tensor) -> Tensor:
    """Return scores (B, K, h, w) after a ReLU as a softmax over the positions of each map."""
    scores = scores.relu()
    return scores.flatten(2).softmax(dim=2).view_as(scores)  # (B, K, h, w)
