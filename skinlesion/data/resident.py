"""All samples on the device: no image is fetched, copied or augmented on the host.

The images of HAM10000 at 224 x 224 are 1.5 GB. On a CPU the device's memory is the host's, and the
mapped cache is used as it is.
"""

import copy
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skinlesion.data.samples import Draw, LesionDataset, Samples

UPLOAD = 1024  # images copied at a time


class ResidentDataset(LesionDataset):
    """Samples fetched a batch at a time from a device, where they are augmented too.

    What augmentation draws follows from (seed, epoch, sample) alone, as in workers, but the numbers
    are others.
    """

    def __init__(self, samples: Samples, device: torch.device) -> None:
        super().__init__(samples)
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
        self.metadata, self.labels = self.metadata.to(device), self.labels.to(device)

    def augmented(self, augment: Any, seed: int) -> "ResidentDataset":
        """Return the same samples, augmented."""
        other = copy.copy(self)
        other.augment, other.seed = augment, seed
        return other

    def _images(self, draws: list[Draw], index: Tensor) -> Tensor:
        image = self.images[self.rows[index]].permute(0, 3, 1, 2)  # (B, 3, S, S)
        if self.augment is None:
            return image
        drawn = _drawn(self.seed, draws[0][0], (len(self.labels), self.augment.DRAWS), self.device)
        return self.augment.on_device(image, drawn[index])


@lru_cache(maxsize=1)
def _drawn(seed: int, epoch: int, wanted: tuple[int, int], device: torch.device) -> Tensor:
    """Return numbers (N, DRAWS) in [0, 1), those of every sample in an epoch."""
    rng = np.random.default_rng([seed, epoch, 1])
    return torch.from_numpy(rng.random(wanted, np.float32)).to(device)
