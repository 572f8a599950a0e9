"""From a folder to samples and batches: read, check everything once, split, decode, encode."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import cache_path, open_cache
from skinlesion.data.encoding import MetadataEncoder
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split, leak_report, split_summary
from skinlesion.data.table import read_table, subset, table_digest
from skinlesion.errors import SkinlesionError

Draw = tuple[int, int]  # epoch, sample
Batch = dict[str, Tensor]  # image (B, 3, S, S) uint8, metadata (B, M), label (B,), index (B,)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Everything that batches are made of.

    Attributes:
        frame: the table with its column `split`; row i is sample i.
        images: (N_cache, S, S, 3) uint8, mapped from disk.
        rows: (N,) which image belongs to which sample.
        classes: in the order of the labels.
        encoder: fitted on the training rows.
        digest: SHA-256 of the table's and the images' content.
    """

    frame: pd.DataFrame
    images: np.ndarray
    rows: np.ndarray
    classes: tuple[str, ...]
    encoder: MetadataEncoder
    digest: str

    def __getstate__(self) -> dict[str, Any]:
        """Name the mapped file: a worker that is not forked would be sent every image."""
        images: Any = self.images
        return self.__dict__ | {"images": getattr(images, "filename", images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state["images"], np.ndarray):
            state["images"] = np.load(state["images"], mmap_mode="r")
        self.__dict__.update(state)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64 positions in `classes`, -1 for a class that is not trained."""
        return pd.Index(self.classes).get_indexer(pd.Index(self.frame["dx"])).astype(np.int64)

    @cached_property
    def metadata(self) -> np.ndarray:
        """(N, M) float32, encoded."""
        return self.encoder.encode(self.frame)

    def answered(self, index: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
        """Return the table of the predictions file of samples (n,) and their answers (n, C)."""
        frame = self.frame.loc[index, ["image_id", "lesion_id", "split", "dx"]]
        frame = frame.rename(columns={"dx": "label"}).reset_index(drop=True)
        return frame.join(pd.DataFrame(probabilities.astype(float), columns=list(self.classes)))

    @cached_property
    def leak(self) -> Mapping[str, Any]:
        """See `skinlesion.data.split.leak_report`."""
        return leak_report(self.frame, self.classes)


class LesionDataset(Dataset[Batch]):
    """Samples fetched a batch at a time, straight from the mapped cache.

    Seed, epoch and sample decide an image's augmentation, so that it does not depend on the number
    of workers or the order of fetching.
    """

    def __init__(self, samples: Samples, augment: Any = None, seed: int = 0) -> None:
        self.samples = samples
        self.metadata = torch.from_numpy(samples.metadata)  # (N, M)
        self.labels = torch.from_numpy(samples.labels)  # (N,)
        self.augment, self.seed = augment, seed

    def __getitems__(self, draws: list[Draw]) -> Batch:
        """Return the batch of these draws, which are of one epoch."""
        device, sample = self.labels.device, [sample for _, sample in draws]
        on_gpu = device.type == "cuda"  # copied from pinned memory, or the host would wait for it
        index = torch.tensor(sample, pin_memory=on_gpu).to(device, non_blocking=on_gpu)  # (B,)
        metadata, label = self.metadata[index], self.labels[index]  # (B, M), (B,)
        image = self._images(draws, index)  # (B, 3, S, S)
        return {"image": image, "metadata": metadata, "label": label, "index": index}

    def _images(self, draws: list[Draw], index: Tensor) -> Tensor:
        images = self.samples.images[self.samples.rows[index.numpy()]]  # (B, S, S, 3), a copy
        if self.augment is not None:
            for image, draw in zip(images, draws, strict=True):
                seed = np.random.SeedSequence([self.seed, *draw]).generate_state(1)[0]
                image[:] = self.augment(image, int(seed))
        # The permuted view is channels_last in memory, which convolutions prefer.
        return torch.from_numpy(images).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class CheckedArchive:
    """An archive that nothing is wrong with, and its split; nothing is decoded yet.

    Attributes:
        table: every image.
        frame: the images that take part, with their column `split`.
        classes: in the order of the labels.
        encoder: fitted on the training rows.
    """

    archive: ImageArchive
    table: pd.DataFrame
    frame: pd.DataFrame
    classes: tuple[str, ...]
    encoder: MetadataEncoder

    @property
    def counts(self) -> list[int]:
        """Training images of each class."""
        return np.bincount(self.labels + 1, minlength=len(self.classes) + 1)[1:].tolist()

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 position in `classes` of a training image, -1 of any other."""
        label = pd.Index(self.classes).get_indexer(pd.Index(self.frame["dx"]))
        return np.where(self.frame["split"] == "train", label, -1).astype(np.int64)

    def digest(self, cache: Path, size: int) -> str | None:
        """Return the data's digest (see `Samples`), None before the images were decoded."""
        path = cache_path(cache, self.archive, self.table["image_id"], size)
        return self.load(cache, size).digest if path.exists() else None

    def load(self, cache: Path, size: int) -> Samples:
        """Open the cache in a folder of images of a size, decoding them at the first use.

        Raises:
            SkinlesionError: if images cannot be decoded or the cache cannot be written.
        """
        image_ids = self.table["image_id"]
        images, digest = open_cache(cache, self.archive, [*image_ids], size)
        digest = hashlib.sha256((table_digest(self.table) + digest).encode()).hexdigest()
        rows = pd.Index(image_ids).get_indexer(pd.Index(self.frame["image_id"]))
        return Samples(self.frame, images, rows, self.classes, self.encoder, digest)


def open_archive(
    root: Path, data: Any, split: Split, missing: str = "category", test: Path | None = None
) -> CheckedArchive:
    """Read and check an archive, split it, and learn the metadata's statistics.

    Args:
        root: its folder.
        data: what it is made of, as conf/data/ says it.
        split: the protocol.
        missing: how `MetadataEncoder` encodes what is unknown.
        test: folder of the test set, if `data.test` declares one.

    Raises:
        SkinlesionError: one error that names all that is wrong, before any image is decoded.
    """
    schema = Schema.from_config(data)
    if schema.unknown and (split.by != "lesion" or "test" not in split.parts or schema.test):
        expected = "expected split=lesion, whose test part shows no lesion that was trained on"
        raise SkinlesionError(f"data.unknown with split={split.name}: {expected}.")
    archive = ImageArchive(root, schema.region)
    table, problems = read_table(archive, schema)
    frame = table if schema.limit is None else subset(table, schema.limit, split.seed)
    try:
        frame = split.apply(frame, schema.known)
    except SkinlesionError as error:
        problems.append(str(error))
    if schema.test and test:
        from skinlesion.data.test_set import join_test_set

        tested = join_test_set(archive, table, problems, test, data)
        frame = pd.concat([frame, tested.assign(split="test")], ignore_index=True)
        table = pd.concat([table, tested], ignore_index=True)
    if problems:
        things = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
        raise SkinlesionError(
            f"{root} cannot be used, {things} wrong:\n"
            + "".join(f"  - {problem}\n" for problem in problems)
            + "Mend the table or the images (HAM10000: fetch it again, make data), or what "
            "conf/data says of them (docs/own-data.md)."
        )
    log.info(split_summary(frame, split, schema.known))
    encoder = MetadataEncoder.fit(frame[frame["split"] == "train"], schema.untrained, missing)
    return CheckedArchive(archive, table, frame, tuple(schema.known), encoder)
