"""All samples on the device: no image is fetched, copied or augmented on the host.

The images of HAM10000 at 224 x 224 are 1.5 GB. On a CPU the device's memory is the host's, and the
mapped cache is used as it is.
"""

import copy
import warnings

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from skinlesion.data.augment import Geometric
from skinlesion.data.module import Batch, Draw
from skinlesion.data.samples import Samples

UPLOAD = 1024  # images copied at a time


class ResidentDataset(Dataset[Batch]):
    """Samples fetched a batch at a time from a device, where they are augmented too.

    What augmentation draws follows from (seed, epoch, sample) alone, as in workers, but the numbers
    are others.
    """

    augment: Geometric | None = None
    seed = 0

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
                some = torch.from_numpy(samples.images[rows[start : start + UPLOAD]])
                self.images[start : start + UPLOAD] = some.to(device)
            self.rows = torch.arange(len(rows), device=device)
        self.metadata = torch.from_numpy(samples.metadata).to(device)  # (N, M)
        self.labels = torch.from_numpy(samples.labels).to(device)  # (N,)
        self._drawn: tuple[int | None, Tensor] = (None, self.labels)

    def augmented(self, augment: Geometric | None, seed: int) -> "ResidentDataset":
        """Return the same samples, augmented."""
        other = copy.copy(self)
        other.augment, other.seed = augment, seed
        return other

    def __getitems__(self, draws: list[Draw]) -> Batch:
        """Return the batch of these draws, which are of one epoch."""
        index = torch.tensor([sample for _, sample in draws]).to(self.device)  # (B,)
        # The permuted view is channels_last in memory, which convolutions prefer.
        image = self.images[self.rows[index]].permute(0, 3, 1, 2)  # (B, 3, S, S)
        if self.augment is not None:
            image = self.augment.on_device(image, self._draws(draws[0][0])[index])
        metadata, label = self.metadata[index], self.labels[index]  # (B, M), (B,)
        return {"image": image, "metadata": metadata, "label": label, "index": index}

    def _draws(self, epoch: int) -> Tensor:
        """Return numbers (N, DRAWS) in [0, 1), those of every sample in this epoch."""
        if self._drawn[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch, 1])
            drawn = generator.random((len(self.labels), Geometric.DRAWS), dtype=np.float32)
            self._drawn = epoch, torch.from_numpy(drawn).to(self.device)
        return self._drawn[1]
