"""The loss (paper section 5.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Cross-entropy whose classes weigh W_c = N / (C N_c), divided by the batch size.

    PyTorch's own `weight` divides by the sum of the batch's weights instead, which takes the
    weights' size out of the gradient; the paper's 1/N, and Keras, do not.

    Args:
        counts: N_c, training samples of each class.
        balanced: False for W_c = 1.

    Shape:
        logits (B, C), label (B,) → scalar.
    """

    def __init__(self, counts: Sequence[int], balanced: bool = True) -> None:
        """Work out the weights."""
        super().__init__()
        counted = torch.tensor(counts, dtype=torch.float)
        weight = counted.sum() / (len(counts) * counted) if balanced else torch.ones(len(counts))
        self.weight: Tensor
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean over the batch of the weighted losses."""
        return F.cross_entropy(logits, label, weight=self.weight, reduction="sum") / len(label)
