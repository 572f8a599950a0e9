"""The work of a training step: FLOP, bytes read and written, kernel launches.

It is counted on shapes alone (fake tensors), so that batches and precisions can be counted that the
machine at hand could not hold.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from skinlesion.data.samples import Samples
from skinlesion.training.build import build_module, build_network
from skinlesion.training.compute import Compute


@dataclass(frozen=True)
class Peaks:
    """What a device can do: FLOP a second, bytes a second, seconds a kernel launch."""

    flop: float
    bytes: float
    launch: float


@dataclass(frozen=True)
class Work:
    """What a training step of a batch is made of."""

    forward_flop: float
    flop: float
    bytes: float
    launches: int

    def bounds(self, peaks: Peaks) -> dict[str, float]:
        """Return the seconds that a step takes at least, by what would limit it."""
        return {
            "arithmetic": self.flop / peaks.flop,
            "memory": self.bytes / peaks.bytes,
            "launches": self.launches * peaks.launch,
        }


class Traffic(TorchDispatchMode):
    """Sums what each kernel reads and writes, as if no cache held anything from one to the next.

    Attributes:
        bytes: of all inputs and outputs.
        launches: ops that are neither a view nor an allocation.
    """

    WRITE_ONLY = frozenset({"copy_", "zero_", "fill_", "bernoulli_"})  # to what they change
    WITHOUT_KERNEL = frozenset({"_unsafe_view", "_reshape_alias", "lift_fresh"})

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__()
        self.bytes, self.launches = 0, 0

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the op and count it."""
        kwargs = kwargs or {}
        out = op(*args, **kwargs)
        name = op.overloadpacket.__name__
        if op.namespace != "aten" or op.is_view or name in self.WITHOUT_KERNEL or "empty" in name:
            return out
        read = _tensors((args, kwargs))
        given = zip(op._schema.arguments, args, strict=False)
        changed = _tensors([arg for declared, arg in given if _written(declared)])
        new = {key: tensor for key, tensor in _tensors(out).items() if key not in read}
        if name in self.WRITE_ONLY:
            read = {key: tensor for key, tensor in read.items() if key not in changed}
        self.bytes += sum(_bytes(t) for group in (read, changed, new) for t in group.values())
        self.launches += 1
        return out


def _written(declared: Any) -> bool:
    return declared.alias_info is not None and declared.alias_info.is_write


def _tensors(tree: Any) -> dict[int, torch.Tensor]:
    return {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


def _bytes(tensor: torch.Tensor) -> int:
    """Return the bytes in memory: an expanded dimension has none of its own."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(size for size, stride in sizes if stride)


def _convolution_backward(
    grad: Any, image: Any, weight: Any, *rest: Any, out_shape: Any = None, **_: Any
) -> int:
    """Return the FLOP of both gradients; torch's own formula forgets the groups in the weight's."""
    once = 2 * math.prod(grad) * math.prod(weight[1:])
    return once * sum(rest[-1][:2])


def counter() -> FlopCounterMode:
    """Return what counts FLOP, two for a multiplication with its addition."""
    formula = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=formula)


def count(config: DictConfig, samples: Samples, compute: Compute, batch_size: int) -> Work:
    """Count a training step on shapes alone: forward, loss, backward, optimizer."""
    module = build_module(config, build_network(config, compute), samples, compute)
    fake, size = FakeTensorMode(), config.backbone.input_size
    for part in (module.network, module.loss):
        part._apply(lambda tensor: fake.from_tensor(tensor.detach()))
    optimizer = module.make_optimizer(module.parameters())
    # The CPU's autocast rounds the same convolutions and products as a GPU's.
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=compute.precision == "bf16-mixed")
    with fake:
        image = torch.empty(batch_size, 3, size, size, dtype=torch.uint8)
        batch = {
            "image": image.contiguous(memory_format=torch.channels_last),
            "metadata": torch.empty(batch_size, sum(samples.encoder.sizes)),
        }
        label = torch.empty(batch_size, dtype=torch.long)

        def step() -> None:
            with autocast:
                loss = module.loss(module.logits(batch), label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        step()  # the optimizer's state is allocated in the first step
        with counter() as forward, torch.no_grad(), autocast:
            module.logits(batch)
        with counter() as whole, Traffic() as traffic:
            step()
    return Work(forward.get_total_flops(), whole.get_total_flops(), traffic.bytes, traffic.launches)
