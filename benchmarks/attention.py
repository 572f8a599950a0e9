"""What soft attention and the head cost."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.setting import Rows, Setting, Step
from benchmarks.timing import compared, milliseconds


def run(setting: Setting, backbone: str) -> Rows:
    """Time the step with attention, without, and what follows the backbone alone."""
    with_, without = (
        Step(setting.job(backbone, f"attention={choice}")) for choice in ("paper", "none")
    )
    whole, bare, alone = (
        partial(milliseconds, step, setting.seconds) for step in (with_, without, head_step(with_))
    )
    rows = {
        "with attention ÷ without": compared({"first, ms": whole, "second, ms": bare}),
        "attention and head ÷ the step": compared({"first, ms": alone, "second, ms": whole}),
    }
    return [{"what": what, "batch": with_.job.batch_size} | row for what, row in rows.items()]


def head_step(step: Step) -> Callable[[], None]:
    """Return forward and backward, to the feature map, of all that follows the backbone."""
    network: Any = step.module.network
    head = copy.copy(network)  # of the same weights, with the feature map in the image's place
    head._modules = network._modules | {"backbone": nn.Identity()}
    with torch.no_grad(), step.compute.autocast():
        t = network.backbone(step.batch["image"])  # (B, C, h, w)
    t.requires_grad_()

    def forward_and_backward() -> None:
        for tensor in (t, *head.parameters()):
            tensor.grad = None
        with step.compute.autocast():
            logits = head(t, step.batch["metadata"])  # (B, classes)
        logits.backward(torch.ones_like(logits))

    return forward_and_backward
