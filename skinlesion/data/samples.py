"""From a folder to samples: read, check everything once, split, decode, encode."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import cache_path, open_cache
from skinlesion.data.encoding import MetadataEncoder
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split, describe, leak_report
from skinlesion.data.table import read_table, subset, table_digest
from skinlesion.errors import SkinlesionError, listing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Everything that batches are made of.

    Attributes:
        frame: the table with its column `split`; row i is sample i.
        images: (N_cache, S, S, 3) uint8, mapped from disk.
        rows: (N,) which image belongs to which sample.
        classes: in the order of the labels.
        encoder: the metadata encoder, fitted on the training rows.
        digest: SHA-256 of the table's and the images' content.
        leak: see `skinlesion.data.split.leak_report`.
    """

    frame: pd.DataFrame
    images: np.ndarray
    rows: np.ndarray
    classes: tuple[str, ...]
    encoder: MetadataEncoder
    digest: str
    leak: Mapping[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        """Name the mapped file: a process that is not forked would be sent every image."""
        images = self.images
        return self.__dict__ | {
            "images": images.filename if isinstance(images, np.memmap) else images
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file again."""
        self.__dict__.update(state)
        if not isinstance(self.images, np.ndarray):
            self.__dict__["images"] = np.load(self.images, mmap_mode="r")

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64 positions in `classes`."""
        return (
            self.frame["dx"]
            .map({name: i for i, name in enumerate(self.classes)})
            .to_numpy(np.int64, copy=True)
        )

    @cached_property
    def metadata(self) -> np.ndarray:
        """(N, M) float32, encoded."""
        return self.encoder.encode(self.frame)


@dataclass(frozen=True)
class CheckedArchive:
    """An archive that nothing is wrong with, and its split; nothing is decoded yet.

    Attributes:
        archive: the images.
        schema: what the archive is made of.
        table: every image.
        frame: the images that take part, with their column `split`.
    """

    archive: ImageArchive
    schema: Schema
    table: pd.DataFrame
    frame: pd.DataFrame

    def digest(self, cache: Path, size: int) -> str | None:
        """Return the data's digest (see `Samples`), None before the images were decoded.

        Args:
            cache: folder of the image caches.
            size: height and width of an image, in pixels.
        """
        image_ids = self.table["image_id"].tolist()
        if not cache_path(cache, self.archive, image_ids, size).exists():
            return None
        return _digest(self.table, open_cache(cache, self.archive, image_ids, size).digest)

    def load(self, cache: Path, size: int, missing: str = "category") -> Samples:
        """Open the image cache, decoding every image at the first use, and encode the metadata.

        Args:
            cache: folder of the image caches.
            size: height and width of an image, in pixels.
            missing: see `MetadataEncoder`.

        Raises:
            SkinlesionError: if images cannot be decoded or the cache cannot be written.
        """
        image_ids = self.table["image_id"].tolist()
        images = open_cache(cache, self.archive, image_ids, size)
        position = pd.Series(np.arange(len(image_ids)), index=image_ids)
        trained = self.frame[self.frame["split"] == "train"]
        return Samples(
            frame=self.frame,
            images=images.images,
            rows=position[self.frame["image_id"]].to_numpy(),
            classes=self.schema.classes,
            encoder=MetadataEncoder.fit(trained, self.schema.properties, missing),
            digest=_digest(self.table, images.digest),
            leak=leak_report(self.frame, self.schema.classes),
        )


def _digest(table: pd.DataFrame, images: str) -> str:
    return hashlib.sha256((table_digest(table) + images).encode()).hexdigest()


def check(
    root: Path, schema: Schema, cache: Path, size: int, split: Split, limit: int | None = None
) -> CheckedArchive:
    """Read and check an archive, and split it.

    Args:
        root: folder of the archive.
        schema: what it is made of.
        cache: folder of the image caches; the images of a finished cache are not checked again.
        size: height and width of an image, in pixels.
        split: the protocol.
        limit: use about this many images only.

    Raises:
        SkinlesionError: one error that names all that is wrong, before any image is decoded.
    """
    archive = ImageArchive(root)
    table, problems = read_table(archive, schema)
    image_ids = table["image_id"].tolist()
    if not cache_path(cache, archive, image_ids, size).exists():
        broken = archive.broken(image_ids)
        if broken:
            problems.append(
                f"images that are truncated, or neither JPEG nor PNG: {listing(broken)}"
            )
            table = table[~table["image_id"].isin(broken)]
    frame = table if limit is None else subset(table, limit, split.seed)
    try:
        frame = split.apply(frame, schema.classes)
    except SkinlesionError as error:
        problems.append(str(error))
    if problems:
        raise SkinlesionError(
            f"{root} cannot be used, {len(problems)} "
            f"{'thing is' if len(problems) == 1 else 'things are'} wrong:\n"
            + "".join(f"  - {problem}\n" for problem in problems)
            + "Mend the table or the images (HAM10000: fetch it again, make data), or what "
            "conf/data says of them (docs/own-data.md)."
        )
    log.info(describe(frame, split, schema.classes))
    return CheckedArchive(archive, schema, table, frame)
