"""All samples on the device: no batch is fetched, copied or augmented on the host.

The images of HAM10000 at 224 x 224 are 1.5 GB. On a CPU the device's memory is the host's, and the
mapped cache is used as it is.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skinlesion.data.augment import Geometric
from skinlesion.data.module import Batch, EpochSampler
from skinlesion.data.samples import Samples

UPLOAD = 1024  # images copied at a time


class ResidentSamples:
    """Images, metadata and labels on a device, copied there some at a time."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        rows, self.device = samples.rows, device
        if device.type == "cpu":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*not writable.*")  # and nothing writes
                self.images = torch.from_numpy(samples.images)  # (N_cache, S, S, 3)
            self.rows = torch.tensor(rows)  # (N,)
        else:
            shape = (len(rows), *samples.images.shape[1:])
            self.images = torch.empty(shape, dtype=torch.uint8, device=device)  # (N, S, S, 3)
            for start in range(0, len(rows), UPLOAD):
                part = torch.from_numpy(samples.images[rows[start : start + UPLOAD]])
                self.images[start : start + UPLOAD] = part.to(device)
            self.rows = torch.arange(len(rows), device=device)
        self.metadata = torch.from_numpy(samples.metadata).to(device)  # (N, M)
        self.labels = torch.from_numpy(samples.labels).to(device)  # (N,)

    def batch(self, index: Tensor) -> Batch:
        """Return the batch of these samples (B,)."""
        return {
            # The permuted view is channels_last in memory, which convolutions prefer.
            "image": self.images[self.rows[index]].permute(0, 3, 1, 2),  # (B, 3, S, S)
            "metadata": self.metadata[index],  # (B, M)
            "label": self.labels[index],  # (B,)
            "index": index,  # (B,)
        }


class ResidentLoader:
    """Batches of resident samples, in the order of a sampler, augmented on the device.

    What augmentation draws follows from (seed, epoch, sample) alone, as in workers, but the numbers
    are others.

    Args:
        samples: what batches are made of.
        sampler: the order.
        batch_size: samples a batch.
        augment: None for none.
        seed: of augmentation.
        drop_last: whether to leave out a last batch that is not whole.
    """

    def __init__(
        self,
        samples: ResidentSamples,
        sampler: EpochSampler,
        batch_size: int,
        augment: Geometric | None = None,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.samples, self.sampler, self.batch_size = samples, sampler, batch_size
        self.batch_sampler = None  # Lightning asks for it where there is a sampler
        self.augment, self.seed, self.drop_last = augment, seed, drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the sampler's epoch; the host copies order and draws once."""
        device, samples = self.samples.device, len(self.samples.labels)
        order = torch.from_numpy(self.sampler.order()).to(device)  # (n,)
        generator = np.random.default_rng([self.seed, self.sampler.epoch, 1])
        drawn = generator.random((samples, Geometric.DRAWS), dtype=np.float32)
        draws = torch.from_numpy(drawn).to(device)  # (N, DRAWS) in [0, 1), also of absent samples
        for index in order.split(self.batch_size)[: len(self)]:
            batch = self.samples.batch(index)
            if self.augment is not None:
                batch["image"] = self.augment.on_device(batch["image"], draws[index])
            yield batch
