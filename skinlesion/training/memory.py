"""Memory: what a run on a CPU keeps of it, and how many images fit into a GPU's."""

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from skinlesion.data.module import LesionDataset
from skinlesion.data.samples import Samples
from skinlesion.training.config import Compute
from skinlesion.training.module import LesionModule

MADV_HUGEPAGE = 14  # of Linux
HEAP = 4 * 2**30  # bytes that are asked for in huge pages; a step of 128 images needs about as many

MOST_ON_GPU = 1024  # images a step of evaluation: more gain nothing


@cache  # it holds for the rest of the process
def retain_memory() -> None:
    """Let glibc keep freed memory, and have it in huge pages, where it is the C library.

    Otherwise each large tensor of a step is mapped and unmapped, and the kernel fills its pages
    with zeros anew: 63,000 page faults in a step of MobileNetV3Small at batch 32.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: take nothing from mmap
    libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: give nothing back
    libc.mallopt(-2, 256 * 2**20)  # M_TOP_PAD: grow by this many bytes
    # Addresses that the heap has from now on; memory is behind those that are written to.
    page = os.sysconf("SC_PAGE_SIZE")
    size = min(HEAP, os.sysconf("SC_PHYS_PAGES") * page // 2)
    libc.malloc.restype = ctypes.c_void_p
    heap = libc.malloc(ctypes.c_size_t(size))
    if heap is not None:
        start = -(-heap // page) * page
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(heap + size - start), MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(heap))


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
