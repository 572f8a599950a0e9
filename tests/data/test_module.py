"""Batches: what is in them, and that seed and epoch alone decide them."""

import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from skinlesion.data.augment import Geometric
from skinlesion.data.batch import Batch
from skinlesion.data.module import LesionDataModule, LesionDataset
from skinlesion.data.samples import Samples
from skinlesion.errors import SkinlesionError

CONF = Path(__file__).resolve().parents[2] / "conf"
SIZE = 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def datta() -> Geometric:
    return Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True)


def epoch(loader: Any, number: int = 0) -> list[Batch]:
    """The batches of an epoch, after what Lightning's loop does before it."""
    loader.sampler.set_epoch(number)
    return list(loader)


def together(batches: Iterable[Batch], key: str) -> Tensor:
    return torch.cat([batch[key] for batch in batches])


def originals(samples: Samples, index: Tensor) -> Tensor:
    images = samples.images[samples.rows[index.numpy()]]
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# --- what is in a batch -------------------------------------------------------------------------


def test_a_batch_has_images_metadata_labels_and_indices(samples: Samples) -> None:
    batch = next(iter(LesionDataModule(samples, batch_size=8).train_dataloader()))
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "image": ((8, 3, SIZE, SIZE), torch.uint8),
        "metadata": ((8, 21), torch.float32),
        "label": ((8,), torch.int64),
        "index": ((8,), torch.int64),
    }
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_every_row_of_a_batch_is_the_sample_that_its_index_names(
    samples: Samples, part: str
) -> None:
    loaders = LesionDataModule(samples, batch_size=4)
    validation, test = loaders.predict_dataloader()
    loader = {"train": loaders.train_dataloader(), "val": validation, "test": test}[part]
    batches = epoch(loader)
    index = together(batches, "index")
    assert sorted(index.tolist()) == np.flatnonzero(samples.frame["split"] == part).tolist()
    np.testing.assert_array_equal(together(batches, "label"), samples.labels[index])
    np.testing.assert_array_equal(
        together(batches, "metadata"), samples.encoder.encode(samples.frame.iloc[index.numpy()])
    )
    np.testing.assert_array_equal(together(batches, "image"), originals(samples, index))


def test_the_table_is_encoded_once_for_all_loaders(samples: Samples) -> None:
    loaders = LesionDataModule(samples, batch_size=4)
    every = [loaders.train_dataloader(), loaders.val_dataloader(), *loaders.predict_dataloader()]
    for name in ("metadata", "labels"):
        assert len({getattr(loader.dataset, name).data_ptr() for loader in every}) == 1


def test_without_augmentation_the_pixels_are_the_caches(samples: Samples) -> None:
    batches = epoch(LesionDataModule(samples, 8, augment=None, workers=2).train_dataloader())
    index = together(batches, "index")
    np.testing.assert_array_equal(together(batches, "image"), originals(samples, index))


def test_only_training_images_are_augmented(samples: Samples, datta: Geometric) -> None:
    loaders = LesionDataModule(samples, 8, datta, workers=0)
    batches = epoch(loaders.train_dataloader())
    images = together(batches, "image")
    assert images.shape == (30, 3, SIZE, SIZE)
    assert images.dtype == torch.uint8
    same = (images == originals(samples, together(batches, "index"))).flatten(1).all(1)
    assert same.sum() == 0
    for loader in (loaders.val_dataloader(), *loaders.predict_dataloader()):
        for batch in loader:
            np.testing.assert_array_equal(batch["image"], originals(samples, batch["index"]))


def test_augmentation_leaves_the_cache_as_it_was(samples: Samples, datta: Geometric) -> None:
    before = np.array(samples.images)
    epoch(LesionDataModule(samples, 8, datta, workers=0).train_dataloader())
    np.testing.assert_array_equal(samples.images, before)


# --- what decides it ----------------------------------------------------------------------------


def test_the_order_is_decided_by_seed_and_epoch(samples: Samples) -> None:
    def order(seed: int, number: int, batch_size: int = 8) -> list[int]:
        loader = LesionDataModule(samples, batch_size, seed=seed).train_dataloader()
        return together(epoch(loader, number), "index").tolist()

    torch.manual_seed(0)
    expected = order(seed=0, number=3)
    torch.manual_seed(1)
    assert order(seed=0, number=3) == expected
    assert order(seed=0, number=3, batch_size=5) == expected
    others = [order(seed=0, number=4), order(seed=1, number=3), order(seed=3, number=0)]
    assert all(other != expected and sorted(other) == sorted(expected) for other in others)


def test_held_out_samples_come_in_the_tables_order_in_every_epoch(samples: Samples) -> None:
    loader = LesionDataModule(samples, 4).val_dataloader()
    expected = np.flatnonzero(samples.frame["split"] == "val").tolist()
    assert together(epoch(loader, 0), "index").tolist() == expected
    assert together(epoch(loader, 1), "index").tolist() == expected


def test_augmented_epochs_are_the_same_with_any_number_of_workers(
    samples: Samples, datta: Geometric
) -> None:
    def images(workers: int, seed: int = 0) -> list[Tensor]:
        loader = LesionDataModule(samples, 8, datta, seed, workers).train_dataloader()
        assert loader.num_workers == workers
        # Two epochs of one loader, whose workers live on, and the first one again.
        return [together(epoch(loader, number), "image") for number in (0, 1, 0)]

    first, second, again = images(workers=0)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    for workers in (1, 2):
        found = images(workers)
        assert torch.equal(found[0], first)
        assert torch.equal(found[1], second)
        assert torch.equal(found[2], first)
    assert not torch.equal(images(workers=0, seed=1)[0], first)


def test_an_image_is_augmented_anew_in_every_epoch_and_by_every_seed(
    samples: Samples, datta: Geometric
) -> None:
    found = set()
    for seed, number in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        dataset = LesionDataset(samples, datta, seed)
        batch = dataset.__getitems__([(number, 5), (number, 6)])
        found |= {image.numpy().tobytes() for image in batch["image"]}
        # Whatever it is fetched with, and in whatever order.
        swapped = dataset.__getitems__([(number, 6), (number, 0), (number, 5)])
        assert torch.equal(swapped["image"][[2, 0]], batch["image"])
    assert len(found) == 10


class Recorder(pl.LightningModule):
    """Notes the samples of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[int]] = {}

    def training_step(self, batch: Batch) -> Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch["index"].tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], 0.1)


def test_lightning_draws_the_epoch_that_it_is_in(samples: Samples) -> None:
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, LesionDataModule(samples, 8, seed=4).train_dataloader())
    fresh = LesionDataModule(samples, 8, seed=4).train_dataloader()
    for number in range(3):
        assert recorder.seen[number] == together(epoch(fresh, number), "index").tolist()


# --- loaders ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(8, [8, 8, 8, 6]), (10, [10, 10, 10]), (29, [29]), (28, [28, 2]), (64, [30]), (1, [1] * 30)],
)
def test_a_last_training_batch_of_one_sample_is_dropped_and_no_other(
    samples: Samples, batch_size: int, sizes: list[int]
) -> None:
    loader = LesionDataModule(samples, batch_size).train_dataloader()
    assert [len(batch["label"]) for batch in epoch(loader)] == sizes
    assert len(loader) == len(sizes)


def test_no_held_out_sample_is_ever_dropped(samples: Samples) -> None:
    loaders = LesionDataModule(samples, batch_size=13)  # 14 = 13 + 1
    for loader in (loaders.val_dataloader(), *loaders.predict_dataloader()):
        assert [len(batch["label"]) for batch in loader] == [13, 1]


def test_each_held_out_part_is_predicted(samples: Samples) -> None:
    loaders = LesionDataModule(samples, 4).predict_dataloader()
    parts = [set(samples.frame["split"].iloc[together(loader, "index")]) for loader in loaders]
    assert parts == [{"val"}, {"test"}]
    published = samples.frame.replace({"split": {"test": "train"}})
    assert len(LesionDataModule(replace(samples, frame=published), 4).predict_dataloader()) == 1


def test_workers_are_for_augmentation(
    samples: Samples, datta: Geometric, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers(augment: Geometric | None, wanted: int | None = None) -> int:
        loader = LesionDataModule(samples, 4, augment, workers=wanted).train_dataloader()
        return loader.num_workers

    # Torch warns of more workers than there are cores.
    monkeypatch.setattr(DataLoader, "check_worker_number_rationality", lambda self: None)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert workers(None) == 0
    assert workers(datta) == 3
    assert workers(datta, 1) == 1
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert workers(datta) == 8
    assert LesionDataModule(samples, 4, datta).val_dataloader().num_workers == 0


def test_a_worker_that_is_not_forked_maps_the_cache_instead_of_being_sent_it(
    samples: Samples, datta: Geometric
) -> None:
    dataset = LesionDataset(samples, datta, seed=0)
    sent = pickle.dumps(dataset)
    images = pickle.dumps(np.array(samples.images))
    assert len(sent) < len(pickle.dumps(replace(samples, images=None))) + len(images) / 2
    received = pickle.loads(sent)
    assert isinstance(received.samples.images, np.memmap)
    draws = [(0, 3), (1, 7)]
    for key, value in dataset.__getitems__(draws).items():
        assert torch.equal(received.__getitems__(draws)[key], value)


# --- several processes --------------------------------------------------------------------------


def shares(samples: Samples, world: int, batch_size: int, **options: Any) -> list[LesionDataModule]:
    """The loaders of each of so many processes that train together."""
    modules = [LesionDataModule(samples, batch_size, **options) for _ in range(world)]
    for rank, module in enumerate(modules):
        module.trainer = SimpleNamespace(
            global_rank=rank, world_size=world, strategy=SimpleNamespace(root_device=CPU)
        )
    return modules


@pytest.mark.parametrize(("world", "batch_size"), [(2, 8), (2, 10), (3, 6), (3, 15), (5, 10)])
def test_processes_share_each_batch_that_one_alone_would_draw(
    samples: Samples, datta: Geometric, world: int, batch_size: int
) -> None:
    # 30 training images, so that all batches but the last are whole.
    alone = LesionDataModule(samples, batch_size, datta, 3, workers=0).train_dataloader()
    loaders = [m.train_dataloader() for m in shares(samples, world, batch_size, seed=3)]
    augmented = shares(samples, world, batch_size, augment=datta, seed=3, workers=0)
    for number in (0, 7):
        expected = epoch(alone, number)
        found = [epoch(loader, number) for loader in loaders]
        assert {len(batches) for batches in found} == {len(expected)}
        for whole, *parts in zip(expected, *found, strict=True):
            assert {len(part["index"]) for part in parts} == {len(whole["index"]) // world}
            # Rank r has the positions r, r + world, ... of the whole batch.
            joined = torch.stack([part["index"] for part in parts], dim=1).flatten()
            assert torch.equal(joined, whole["index"])
        images = [epoch(m.train_dataloader(), number)[0]["image"] for m in augmented]
        assert torch.equal(torch.stack(images, dim=1).flatten(0, 1), expected[0]["image"])


@pytest.mark.parametrize("world", [2, 3, 4, 7])
def test_no_process_takes_more_steps_than_another(samples: Samples, world: int) -> None:
    for whole in range(1, 6):
        batch_size = world * whole
        loaders = [m.train_dataloader() for m in shares(samples, world, batch_size)]
        found = [epoch(loader) for loader in loaders]
        sizes = [[len(batch["index"]) for batch in batches] for batches in found]
        assert all(others == sizes[0] for others in sizes)
        assert {len(loader) for loader in loaders} == {len(sizes[0])}
        seen = [i for batches in found for i in together(batches, "index").tolist()]
        assert len(seen) == len(set(seen))
        # What does not divide is left out, and a last batch that would be one image for each.
        left_out = 30 - len(seen)
        assert left_out < (2 * world if whole > 1 else world)
        assert whole == 1 or 1 not in sizes[0]


@pytest.mark.parametrize("world", [2, 3, 5, 14])
def test_processes_validate_each_sample_once(samples: Samples, world: int) -> None:
    loaders = [m.val_dataloader() for m in shares(samples, world, batch_size=2 * world)]
    seen = [i for loader in loaders for i in together(epoch(loader), "index").tolist()]
    assert sorted(seen) == np.flatnonzero(samples.frame["split"] == "val").tolist()


def test_a_process_without_a_sample_is_an_error(samples: Samples) -> None:
    with pytest.raises(SkinlesionError, match="14 val images cannot be shared by 15 processes"):
        shares(samples, world=15, batch_size=15)[0].val_dataloader()


def test_a_spawned_process_maps_the_cache_instead_of_being_sent_it(samples: Samples) -> None:
    module = LesionDataModule(samples, 8)
    sent = pickle.dumps(module)
    bare = pickle.dumps(LesionDataModule(replace(samples, images=None), 8))
    assert len(sent) < len(bare) + samples.images.nbytes / 2
    received = pickle.loads(sent)
    assert isinstance(received.samples.images, np.memmap)
    np.testing.assert_array_equal(received.samples.images, samples.images)
    assert not received.samples.images.flags.writeable
