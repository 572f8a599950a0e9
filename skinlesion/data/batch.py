"""What a batch is, and which samples an epoch draws in which order."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

Draw = tuple[int, int]  # epoch, sample
Batch = dict[str, Tensor]  # image (B, 3, S, S) uint8, metadata (B, M), label (B,), index (B,)


class EpochSampler(Sampler[Draw]):
    """The samples of an epoch, in an order that seed and epoch alone decide.

    Lightning calls `set_epoch`, also when a run is resumed.

    Args:
        samples: positions in the table.
        shuffle: whether to train on them; each process then draws as many as the others, or they
            would wait for one another for ever, and up to `world` - 1 samples are left out.
        seed: of the order.
        rank: which of the processes that share the samples this is; it draws every `world`-th, so
            that the i-th batches of all processes are together the i-th batch of a single one.
        world: how many processes share the samples.
    """

    def __init__(
        self, samples: np.ndarray, shuffle: bool, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        """Work out this process' share."""
        self.samples, self.shuffle, self.seed, self.epoch = samples, shuffle, seed, 0
        shared = len(samples) // world * world if shuffle else len(samples)
        self.share = slice(rank, shared, world)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the samples of an epoch."""
        return len(self.samples[self.share])

    def order(self) -> np.ndarray:
        """Return the samples of the epoch in their order."""
        order = self.samples
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        return order[self.share]

    def __iter__(self) -> Iterator[Draw]:
        """Yield (epoch, sample)."""
        return ((self.epoch, int(sample)) for sample in self.order())
