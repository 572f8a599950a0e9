"""One process, one GPU, which nobody else has; and how many images fit into it."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from skinlesion.data.samples import LesionDataset, Samples
from skinlesion.training.config import Compute
from skinlesion.training.module import LesionModule

MOST_ON_GPU = 1024  # images a step of evaluation: more gain nothing

log = logging.getLogger(__name__)


@contextmanager
def own_gpu() -> Iterator[int]:
    """Hold one of the machine's GPUs, and yield its index.

    Jobs of a sweep under a parallel launcher, and sweeps started side by side, so spread over the
    GPUs by themselves.
    """
    count = torch.cuda.device_count()
    names = [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]
    with take_one(names, Path(tempfile.gettempdir())) as index:
        yield index


@contextmanager
def take_one(names: Sequence[str], folder: Path, pause: float = 2.0) -> Iterator[int]:
    """Hold the first thing that no other process holds, waiting until there is one.

    Args:
        names: what to choose from, the same for every process.
        folder: where the locks are; one dies with its process, however that ends.
        pause: seconds between attempts.

    Yields:
        The position in `names`.
    """
    waiting = False
    while True:
        for index, name in enumerate(names):
            lock = FileLock(folder / f"skinlesion-gpu-{name}.lock", timeout=0, mode=0o666)
            try:
                lock.acquire()
            except Timeout:
                continue
            try:
                yield index
            finally:
                lock.release()
            return
        if not waiting:
            log.info("all %d GPUs are taken by other runs; waiting for one", len(names))
            waiting = True
        time.sleep(pause)


def evaluation_batch(
    module: LesionModule, samples: Samples, compute: Compute, device: torch.device
) -> int:
    """Return how many images a step of validation and prediction takes on this device."""
    one = LesionDataset(samples).__getitems__([(0, 0)])
    module.to(device).eval()

    @torch.inference_mode()
    def attempt(images: int) -> None:
        batch = {name: value.to(device).repeat_interleave(images, 0) for name, value in one.items()}
        with compute.autocast():
            module.logits(batch)

    try:
        return largest_batch(attempt)
    finally:
        module.train()


def largest_batch(attempt: Callable[[int], Any], most: int = MOST_ON_GPU) -> int:
    """Return half of the largest batch that fits, to leave room for what training keeps.

    Args:
        attempt: runs a batch of so many images.
        most: the first attempt; halved while memory runs out.

    Raises:
        torch.OutOfMemoryError: if not even two images fit.
    """
    while True:
        try:
            attempt(most)
        except torch.OutOfMemoryError:
            if most <= 2:
                raise
            most //= 2
        else:
            return most // 2
