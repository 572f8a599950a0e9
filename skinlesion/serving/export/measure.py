"""What an exported file is worth: its accuracy on held-out images, and how long one image takes."""

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from skinlesion.evaluation.metrics import evaluate
from skinlesion.serving.export.runtimes import Runtime
from skinlesion.serving.export.trial import Images

BATCH = 32
WARM_UP = 5  # calls before the clock is looked at

Key = TypeVar("Key", bound=Hashable)


def predict_all(run: Runtime, images: Images, title: str) -> NDArray[np.float64]:
    """Return the probabilities (N, C) of all images, with a progress bar."""
    starts = range(0, len(images), BATCH)
    found = [
        run(*images.batch(start, start + BATCH)).probabilities
        for start in tqdm(starts, title, unit="batch", disable=None)
    ]
    probabilities = np.concatenate(found).astype(np.float64)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def quality(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Return n, accuracy, balanced accuracy and each class's recall.

    Args:
        labels: (N,) true classes.
        probabilities: (N, C).
        classes: names, in order.
    """
    measured = evaluate(labels, probabilities, classes)
    kept = {name: measured[name] for name in ("n", "accuracy", "balanced_accuracy")}
    recall = {label: values["recall"] for label, values in measured["per_class"].items()}
    return kept | {"recall": recall}


def latencies(
    calls: Mapping[Key, Callable[[], object]], repeats: int
) -> dict[Key, dict[str, float | int]]:
    """Return how long each call takes, in milliseconds: `median`, `q25`, `q75`, `repeats`.

    The calls take turns, so that what else the machine does meets all alike. torch computes with
    one thread meanwhile.

    Args:
        calls: by name.
        repeats: how often each is called, after a few calls that do not count.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for call in calls.values():
            for _ in range(WARM_UP):
                call()
        seconds: dict[Key, list[float]] = {name: [] for name in calls}
        for _ in tqdm(range(repeats), "timing", unit="round", disable=None):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    found = {}
    for name, values in seconds.items():
        low, middle, high = 1000 * np.quantile(values, [0.25, 0.5, 0.75])
        found[name] = {
            "median": float(middle),
            "q25": float(low),
            "q75": float(high),
            "repeats": repeats,
        }
    return found


def megabytes(path: Path) -> float:
    """Return a file's size in MB of 10^6 bytes."""
    return path.stat().st_size / 1e6
