"""The loaders of training, validation and prediction."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler, default_convert

from skinlesion.data.samples import Batch, Draw, LesionDataset, Samples
from skinlesion.runs.predictions import PARTS

log = logging.getLogger(__name__)


class EpochSampler(Sampler[Draw]):
    """The samples of an epoch, in an order that seed and epoch alone decide.

    Lightning calls `set_epoch`, also when a run is resumed. With the samples' labels as many are
    drawn with replacement, so that every class is as frequent.
    """

    def __init__(
        self, samples: np.ndarray, shuffle: bool, seed: int, epoch: int = 0, labels: Any = None
    ) -> None:
        self.samples, self.shuffle, self.seed, self.epoch = samples, shuffle, seed, epoch
        self.labels = labels

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.samples) if self.shuffle else self.samples
        if self.labels is not None:
            share = 1 / np.bincount(self.labels)[self.labels]  # (n,)
            order = rng.choice(self.samples, len(self.samples), p=share / share.sum())
        return ((self.epoch, int(sample)) for sample in order)


class LesionDataModule(pl.LightningDataModule):
    """Training, validation and prediction loaders over one set of samples.

    Args:
        samples: what batches are made of.
        batch_size: samples a step.
        augment: of the training images; None for none.
        seed: of order and augmentation.
        workers: loader processes; None for none without augmentation, else one a core, at most 8.
        resident: whether all samples live on the trainer's device and are augmented there; None: on
            a GPU, if they fit into half of its free memory.
        evaluation_batch: samples a step of validation and prediction; None for `batch_size`.
        sampler: `balanced`: every class as often, drawn with replacement; None: each image once.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        augment: Any = None,
        seed: int = 0,
        workers: int | None = None,
        resident: bool | None = False,
        evaluation_batch: int | None = None,
        sampler: str | None = None,
    ) -> None:
        super().__init__()
        self.samples, self.batch_size, self.augment, self.seed = samples, batch_size, augment, seed
        # Without augmentation a batch is a copy from the cache, which workers would only slow.
        usual = min(os.cpu_count() or 1, 8) if augment else 0
        self.workers, self.resident = usual if workers is None else workers, resident
        self.evaluation_batch = batch_size if evaluation_batch is None else evaluation_batch
        self.sampler = sampler
        self._on_device: Any = None
        self.epoch = 0  # the first that is drawn

    def state_dict(self) -> dict[str, int]:
        """Return where a resumed run begins; checkpoints are saved at the end of an epoch."""
        return {"epoch": self.trainer.current_epoch + 1 if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin there: workers draw the first batches before Lightning tells the sampler."""
        self.epoch = state_dict["epoch"]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the shuffled, augmented training samples."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation samples, in the table's order."""
        return self._loader("val")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """Return a loader for each held-out part."""
        parts = self.samples.frame["split"].unique()
        return [self._loader(part) for part in PARTS[1:] if part in parts]

    def _loader(self, part: str) -> DataLoader[Batch]:
        training = part == "train"
        batch_size = self.batch_size if training else self.evaluation_batch
        augment = self.augment if training else None
        chosen = np.flatnonzero(self.samples.frame["split"] == part)
        balanced = self.samples.labels[chosen] if training and self.sampler == "balanced" else None
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        resident = self._wants_residence(device)
        dataset = LesionDataset(self.samples, augment, self.seed)
        if resident:
            from skinlesion.data.resident import ResidentDataset

            if self._on_device is None or self._on_device.device != device:
                self._on_device = ResidentDataset(self.samples, device)
            dataset = self._on_device.augmented(augment, self.seed)
        workers = self.workers if augment and not resident else 0
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=EpochSampler(chosen, training, self.seed, self.epoch, balanced),
            num_workers=workers,
            collate_fn=default_convert,  # a batch comes whole
            pin_memory=device.type == "cuda" and not resident,
            persistent_workers=workers > 0,
            # Batch norm cannot train on a batch of one.
            drop_last=training and len(chosen) % batch_size == 1,
        )

    def _wants_residence(self, device: torch.device) -> bool:
        """Decide once, or a later loader would find less memory free."""
        if self.resident is None:
            needed = len(self.samples.frame) * self.samples.images[0].nbytes
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            for_workers = self.augment is not None and not self.augment.DRAWS
            self.resident = needed <= free / 2 and not for_workers
            if device.type == "cuda" and needed > free / 2:
                text = "the images (%.1f GB) stay on the host: the GPU has %.1f GB"
                log.info(text, needed / 1e9, free / 1e9)
        return self.resident
