"""The loss (paper section 5.1), and its alternatives."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIVISORS = ("batch", "weights")


class _Weighted(nn.Module):
    """A loss whose classes weigh W_c, perhaps by the epoch.

    Args:
        counts: N_c, training samples of each class.
        weight: W_c. `balanced`: N / (C N_c), the paper's; `effective`: the inverse effective number
            of samples (1 - beta) / (1 - beta^N_c), with mean 1 (Cui et al. 2019,
            doi:10.1109/CVPR.2019.00949); a number for each class; None: 1.
        beta: of the effective number of samples, in [0, 1).
        divide_by: `batch`: the sum over a batch by its size (the paper's 1/N, and Keras), so that
            the weights' size scales the gradient; `weights`: by the weights' sum (PyTorch).
        weigh_validation: whether the classes weigh in evaluation mode too; in Keras they do not, so
            that schedule and early stopping follow the plain loss.
        schedule: `from`, `to`, `power`: in epoch e, counted from 0, the weights are W_c^k with
            mean 1; k is 0 up to `from`, `power` ((e - from) / (to - from))^2 and, from `to` on,
            `power` (cumulative learning, Yao et al. 2022, arXiv:2102.01284). None: W_c as it is.

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
        divide_by: str = "batch",
        weigh_validation: bool = False,
        schedule: Mapping[str, float] | None = None,
    ) -> None:
        """Work out the weights."""
        super().__init__()
        if divide_by not in DIVISORS:
            raise ValueError(f"divide_by={divide_by}: expected one of {', '.join(DIVISORS)}")
        if schedule is not None and (
            {*schedule} != {"from", "to", "power"} or not 0 <= schedule["from"] <= schedule["to"]
        ):
            raise ValueError(
                f"schedule={dict(schedule)}: expected from, to and power, epochs 0 <= from <= to"
            )
        self.divide_by, self.weigh_validation, self.schedule = divide_by, weigh_validation, schedule
        self.weight: Tensor  # (C,) of this epoch
        self.register_buffer("weight", _class_weights(counts, weight, beta))
        self.base: Tensor  # (C,) before the schedule
        self.register_buffer("base", self.weight.clone(), persistent=False)
        self.at(0)

    def at(self, epoch: int) -> None:
        """Set the weights of an epoch, counted from 0."""
        if self.schedule is not None:
            begin, end = self.schedule["from"], self.schedule["to"]
            share = 1.0 if epoch >= end else max(epoch - begin, 0) / max(end - begin, 1)
            weight = self.base ** (self.schedule["power"] * share**2)
            self.weight.copy_(weight / weight.mean())

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the weighted losses of the batch as one number."""
        loss = self.each(logits, label)  # (B,)
        if not (self.training or self.weigh_validation):
            return loss.mean()
        weight = self.weight[label]  # (B,)
        divisor = len(label) if self.divide_by == "batch" else weight.sum()
        return (weight * loss).sum() / divisor

    def each(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each sample (B,)."""
        raise NotImplementedError


class CrossEntropy(_Weighted):
    """Cross-entropy whose classes weigh W_c, divided by the batch size.

    Args:
        counts: N_c, training samples of each class.
        focus: exponent of (1 - p), which takes weight from samples that are easy already (focal
            loss, Lin et al. 2017, doi:10.1109/ICCV.2017.324); 0: plain cross-entropy.
        options: `weight`, `beta`, `divide_by`, `weigh_validation`, `schedule` as above.

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(self, counts: Sequence[int], *, focus: float = 0.0, **options: Any) -> None:
        super().__init__(counts, **options)
        if focus < 0:
            raise ValueError(f"focus={focus}: expected a number from 0")
        self.focus = focus

    def each(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return -log p of each sample's class (B,), times (1 - p)^focus."""
        loss = F.cross_entropy(logits, label, reduction="none")  # (B,)
        if self.focus:
            # Kept from 0, where a power below 1 has no finite slope.
            loss = (1 - (-loss).exp()).clamp(min=1e-6) ** self.focus * loss
        return loss


class MultiWeightedLoss(_Weighted):
    """The multi-weighted new loss (Yao et al. 2022, arXiv:2102.01284): a sigmoid for each class.

        l_y = factor W_y mean_j min(BCE(z_j, t_j), -ln clip) exp(-g t_j z_j - g ln(1 + e^-z_j))

    The last factor is (1 - p_j)^g of the sample's own class and p_j^g of the others: what is easy
    loses weight. The clip takes it from what is hopeless, perhaps labelled wrongly.

    Args:
        counts: N_c, training samples of each class.
        focus: g.
        clip: the probability below which a loss grows no further, in (0, 1).
        factor: of the whole.
        options: `weight`, `beta`, `divide_by`, `weigh_validation`, `schedule` as above.

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(
        self,
        counts: Sequence[int],
        *,
        focus: float = 2.0,
        clip: float = 0.1,
        factor: float = 30.0,
        **options: Any,
    ) -> None:
        super().__init__(counts, **options)
        if focus < 0 or not 0 < clip < 1:
            raise ValueError(
                f"focus={focus}, clip={clip}: expected a number from 0, and one between 0 and 1"
            )
        self.focus, self.most, self.factor = focus, -math.log(clip), factor

    def each(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each sample (B,), without its class weight."""
        z = logits.float()  # (B, C)
        t = F.one_hot(label, z.shape[1]).float()  # (B, C)
        loss = F.binary_cross_entropy_with_logits(z, t, reduction="none").clamp(max=self.most)
        easy = (-self.focus * (t * z + F.softplus(-z))).exp()  # (B, C)
        return self.factor * (easy * loss).mean(dim=1)


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
