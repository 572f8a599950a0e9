"""What limits a step: arithmetic, memory traffic or launches."""

import math
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.setting import Rows, Setting, Step
from benchmarks.timing import milliseconds, timed

Numbers = dict[str, float]
EPOCH, CARD_BATCH = 8962, 128  # training images of HAM10000 under split=paper
EAGER = "machine.compile=null"
AS_ON_CARDS = ("machine.device=cpu", "precision=bf16-mixed", EAGER)
# FLOP, bytes and launches a second.
H100 = {"arithmetic": 989e12, "memory": 3.35e12, "launches": 2e5}
CARDS = {"H100 SXM (predicted)": H100, "H200 (predicted)": H100 | {"memory": 4.8e12}}


def run(setting: Setting, backbone: str) -> Rows:
    """Return a row for the device at hand, and one for each of CARDS."""
    step = Step(setting.job(backbone, EAGER))
    size, measured = step.job.batch_size, milliseconds(step, 5 * setting.seconds)
    work, reached = count(setting, backbone, size, EAGER), peaks(step, setting.seconds)
    here = bounds(step.device.type, size, work, reached) | {"measured, ms": measured}
    rows = [here | {f"peak of {name}, a second": value for name, value in reached.items()}]
    rows[0]["at least ÷ measured"] = here["at least, ms"] / measured
    work = count(setting, backbone, CARD_BATCH, *AS_ON_CARDS)
    for card, known in CARDS.items():
        row = bounds(card, CARD_BATCH, work, known)
        row["epoch at least, s"] = row["at least, ms"] / 1e3 * EPOCH / CARD_BATCH
        rows.append(row)
    return rows


def bounds(device: str, images: int, work: Numbers, reached: Numbers) -> dict[str, Any]:
    """Return a step's work, and the milliseconds that it takes at least."""
    least = {name: 1e3 * work[name] / most for name, most in reached.items()}
    return {
        "device": device,
        "batch": images,
        "forward, GFLOP an image": work["forward"] / images / 1e9,
        "training, GFLOP an image": work["arithmetic"] / images / 1e9,
        "traffic, MB an image": work["memory"] / images / 1e6,
        "launches a step": round(work["launches"]),
        **{f"{name}, ms": bound for name, bound in least.items()},
        "limited by": max(least, key=least.__getitem__),
        "at least, ms": max(least.values()),
    }


def count(setting: Setting, backbone: str, images: int, *overrides: str) -> Numbers:
    """Count a training step of so many images: steps of 2 and 4, on whose line all others lie."""
    two, four = (
        counts(Step(setting.job(backbone, *overrides, f"batch_size={size}"))) for size in (2, 4)
    )
    return {name: two[name] + (four[name] - two[name]) / 2 * (images - 2) for name in two}


def counts(step: Step) -> Numbers:
    """Count a training step: FLOP of the forward pass, of all, bytes, launches."""
    step()  # which allocates the optimizer's state
    with torch.no_grad(), flop_counter() as forward:
        step.loss()
    with flop_counter() as whole, Traffic() as traffic:
        step()
    flop = {"forward": forward.get_total_flops(), "arithmetic": whole.get_total_flops()}
    return {**flop, "memory": traffic.bytes, "launches": traffic.launches}


def flop_counter() -> FlopCounterMode:
    """Return what counts FLOP, two for a multiplication with its addition."""
    formula = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=formula)


def _convolution_backward(grad: Any, image: Any, weight: Any, *rest: Any, **_: Any) -> int:
    """Return the FLOP of both gradients; torch's own formula forgets the groups in the weight's."""
    once = 2 * math.prod(grad) * math.prod(weight[1:])
    return once * sum(rest[-1][:2])


class Traffic(TorchDispatchMode):
    """Counts `launches` of ops, neither views nor allocations, and the `bytes` that they move."""

    WRITE_ONLY = ("copy_", "zero_", "fill_", "bernoulli_")  # to what they change
    WITHOUT_KERNEL = ("_unsafe_view", "_reshape_alias", "lift_fresh")
    bytes = launches = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the op and count it."""
        out, name = op(*args, **(kwargs or {})), op.overloadpacket.__name__
        if op.namespace != "aten" or op.is_view or name in self.WITHOUT_KERNEL or "empty" in name:
            return out
        read = _tensors((args, kwargs))
        new = {key: tensor for key, tensor in _tensors(out).items() if key not in read}
        aliases = (declared.alias_info for declared in op._schema.arguments)
        pairs = zip(aliases, args, strict=False)
        changed = _tensors([arg for alias, arg in pairs if alias is not None and alias.is_write])
        if name in self.WRITE_ONLY:
            read = {key: tensor for key, tensor in read.items() if key not in changed}
        self.bytes += sum(_bytes(t) for group in (read, changed, new) for t in group.values())
        self.launches += 1
        return out


def _tensors(tree: Any) -> dict[int, torch.Tensor]:
    return {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


def _bytes(tensor: torch.Tensor) -> int:
    """Return the bytes in memory: an expanded dimension has none of its own."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(size for size, stride in sizes if stride)


def peaks(step: Step, seconds: float) -> Numbers:
    """Measure what a step's device can do in its precision: the fastest of each, not the usual."""
    n, size = (8192, 2**30) if step.device.type == "cuda" else (2048, 2**28)
    dtype = torch.bfloat16 if step.compute.precision == "bf16-mixed" else torch.float32
    factor = torch.randn(n, n, device=step.device).to(dtype)
    source = torch.ones(size, dtype=torch.uint8, device=step.device)
    target, number = torch.empty_like(source), torch.zeros(1, device=step.device)
    return {
        "arithmetic": 2 * n**3 / min(timed(lambda: factor @ factor, seconds).times),
        "memory": 2 * size / min(timed(lambda: target.copy_(source), seconds).times),
        "launches": 1 / min(timed(lambda: number.add_(1), seconds).times),
    }
