"""Timing side by side, and in processes of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from statistics import median
from typing import Any

import torch
from torch.utils.benchmark import Measurement, Timer

from skinlesion.cli import CONF

ROUNDS = 3


def now() -> float:
    """Return the time in seconds, after the device has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(function: Callable[[], object], seconds: float) -> Measurement:
    """Call a function for so many seconds, at least once after a call to warm up."""
    names, threads = {"function": function}, torch.get_num_threads()
    timer = Timer("function()", globals=names, num_threads=threads)
    return timer.blocked_autorange(min_run_time=seconds)


def milliseconds(function: Callable[[], object], seconds: float) -> float:
    """Return the mean of the calls that so many seconds hold."""
    return 1e3 * timed(function, seconds).mean


def compared(sides: Mapping[str, Callable[[], float]]) -> dict[str, Any]:
    """Measure two things in turn (A B A B), so that what slows one slows the other too."""
    return summary([*sides], [[side() for side in sides.values()] for _ in range(ROUNDS)])


def summary(names: Sequence[str], rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the median of each, by name, and of the rounds' ratios, their lowest and highest."""
    ratios = [one / other for one, other in rounds]
    medians = {name: median(numbers[i] for numbers in rounds) for i, name in enumerate(names)}
    return medians | {"ratio": median(ratios), "lowest to highest": [min(ratios), max(ratios)]}


def in_subprocess(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, in JSON, in a process of its own, for settings that it cannot take back."""
    words = [function.__module__, function.__qualname__, json.dumps(arguments)]
    return json.loads(python("-m", "benchmarks.timing", *words).splitlines()[-1])


def python(*words: str) -> str:
    """Return what Python prints when it is called with these words, as train.py and its options."""
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CONF.parent)
    if done.returncode < 0:
        raise MemoryError(f"{' '.join(words)} was ended by signal {-done.returncode}")
    if done.returncode > 0:
        raise RuntimeError((done.stderr.strip() or "no message").splitlines()[-1])
    return done.stdout


if __name__ == "__main__":
    module, name, given = sys.argv[1:]
    print(json.dumps(getattr(import_module(module), name)(*json.loads(given))))
