"""What limits each backbone: the arithmetic of a step, its memory traffic or its kernel launches.

A step's work is counted (`skinlesion.bench.work`); what the device can do is measured beside it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting
from skinlesion.bench.timing import in_turn, now, repeated
from skinlesion.bench.work import Peaks, Work, count
from skinlesion.training.compute import resolve

TRAINED = 8962  # HAM10000's training images under split=paper
CARD_BATCH = 128
KINDS = ("convolution", "batch_norm", "elementwise", "rest")
# torch tags pointwise ops, but not these.
ELEMENTWISE = (
    *("copy_", "hardswish", "hardtanh", "hardsigmoid"),
    *("bernoulli_", "uniform_", "_foreach_add_"),
)

# NVIDIA's data sheets of the H100 SXM and the H200 SXM: bf16 without sparsity, and memory. Seconds
# of a launch stand in no data sheet: they are assumed.
CARDS = {"H100 SXM": Peaks(989e12, 3.35e12, 5e-6), "H200": Peaks(989e12, 4.8e12, 5e-6)}


def measure_peaks(device: torch.device, dtype: torch.dtype) -> Peaks:
    """Measure what the device can do: a large product, a large copy, an op on a single number."""
    on_gpu = device.type == "cuda"
    n, copied = (8192, 2**30) if on_gpu else (2048, 2**28)
    factor = torch.randn(n, n, device=device).to(dtype)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target, number = torch.empty_like(source), torch.zeros(1, device=device)
    return Peaks(
        flop=2 * n**3 / _fastest(lambda: factor @ factor, 4),
        bytes=2 * copied / _fastest(lambda: target.copy_(source), 4),
        launch=_fastest(lambda: number.add_(1), 1000),
    )


def _fastest(function: Callable[[], Any], calls: int) -> float:
    """Return seconds a call, of the fastest of some rounds: what is possible, not what is usual."""
    function()
    return min(repeated(function, calls) for _ in range(5))


def profiled(step: Callable[[], Any], on_gpu: bool) -> tuple[dict[str, float], int]:
    """Return the shares of a step by kind of op, and how many kernels a GPU ran (else 0)."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities, acc_events=True) as profiler:
        step()
        now()  # waits for the device
    spent: Counter[str] = Counter()
    kernels = 0
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CUDA:  # its time is also that of the op that launched it
            is_kernel = not event.is_user_annotation and not event.key.startswith("Mem")
            kernels += event.count if is_kernel else 0
        else:
            spent[kind(event.key)] += (
                event.self_device_time_total if on_gpu else event.self_cpu_time_total
            )
    return {name: spent[name] / spent.total() for name in KINDS}, kernels


def kind(name: str) -> str:
    """Return which of KINDS an op of the profiler is, as `aten::relu_`."""
    library, _, op = name.partition("::")
    if library != "aten":
        return "rest"
    for known, part in (("convolution", "conv"), ("batch_norm", "batch_norm")):
        if part in op:
            return known
    packet = getattr(torch.ops.aten, op, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet else []
    pointwise = any(torch.Tag.pointwise in overload.tags for overload in overloads)
    return "elementwise" if pointwise or op.startswith(ELEMENTWISE) else "rest"


def run(setting: Setting, backbone: str) -> Rows:
    """Return a row for the device at hand, and one for each of CARDS."""
    config = setting.job(backbone)
    compute, samples = resolve(config), setting.samples(config)
    compute.apply()
    on_gpu = setting.device.type == "cuda"
    rounded = compute.precision == "bf16-mixed"
    peaks = measure_peaks(setting.device, torch.bfloat16 if rounded else torch.float32)
    step = setting.steps(config)
    seconds = median(in_turn({"step": lambda: repeated(step, 1)}, rounds=20, seconds=20)["step"])
    shares, kernels = profiled(step, on_gpu)
    work = count(config, samples, compute, config.batch_size)
    if on_gpu:
        work = replace(work, launches=kernels)
    here = _row(str(setting.device), compute.precision, config.batch_size, work, peaks)
    here |= {"step": 1e3 * seconds, "reached": here["at_least"] / (1e3 * seconds), **shares}
    here |= {"tflops": peaks.flop / 1e12, "gbs": peaks.bytes / 1e9, "launch_us": 1e6 * peaks.launch}
    rows = [here]
    cards = ("compute.precision=bf16-mixed", "compute.turned=false", f"batch_size={CARD_BATCH}")
    config = setting.job(backbone, *cards)
    work = count(config, samples, resolve(config), CARD_BATCH)
    for card, peaks in CARDS.items():
        row = _row(f"{card} (predicted)", "bf16-mixed", CARD_BATCH, work, peaks)
        row["epoch"] = row["at_least"] / 1e3 * TRAINED / CARD_BATCH
        rows.append(row)
    return rows


def _row(device: str, precision: str, batch_size: int, work: Work, peaks: Peaks) -> dict[str, Any]:
    bounds = work.bounds(peaks)
    largest = max(bounds, key=lambda name: bounds[name])
    return {
        "device": device,
        "precision": precision,
        "batch": batch_size,
        "forward": work.forward_flop / batch_size / 1e9,
        "training": work.flop / batch_size / 1e9,
        "traffic": work.bytes / batch_size / 1e6,
        "launches": work.launches,
        **{f"{name}_ms": 1e3 * seconds for name, seconds in bounds.items()},
        "limit": largest,
        "at_least": 1e3 * bounds[largest],
    }


MEASUREMENT = Measurement(
    name="limits",
    title="What limits each backbone",
    how="Counted: FLOP, the bytes that the ops of a step read and write, as if nothing stayed in a "
    "cache, and kernels. Divided by what was measured on the device beside it (a product of two "
    "large matrices, a large copy, an op on one number) each is a time that a step takes at least; "
    "the largest limits it. Cards that are not at hand are predicted from their data sheet and an "
    "assumed 5 µs a launch.",
    columns={
        "device": "device",
        "precision": "precision",
        "batch": "batch",
        "forward": "forward, GFLOP an image",
        "training": "training, GFLOP an image",
        "traffic": "traffic, MB an image",
        "launches": "launches a step",
        "arithmetic_ms": "arithmetic, ms",
        "memory_ms": "memory, ms",
        "launches_ms": "launches, ms",
        "limit": "limited by",
        "at_least": "step at least, ms",
        "step": "step measured, ms",
        "reached": "at least ÷ measured",
        "convolution": "share of convolution",
        "batch_norm": "of batch norm",
        "elementwise": "of elementwise",
        "rest": "of the rest",
        "tflops": "peak measured, TFLOP/s",
        "gbs": "bandwidth measured, GB/s",
        "launch_us": "launch measured, µs",
        "epoch": f"epoch of {TRAINED:,} images at least, s (predicted)",
    },
    each=True,
    run=run,
)
