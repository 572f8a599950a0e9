"""Time and memory, so that only what was measured side by side is compared."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

LEAST_ROUNDS = 3
STATUS = Path("/proc/self/status")


def now() -> float:
    """Return the time in seconds, after the device has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(
    functions: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    seconds: float = 60,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Time functions in turn, round by round (A B A B), so that what slows one slows the others.

    Args:
        functions: by name; one that returns a float has measured something by itself.
        rounds: at most so many, and at least three.
        seconds: no further round begins that would end after them.
        warm_up: whether to call each once before, unmeasured.

    Returns:
        For each name its seconds, or what it returned, a round each.
    """
    if warm_up:
        for function in functions.values():
            function()
    measured: dict[str, list[float]] = {name: [] for name in functions}
    began = now()
    for done in range(max(rounds, LEAST_ROUNDS)):
        if done >= LEAST_ROUNDS and (now() - began) * (done + 1) / done > seconds:
            break
        for name, function in functions.items():
            started = now()
            returned = function()
            taken = now() - started
            measured[name].append(returned if isinstance(returned, float) else taken)
    return measured


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median of the rounds' ratios, and the lowest and the highest of them."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(ratios), [min(ratios), max(ratios)]


def repeated(step: Callable[[], object], times: int) -> float:
    """Return the seconds that a step takes, in the mean of so many, one after another."""
    started = now()
    for _ in range(times):
        step()
    return (now() - started) / times


def affordable(step: Callable[[], object], seconds: float, least: int, most: int) -> int:
    """Return how often a step can be taken in so many seconds, from `least` to `most` times."""
    step()
    return min(max(int(seconds / repeated(step, 1)), least), most)


def owned_memory() -> int:
    """Return the bytes that the process owns; pages of mapped files are the kernel's.

    Returns:
        0 where there is no Linux.
    """
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


class PeakMemory:
    """Samples `owned_memory` while its block runs.

    Attributes:
        before: bytes at the start.
        peak: the most bytes that were seen.
    """

    def __init__(self, interval: float = 0.01) -> None:
        """Sample every `interval` seconds."""
        self.interval = interval
        self.before = self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        """Begin."""
        self.before = self.peak = owned_memory()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look a last time."""
        self._over.set()
        self._thread.join()
        self.peak = max(self.peak, owned_memory())

    def _sample(self) -> None:
        while not self._over.wait(self.interval):
            self.peak = max(self.peak, owned_memory())
