"""The loss (paper section 5.1), and its alternatives."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIVISORS = ("batch", "weights")


class CrossEntropy(nn.Module):
    """Cross-entropy whose classes weigh W_c, divided by the batch size.

    Args:
        counts: N_c, training samples of each class.
        weight: W_c. `balanced`: N / (C N_c), the paper's; `effective`: the inverse effective number
            of samples (1 - beta) / (1 - beta^N_c), with mean 1 (Cui et al. 2019,
            doi:10.1109/CVPR.2019.00949); a number for each class; None: 1.
        beta: of the effective number of samples, in [0, 1).
        focus: exponent of (1 - p), which takes weight from samples that are easy already (focal
            loss, Lin et al. 2017, doi:10.1109/ICCV.2017.324); 0: plain cross-entropy.
        divide_by: `batch`: the sum over a batch by its size (the paper's 1/N, and Keras), so that
            the weights' size scales the gradient; `weights`: by the weights' sum (PyTorch).
        weigh_validation: whether the classes weigh in evaluation mode too; in Keras they do not, so
            that schedule and early stopping follow the plain loss.

    Shape:
        logits (B, C), label (B,) → scalar.

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(
        self,
        counts: Sequence[int],
        weight: str | Sequence[float] | None = "balanced",
        beta: float = 0.999,
        focus: float = 0.0,
        divide_by: str = "batch",
        weigh_validation: bool = False,
    ) -> None:
        """Work out the weights."""
        super().__init__()
        if divide_by not in DIVISORS:
            raise ValueError(f"divide_by={divide_by}: expected one of {', '.join(DIVISORS)}")
        if focus < 0:
            raise ValueError(f"focus={focus}: expected a number from 0")
        self.focus, self.divide_by, self.weigh_validation = focus, divide_by, weigh_validation
        self.weight: Tensor  # (C,)
        self.register_buffer("weight", _class_weights(counts, weight, beta))

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the weighted losses of the batch as one number."""
        loss = F.cross_entropy(logits, label, reduction="none")  # (B,), -log p
        if self.focus:
            # Kept from 0, where a power below 1 has no finite slope.
            loss = (1 - (-loss).exp()).clamp(min=1e-6) ** self.focus * loss
        if not (self.training or self.weigh_validation):
            return loss.mean()
        weight = self.weight[label]  # (B,)
        divisor = len(label) if self.divide_by == "batch" else weight.sum()
        return (weight * loss).sum() / divisor


def _class_weights(
    counts: Sequence[int], weight: str | Sequence[float] | None, beta: float
) -> Tensor:
    counted = torch.tensor(counts, dtype=torch.double)
    classes = len(counts)
    if weight is None:
        weights = torch.ones(classes)
    elif weight == "balanced":
        weights = counted.sum() / (classes * counted)
    elif weight == "effective":
        if not 0 <= beta < 1:
            raise ValueError(f"beta={beta}: expected a number from 0, below 1")
        inverse = (1 - beta) / (1 - beta**counted)
        weights = inverse * classes / inverse.sum()
    elif isinstance(weight, str):
        raise ValueError(
            f"weight={weight}: expected balanced, effective, null or a number for each class"
        )
    else:
        weights = torch.tensor([*weight], dtype=torch.double)
        if len(weights) != classes or not (weights > 0).all():
            raise ValueError(f"weight={[*weight]}: expected {classes} numbers above 0")
    return weights.float()
