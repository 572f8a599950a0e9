"""Batches: image (B, 3, S, S) uint8, metadata (B, M), label (B,), index (B,)."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from skinlesion.data.augment import Augment
from skinlesion.data.samples import Samples
from skinlesion.errors import SkinlesionError

Draw = tuple[int, int]  # epoch, sample
Batch = dict[str, Tensor]


class LesionDataset(Dataset[Batch]):
    """Samples fetched a batch at a time, straight from the mapped cache.

    Args:
        samples: table, images, encoder.
        augment: applied to each image with a seed of its own; None for none.
        seed: with epoch and sample it decides an image's augmentation, so that it does not depend
            on the number of workers or the order of fetching.
    """

    def __init__(self, samples: Samples, augment: Augment | None = None, seed: int = 0) -> None:
        """Encode metadata and labels once."""
        self.samples = samples
        self.metadata = torch.from_numpy(samples.encoder.encode(samples.frame))  # (N, M)
        self.labels = torch.from_numpy(samples.labels)  # (N,)
        self.augment, self.seed = augment, seed

    def __getitems__(self, draws: list[Draw]) -> Batch:
        """Return the batch of these draws."""
        index = np.array([sample for _, sample in draws])
        images = self.samples.images[self.samples.rows[index]]  # (B, S, S, 3), a copy
        if self.augment is not None:
            for image, draw in zip(images, draws, strict=True):
                seed = np.random.SeedSequence([self.seed, *draw]).generate_state(1)[0]
                image[:] = self.augment(image, int(seed))
        # The permuted view is channels_last in memory, which convolutions prefer.
        return {
            "image": torch.from_numpy(images).permute(0, 3, 1, 2),  # (B, 3, S, S)
            "metadata": self.metadata[index],  # (B, M)
            "label": self.labels[index],  # (B,)
            "index": torch.from_numpy(index),  # (B,)
        }


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

    def __iter__(self) -> Iterator[Draw]:
        """Yield (epoch, sample)."""
        order = self.samples
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        return ((self.epoch, int(sample)) for sample in order[self.share])


class LesionDataModule(pl.LightningDataModule):
    """Training, validation and prediction loaders over one set of samples.

    Args:
        samples: see `skinlesion.data.samples.prepare`.
        batch_size: samples a step, of all processes together where several train.
        augment: of the training images; None for none.
        seed: of order and augmentation.
        workers: loader processes; None for none without augmentation, else one a core, at most 8.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        augment: Augment | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        """Keep the settings."""
        super().__init__()
        self.samples, self.batch_size, self.augment, self.seed = samples, batch_size, augment, seed
        self.workers = min(os.cpu_count() or 1, 8) if workers is None else workers
        if workers is None and augment is None:
            self.workers = 0

    def train_dataloader(self) -> DataLoader:
        """Return the shuffled, augmented training samples."""
        return self._loader("train", self.augment, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return the validation samples, in the table's order."""
        return self._loader("val")

    def predict_dataloader(self) -> list[DataLoader]:
        """Return a loader for each held-out part."""
        parts = self.samples.frame["split"].unique()
        return [self._loader(part) for part in ("val", "test") if part in parts]

    def _loader(
        self, part: str, augment: Augment | None = None, shuffle: bool = False
    ) -> DataLoader:
        chosen = np.flatnonzero(self.samples.frame["split"] == part)
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = EpochSampler(chosen, shuffle, self.seed, rank, world)
        if world > len(chosen):
            raise SkinlesionError(
                f"{len(chosen)} {part} images cannot be shared by {world} processes: fewer "
                "trainer.devices, or more images."
            )
        batch_size = self.batch_size // world
        return DataLoader(
            LesionDataset(self.samples, augment, self.seed),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.workers if augment else 0,
            collate_fn=_as_fetched,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=bool(augment and self.workers),
            # Batch norm cannot train on a batch of one.
            drop_last=shuffle and len(sampler) % batch_size == 1,
        )


def _as_fetched(batch: Any) -> Any:
    return batch
