"""(d) What soft attention and the head cost of the training step of their backbone."""

import copy
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting, Step
from skinlesion.bench.timing import affordable, in_turn, ratio, repeated
from skinlesion.models.classifier import Classifier
from skinlesion.training.compute import resolve

ROUNDS, SECONDS = 7, 60
TARGET = 0.05


def run(setting: Setting, backbone: str) -> Rows:
    """Time the step with attention, without, and what follows the backbone alone, in turn."""
    config = setting.job(backbone, "attention=paper")
    resolve(config).apply()
    attended = setting.steps(config)
    plain = setting.steps(setting.job(backbone, "attention=none"))
    plain.batch = attended.batch
    head, shape = head_step(attended)
    steps = affordable(attended, SECONDS / ROUNDS / 3, 1, 100)
    measured = in_turn(
        {
            "paper": lambda: repeated(attended, steps),
            "none": lambda: repeated(plain, steps),
            "head": lambda: repeated(head, steps),
        },
        rounds=ROUNDS,
        seconds=SECONDS,
    )
    times, spread = ratio(measured["paper"], measured["none"])
    share, shares = ratio(measured["head"], measured["paper"])
    return [
        {
            "batch": config.batch_size,
            "map": " x ".join(map(str, shape)),
            "steps": f"{len(measured['paper'])} x {steps}",
            **{name: median(seconds) for name, seconds in measured.items()},
            "ratio": times,
            "spread": spread,
            "share": share,
            "shares": shares,
            "target": TARGET,
        }
    ]


def head_step(step: Step) -> tuple[Callable[[], None], tuple[int, ...]]:
    """Return forward and backward of all that follows the backbone, and the shape of its input.

    Args:
        step: a training step, whose weights, batch and precision are taken.

    Returns:
        The function, and (h, w, C). It gives the gradient of the feature map too, on which the
        backbone's own backward pass waits.
    """
    network, batch = step.module.network, step.batch
    assert isinstance(network, Classifier)
    head, metadata = head_of(network), batch["metadata"]
    with torch.no_grad(), step.compute.autocast():
        features = network.backbone(batch["image"])  # (B, C, h, w)
    t = features.requires_grad_()

    def forward_and_backward() -> None:
        for tensor in (t, *head.parameters()):
            tensor.grad = None
        with step.compute.autocast():
            logits = head(t, metadata)  # (B, classes)
        logits.backward(torch.ones_like(logits))

    channels, height, width = features.shape[1:]
    return forward_and_backward, (height, width, channels)


def head_of(network: Classifier) -> Classifier:
    """Return a network of the same weights that takes the feature map in the image's place."""
    head = copy.copy(network)
    head._modules = {**network._modules, "backbone": nn.Identity()}
    return head


MEASUREMENT = Measurement(
    name="attention",
    title="What attention and head cost",
    how="Seconds of the training step with soft attention ÷ without it. The share is forward and "
    "backward of all that follows the backbone (attention, pooling, dropout, metadata, dense) on a "
    "feature map ÷ the step with attention.",
    columns={
        "batch": "batch",
        "map": "feature map",
        "steps": "rounds x steps",
        "paper": "step with attention, s",
        "none": "step without, s",
        "ratio": "with ÷ without",
        "spread": "lowest, highest",
        "head": "attention and head alone, s",
        "share": "share of the step",
        "shares": "lowest, highest share",
        "target": "wanted below",
    },
    each=True,
    run=run,
)
