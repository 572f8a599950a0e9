"""What each switch is worth, and that it changes no result."""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.results import problem
from benchmarks.setting import Rows, Setting, Step, Training, read
from benchmarks.timing import compared, in_subprocess, milliseconds, now
from skinlesion.training.config import Compute


def run(setting: Setting, backbone: str) -> Rows:
    """Flip one switch after the other; on a GPU also at the paper's batch."""
    sizes, seconds, rows = [setting.job(backbone).batch_size], setting.seconds, []
    if setting.device.type == "cuda":
        sizes.append(10)  # the paper's, at which a GPU waits for launches
    for size in sizes:
        words = partial(setting.words, backbone, f"batch_size={size}")
        default = Step(read(words()))
        usual, weights = trained(default), deepcopy(default.module.state_dict())
        for flip in flips(default.compute):
            row: dict[str, Any] = {"batch": size, "flipped to": flip}
            try:
                began = now()
                if flip.startswith("data.resident"):
                    recipe = ("augment=datta", "scheduler=none")
                    both = [Training(read(words(*recipe, *more))) for more in ([], [flip])]
                    sides = [partial(training.milliseconds, seconds) for training in both]
                elif flip.startswith("machine.retain_memory"):
                    child = partial(in_subprocess, step_milliseconds)
                    sides = [partial(child, words(*more), seconds) for more in ([], [flip])]
                else:
                    step = Step(read(words(flip)))
                    apart = (usual - trained(step)).abs().max()
                    row |= {"ready, s": now() - began, "apart after 5 steps": float(apart)}
                    step.module.load_state_dict(weights)
                    apart = (usual - step.predict(step.batch)).abs().max()
                    row |= {"apart, same weights": float(apart)}
                    sides = [partial(milliseconds, side, seconds) for side in (default, step)]
                row |= compared(dict(zip(("default, ms", "flipped, ms"), sides, strict=True)))
                torch.compiler.reset()  # or the graphs would stay in the GPU's memory
            except (MemoryError, RuntimeError) as error:
                compiled = flip.startswith("machine.compile")  # which may lack a compiler
                row |= {"problem": str(error).partition("\n")[0] if compiled else problem(error)}
            rows.append(row)
    return rows


def flips(compute: Compute) -> list[str]:
    """Return the switches that training knows on a device, each with its other value or values."""
    on_gpu = compute.device == "cuda"
    names = ("channels_last", "fused", "tf32" if on_gpu else "retain_memory")
    modes = ["default", "reduce-overhead"] if on_gpu else ["default"]
    resident = on_gpu if compute.resident is None else compute.resident
    return [
        f"precision={'bf16-mixed' if compute.precision == '32-true' else '32-true'}",
        *(f"machine.{name}={not getattr(compute, name)}".lower() for name in names),
        *(f"machine.compile={mode}" for mode in (["null"] if compute.compile else modes)),
        f"data.resident={not resident}".lower(),
    ]


def trained(step: Step) -> Tensor:
    """Take the first steps; return the probabilities that the network then gives their batch."""
    torch.manual_seed(0)
    for _ in range(5):
        step()
    return step.predict(step.batch)


def step_milliseconds(words: list[str], seconds: float) -> float:
    """Return the milliseconds of a job's training step."""
    return milliseconds(Step(read(words)), seconds)
