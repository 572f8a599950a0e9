"""Adam as Keras computes it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch


class KerasAdam(torch.optim.Adam):
    """Adam whose epsilon stands inside the bias-corrected step.

        Keras     w -= lr √(1 - β2^t) / (1 - β1^t) · m / (√v + ε)
        PyTorch   w -= lr / (1 - β1^t) · m / (√(v / (1 - β2^t)) + ε)

    The two are equal but for the size of ε: Keras' is PyTorch's divided by √(1 - β2^t). That is 32
    times as much in the first step and 1.6 times in the thousandth, which nobody notices at 1e-8;
    at the paper's 0.1, larger than most gradients, it holds the first epochs back (Kingma and Ba
    2015, arXiv:1412.6980, have both: algorithm 1, and the note before section 2.1).

    Args:
        params: as for `torch.optim.Adam`.
        eps: Keras' epsilon.
        fused: whether the step is one kernel.
        options: further options of `torch.optim.Adam`.
    """

    def __init__(
        self, params: Iterable[Any], eps: float = 1e-7, fused: bool | None = None, **options: Any
    ) -> None:
        """Keep Keras' epsilon beside the one that each step is given."""
        super().__init__(params, eps=eps, fused=fused, **options)
        for group in self.param_groups:
            group |= {"keras_eps": eps, "steps": 0}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take PyTorch's step with this step's epsilon."""
        for group in self.param_groups:
            group["steps"] += 1
            correction = 1 - group["betas"][1] ** group["steps"]
            group["eps"] = group["keras_eps"] / correction**0.5
        return super().step(closure)
