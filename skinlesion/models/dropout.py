"""Dropout that is fast on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """As torch's, with uniform numbers on a CPU.

    There torch draws its Bernoulli numbers one by one, in four times the time.

    Shape:
        any → the same.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, in training some of them zero and the others 1 / (1 - p) times."""
        if values.device.type != "cpu" or not self.training or self.p in (0, 1):
            return super().forward(values)
        # float32 whatever the values are: bfloat16 has 256 numbers between 0 and 1.
        kept = torch.rand_like(values, dtype=torch.float32) >= self.p
        return values * (kept / (1 - self.p)).to(values.dtype)
