"""Soft attention (paper section 4.2; Datta et al. 2021, arXiv:2105.03358).

    f_sa = gamma * t * sum_k softmax(relu(W_k * t + b_k))        k = 1 … K

The softmax runs over the h x w positions of each map. The paper's formula leaves out the ReLU and
the bias, which Datta et al. and the released code have; gamma starts at 0.01 in Datta et al.
"""

import torch
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
        """Create the convolution (He uniform, as released) and the scalar."""
        super().__init__()
        if maps < 1:
            raise ValueError(f"attention.maps={maps}: expected at least 1")
        self.conv = nn.Conv2d(channels, maps, kernel_size=3, padding=1)
        nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.gamma = nn.Parameter(torch.tensor(float(gamma)))

    def maps(self, features: Tensor) -> Tensor:
        """Return the K attention maps (B, K, h, w); each sums to 1 over its positions."""
        scores = self.conv(features).relu()  # (B, K, h, w)
        return scores.flatten(2).softmax(dim=2).view_as(scores)  # (B, K, h, w)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, C, h, w) weighted by gamma times the sum of the maps."""
        alpha = self.maps(features).sum(dim=1, keepdim=True)  # (B, 1, h, w), sums to K
        return self.gamma * alpha * features  # (B, C, h, w)
