"""How a run is computed: device, precision, memory format, fusion, compilation.

Each is a choice (conf/machine/); null is what was measured to be fastest on the device
(docs/performance.md).
"""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from skinlesion.training.config import Job

# Backbones whose step bfloat16 makes faster on a CPU that multiplies it in hardware. The others
# have depthwise convolutions, whose backward pass it makes up to five times slower.
BF16_ON_CPU = ("densenet201", "inception_resnet_v2", "resnet50", "resnet152", "vgg16")
EVALUATION_BATCH_ON_CPU = 32
MOST_ON_GPU = 1024  # images a step of evaluation: more gain nothing
MADV_HUGEPAGE = 14  # of Linux
HEAP = 4 * 2**30  # bytes that are asked for in huge pages; a step of 128 images needs about as many


@dataclass(frozen=True)
class Compute:
    """How a run is computed.

    Attributes:
        device: `cuda`, `mps` or `cpu`.
        precision: Lightning's word, `32-true` or `bf16-mixed`.
        channels_last: whether images and feature maps have their channels last in memory.
        rotated: whether backbones padded as in TensorFlow compute on images rotated by 180 degrees,
            see `skinlesion.models.rotated`.
        fused: whether the optimizer's step is one kernel.
        compile: mode of torch.compile; None: eager.
        tf32: whether a GPU may round the factors of float32 products to 10 bits.
        retain_memory: whether freed memory stays with the process, in huge pages.
        evaluation_batch: images a step of validation and prediction; None: as many as fit.
        resident: whether all images live on the device; None: if they fit into half of its memory
            that is free.
    """

    device: str
    precision: str
    channels_last: bool
    rotated: bool
    fused: bool
    compile: str | None
    tf32: bool
    retain_memory: bool
    evaluation_batch: int | None
    resident: bool | None

    def apply(self) -> None:
        """Set what holds for the whole process."""
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.retain_memory:
            _retain_memory()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass outside of Lightning."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and feature maps lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def resolve(job: Job) -> Compute:
    """Return what a job's config means on this machine; null becomes the device's default."""
    device = _device(job.machine.device)
    on_gpu = device == "cuda"
    defaults = {
        "precision": _precision(device, job.backbone["name"]),
        "channels_last": True,
        "rotated": device == "cpu",
        "fused": device in ("cuda", "cpu"),
        "compile": None,
        "tf32": True,
        "retain_memory": device == "cpu",
        "evaluation_batch": None if on_gpu else EVALUATION_BATCH_ON_CPU,
        "resident": None if on_gpu else False,
    }
    asked = dict(job.machine) | {
        "precision": job.precision,
        "resident": job.data.get("resident"),
    }
    chosen: dict[str, Any] = {
        name: default if asked[name] is None else asked[name] for name, default in defaults.items()
    }
    return Compute(device=device, **chosen)


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


def _device(asked: str) -> str:
    if (asked in ("auto", "gpu") or asked.startswith("cuda")) and torch.cuda.is_available():
        return "cuda"
    if asked in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _precision(device: str, backbone: str) -> str:
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    if device == "cpu" and backbone in BF16_ON_CPU:
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.10
        if known.get("amx_bf16"):
            return "bf16-mixed"
    return "32-true"


@cache  # it holds for the rest of the process
def _retain_memory() -> None:
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
