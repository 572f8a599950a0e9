"""What each switch of conf/compute is worth on this device, and that it changes no result."""

import statistics
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch

from skinlesion.bench.pipeline import Training
from skinlesion.bench.process import Fresh
from skinlesion.bench.results import Measurement, Rows, problem
from skinlesion.bench.setting import Setting, Step
from skinlesion.bench.timing import affordable, in_turn, ratio, repeated
from skinlesion.models.turned import turnable
from skinlesion.training.compute import Compute, resolve

SECONDS, ROUNDS = 20, 5  # of a switch
LEAST_STEPS, MOST_STEPS = 2, 50
TRAINED = 5  # steps from the same seed, after which probabilities are compared
PAPERS_BATCH = 10  # at which a GPU waits for launches

Row = dict[str, Any]


def run(setting: Setting, backbone: str) -> Rows:
    """Flip one switch after the other; on a GPU also at the paper's batch."""
    batches = [setting.job(backbone).batch_size]
    if setting.device.type == "cuda":
        batches.append(PAPERS_BATCH)
    return [row for batch in batches for row in _block(setting, backbone, f"batch_size={batch}")]


def flips(compute: Compute, turnable: bool) -> list[tuple[str, str]]:
    """Return the switches that training knows on a device, each with its other value or values.

    Args:
        compute: the device's defaults.
        turnable: whether the backbone can compute on turned images.
    """
    on_gpu = compute.device == "cuda"
    resident = on_gpu if compute.resident is None else compute.resident
    names = ["channels_last", "fused", "tf32" if on_gpu else "retain_memory"]
    names += ["turned"] * turnable
    other = [(f"compute.{name}", str(not getattr(compute, name)).lower()) for name in names]
    modes = ["default", "reduce-overhead"] if on_gpu else ["default"]
    if compute.compile is not None:
        modes = ["null"]
    return [
        ("compute.precision", "bf16-mixed" if compute.precision == "32-true" else "32-true"),
        *other,
        *(("compute.compile", mode) for mode in modes),
        ("data.resident", str(not resident).lower()),
    ]


def _block(setting: Setting, backbone: str, size: str) -> Rows:
    config = setting.job(backbone, size)
    compute = resolve(config)
    compute.apply()
    default = setting.steps(config)
    _, usual = _trained(default)
    weights = deepcopy(default.module.state_dict())
    steps = affordable(default, SECONDS / ROUNDS / 2, LEAST_STEPS, MOST_STEPS)
    rows = []
    for key, value in flips(compute, _turnable(default)):
        choice = (setting, backbone, size, f"{key}={value}")
        row = {"batch": config.batch_size, "switch": f"{key}={value}"}
        try:
            if key == "data.resident":
                row |= _training(*choice)
            elif key == "compute.retain_memory":
                row |= _in_processes(steps, *choice)
            else:
                row |= _step(default, weights, usual, steps, *choice)
        except (MemoryError, RuntimeError) as error:
            if key == "compute.compile":  # which may lack a compiler
                row["problem"] = str(error).strip().partition("\n")[0]
            else:
                row["problem"] = problem(error)
        rows.append(row)
    return rows


def _turnable(step: Step) -> bool:
    backbone: Any = step.module.network.backbone
    return backbone.turned or turnable(backbone.trunk)


def _step(
    default: Step,
    weights: dict[str, Any],
    usual: np.ndarray,
    steps: int,
    setting: Setting,
    backbone: str,
    *overrides: str,
) -> Row:
    """Compare the step with a flipped switch, in this process."""
    step = setting.steps(setting.job(backbone, *overrides))
    step.compute.apply()
    first, trained = _trained(step)
    step.module.load_state_dict(weights)
    same = step.probabilities().numpy()
    row = _row(partial(_seconds, default, steps), partial(_seconds, step, steps))
    default.compute.apply()
    if step.compute.compile is not None:
        torch._dynamo.reset()  # or the graphs would stay in the GPU's memory
        row["first"] = first
    return row | {"same": _difference(usual, same), "trained": _difference(usual, trained)}


def _in_processes(steps: int, setting: Setting, backbone: str, size: str, flip: str) -> Row:
    """Compare processes of their own, as the switch cannot be taken back."""
    with (
        Fresh(_prepare, setting, backbone, steps, size) as default,
        Fresh(_prepare, setting, backbone, steps, size, flip) as other,
    ):
        difference = _difference(default("probabilities"), other("probabilities"))
        row = _row(partial(default, "seconds"), partial(other, "seconds"))
    return row | {"trained": difference}


def _prepare(setting: Setting, backbone: str, steps: int, *overrides: str) -> Callable[[str], Any]:
    config = setting.job(backbone, *overrides)
    resolve(config).apply()
    step = setting.steps(config)

    def measure(what: str) -> Any:
        if what == "seconds":
            return _seconds(step, steps)
        return _trained(step)[1]

    return measure


def _training(setting: Setting, backbone: str, size: str, flip: str) -> Row:
    """Compare training with augmentation, as the switch is none of the step alone."""
    overrides = (size, "augment=datta", "scheduler=none")
    configs = [setting.job(backbone, *overrides), setting.job(backbone, *overrides, flip)]
    default, other = (Training(config, setting.samples(config)) for config in configs)
    most = min(default.most, other.most, MOST_STEPS)
    steps = affordable(
        setting.steps(configs[0]), SECONDS / ROUNDS / 2, min(2 * LEAST_STEPS, most), most
    )
    row = _row(
        partial(default.seconds_per_step, steps),
        partial(other.seconds_per_step, steps),
    )
    return row | {"switch": f"{flip}, training with augment=datta"}


def _trained(step: Step) -> tuple[float, np.ndarray]:
    """Take the first steps; return the seconds of the first, and what the network then says."""
    torch.manual_seed(0)
    first = repeated(step, 1)
    for _ in range(TRAINED - 1):
        step()
    return first, step.probabilities().numpy()


def _seconds(step: Step, steps: int) -> float:
    step.compute.apply()
    step()
    return repeated(step, steps)


def _row(default: Callable[[], float], flipped: Callable[[], float]) -> Row:
    measured = in_turn({"default": default, "flipped": flipped}, rounds=ROUNDS, seconds=SECONDS)
    times, spread = ratio(measured["default"], measured["flipped"])
    return {
        "default": 1000 * statistics.median(measured["default"]),
        "flipped": 1000 * statistics.median(measured["flipped"]),
        "ratio": times,
        "spread": spread,
    }


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


MEASUREMENT = Measurement(
    name="switches",
    title="Switches",
    how="The training step as the device's defaults have it ÷ with one switch flipped, in turn: "
    "below 1 the default is faster. The differences are the largest between the probabilities "
    "that the two give for the same images: with the same weights, and after "
    f"{TRAINED} steps each from the same seed (compiled, dropout draws other numbers).",
    columns={
        "batch": "batch",
        "switch": "flipped to",
        "default": "default, ms",
        "flipped": "flipped, ms",
        "ratio": "default ÷ flipped",
        "spread": "lowest to highest",
        "first": "first step, s",
        "same": "difference, same weights",
        "trained": f"difference after {TRAINED} steps",
    },
    each=True,
    run=run,
)
