"""One process, one GPU: runs that share a machine each take a GPU that nobody has."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def own_gpu() -> Iterator[int]:
    """Hold one of the machine's GPUs, and yield its index.

    Jobs of a sweep under a parallel launcher, and sweeps started side by side, so spread over the
    GPUs by themselves.
    """
    import torch

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
