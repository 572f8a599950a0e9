"""Batches: what is in them, and that seed and epoch alone decide them, in both ways alike."""

import pickle
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from skinlesion.data.augment import Geometric
from skinlesion.data.module import EpochSampler, LesionDataModule
from skinlesion.data.resident import ResidentDataset
from skinlesion.data.samples import Batch, LesionDataset, Samples

BOTH = pytest.mark.parametrize("resident", [False, True], ids=["in workers", "on the device"])
DATTA = Geometric(rotation=180, shift=0.1, zoom=0.1, flip=True)
CPU = torch.device("cpu")


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


@BOTH
def test_every_row_of_a_batch_is_the_sample_that_its_index_names(
    samples: Samples, resident: bool
) -> None:
    loaders = LesionDataModule(samples, 4, resident=resident)
    batch = next(iter(loaders.train_dataloader()))
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "image": ((4, 3, 16, 16), torch.uint8),
        "metadata": ((4, 21), torch.float32),
        "label": ((4,), torch.int64),
        "index": ((4,), torch.int64),
    }
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    validation, test = loaders.predict_dataloader()
    for part, loader in (
        ("train", loaders.train_dataloader()),
        ("val", loaders.val_dataloader()),
        ("val", validation),
        ("test", test),
    ):
        batches = epoch(loader, 1)
        index = together(batches, "index")
        expected = np.flatnonzero(samples.frame["split"] == part).tolist()
        # What is held out comes in the table's order in every epoch.
        assert (sorted(index.tolist()) if part == "train" else index.tolist()) == expected
        encoded = samples.encoder.encode(samples.frame.iloc[index.numpy()])
        np.testing.assert_array_equal(together(batches, "metadata"), encoded)
        np.testing.assert_array_equal(together(batches, "label"), samples.labels[index])
        np.testing.assert_array_equal(together(batches, "image"), originals(samples, index))


@BOTH
def test_only_training_images_are_augmented_and_the_cache_stays_as_it_was(
    samples: Samples, resident: bool
) -> None:
    before = np.array(samples.images)
    loaders = LesionDataModule(samples, 8, DATTA, workers=0, resident=resident)
    batches = epoch(loaders.train_dataloader())
    images = together(batches, "image")
    assert (images.shape, images.dtype) == ((30, 3, 16, 16), torch.uint8)
    same = (images == originals(samples, together(batches, "index"))).flatten(1).all(1)
    assert same.sum() == 0
    for loader in (loaders.val_dataloader(), *loaders.predict_dataloader()):
        for batch in loader:
            np.testing.assert_array_equal(batch["image"], originals(samples, batch["index"]))
    np.testing.assert_array_equal(samples.images, before)


def test_both_ways_differ_in_the_augmented_pixels_alone(samples: Samples) -> None:
    for augment in (None, DATTA):
        ours = LesionDataModule(samples, 8, augment, resident=True).train_dataloader()
        theirs = LesionDataModule(samples, 8, augment, workers=0).train_dataloader()
        assert isinstance(ours.dataset, ResidentDataset)
        for batch, expected in zip(epoch(ours, 5), epoch(theirs, 5), strict=True):
            for name, value in batch.items():
                other = expected[name]
                assert torch.equal(value, other) == (name != "image" or augment is None)
                assert (value.dtype, value.stride()) == (other.dtype, other.stride())


# --- what decides it ----------------------------------------------------------------------------


@BOTH
def test_the_order_is_decided_by_seed_and_epoch(samples: Samples, resident: bool) -> None:
    def order(seed: int, number: int, batch_size: int = 8) -> list[int]:
        loaders = LesionDataModule(samples, batch_size, seed=seed, resident=resident)
        return together(epoch(loaders.train_dataloader(), number), "index").tolist()

    torch.manual_seed(0)
    expected = order(seed=0, number=3)
    torch.manual_seed(1)
    assert order(seed=0, number=3, batch_size=5) == expected
    others = [order(seed=0, number=4), order(seed=1, number=3), order(seed=3, number=0)]
    assert all(other != expected and sorted(other) == sorted(expected) for other in others)


@BOTH
def test_a_balanced_epoch_draws_every_class_as_often(samples: Samples, resident: bool) -> None:
    loader = LesionDataModule(samples, 8, resident=resident, sampler="balanced").train_dataloader()
    orders = [together(epoch(loader, number), "index").tolist() for number in (5, 6, 5)]
    assert orders[0] == orders[2] != orders[1]
    assert {*samples.frame["split"].iloc[orders[0]]} == {"train"}
    labels = np.array([0] * 900 + [2] * 100)
    drawn = [sample for _, sample in EpochSampler(np.arange(5, 1005), True, 0, labels=labels)]
    assert len(drawn) == 1000 > len({*drawn})
    assert np.mean(np.array(drawn) >= 905) == pytest.approx(0.5, abs=0.05)  # 3 standard errors


def test_augmented_epochs_are_the_same_with_any_number_of_workers(samples: Samples) -> None:
    def images(workers: int) -> Tensor:
        loader = LesionDataModule(samples, 8, DATTA, 0, workers).train_dataloader()
        assert loader.num_workers == workers
        # Two epochs of one loader, whose workers live on, and the first one again.
        return torch.stack([together(epoch(loader, number), "image") for number in (0, 1, 0)])

    expected = images(workers=0)
    assert torch.equal(expected[0], expected[2])
    assert not torch.equal(expected[0], expected[1])
    assert torch.equal(images(workers=2), expected)


@BOTH
def test_an_image_is_augmented_anew_in_every_epoch_and_by_every_seed(
    samples: Samples, resident: bool
) -> None:
    on_device = ResidentDataset(samples, CPU)
    found = set()
    for seed, number in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        in_workers = LesionDataset(samples, DATTA, seed)
        dataset: Any = on_device.augmented(DATTA, seed) if resident else in_workers
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


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_lightning_draws_the_epoch_that_it_is_in(samples: Samples, resident: bool) -> None:
    recorder = Recorder()
    loaders = LesionDataModule(samples, 8, seed=4, resident=resident)
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", barebones=True)
    trainer.fit(recorder, loaders.train_dataloader())
    fresh = LesionDataModule(samples, 8, seed=4).train_dataloader()
    for number in range(3):
        assert recorder.seen[number] == together(epoch(fresh, number), "index").tolist()


# --- loaders ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(8, [8, 8, 8, 6]), (10, [10, 10, 10]), (29, [29]), (28, [28, 2]), (64, [30]), (1, [1] * 30)],
)
def test_a_last_training_batch_of_one_sample_is_dropped_and_no_other(
    samples: Samples, batch_size: int, sizes: list[int], resident: bool
) -> None:
    loader = LesionDataModule(samples, batch_size, resident=resident).train_dataloader()
    assert [len(batch["label"]) for batch in epoch(loader)] == sizes
    assert len(loader) == len(sizes)


@BOTH
def test_each_held_out_part_is_predicted_whole_in_batches_of_its_own_size(
    samples: Samples, resident: bool
) -> None:
    loaders = LesionDataModule(samples, 8, resident=resident, evaluation_batch=13)  # 14 = 13 + 1
    for loader in (loaders.val_dataloader(), *loaders.predict_dataloader()):
        assert [len(batch["label"]) for batch in loader] == [13, 1]
    assert len(next(iter(loaders.train_dataloader()))["label"]) == 8
    published = samples.frame.replace({"split": {"test": "train"}})
    assert len(LesionDataModule(replace(samples, frame=published), 4).predict_dataloader()) == 1


def test_workers_are_for_augmentation(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch warns of more workers than there are cores.
    monkeypatch.setattr(DataLoader, "check_worker_number_rationality", lambda self: None)
    cases = [(3, None, None, 0), (3, DATTA, None, 3), (3, DATTA, 1, 1), (64, DATTA, None, 8)]
    for cores, augment, wanted, expected in cases:
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        loaders = LesionDataModule(samples, 4, augment, workers=wanted)
        assert loaders.train_dataloader().num_workers == expected
        assert loaders.val_dataloader().num_workers == 0


def test_a_worker_that_is_not_forked_maps_the_cache_instead_of_being_sent_it(
    samples: Samples,
) -> None:
    dataset = LesionDataset(samples, DATTA, seed=0)
    sent = pickle.dumps(dataset)
    assert len(sent) < len(pickle.dumps(replace(samples, images=None))) + samples.images.nbytes / 2
    received = pickle.loads(sent)
    assert isinstance(received.samples.images, np.memmap)
    draws = [(0, 3), (1, 7)]
    for key, value in dataset.__getitems__(draws).items():
        assert torch.equal(received.__getitems__(draws)[key], value)


def test_on_a_cpu_the_mapped_cache_is_used_and_another_device_gets_images_some_at_a_time(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ResidentDataset(samples, CPU).images.data_ptr() == samples.images.ctypes.data
    loader = LesionDataModule(samples, 8, resident=None).train_dataloader()
    assert isinstance(loader.dataset, LesionDataset)
    monkeypatch.setattr("skinlesion.data.resident.UPLOAD", 10)
    # The meta device keeps no values, but every call that a GPU would get is made.
    resident = ResidentDataset(samples, torch.device("meta"))
    assert resident.images.shape == (len(samples.frame), *samples.images.shape[1:])
    batch = resident.__getitems__([(0, 1), (0, 5)])
    assert {value.device.type for value in batch.values()} == {"meta"}
