"""The images and the metadata of a finished run, by image id."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from skinlesion.data.archive import ImageArchive
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.data.test_set import join_test_set
from skinlesion.errors import SkinlesionError, listing


class RunImages(NamedTuple):
    """What a run was trained and measured on; the table is by image id.

    Attributes:
        properties: which of the table's columns are metadata.
    """

    archive: ImageArchive
    table: pd.DataFrame
    properties: tuple[str, ...]

    def only(self, ids: Sequence[str]) -> "RunImages":
        """Return some of them, in this order, or say which are not there."""
        if absent := [image_id for image_id in ids if image_id not in self.table.index]:
            raise SkinlesionError(f"{self.archive.root} lacks images of the run: {listing(absent)}")
        return self._replace(table=self.table.loc[[*ids]])

    def pixels(self, image_id: str) -> np.ndarray:
        """Return an image as the run saw it, (H, W, 3) uint8, RGB, or say why it cannot be read."""
        try:
            return self.archive.pixels(image_id)[0]
        except SkinlesionError as error:
            raise SkinlesionError(f"{self.archive.root}: {image_id}: {error}") from None

    def metadata(self, image_id: str) -> dict[str, Any]:
        """Return an image's properties, or say that the table lacks it."""
        if image_id not in self.table.index:
            raise SkinlesionError(f"{self.archive.root}: {image_id}: not in the metadata table")
        return {name: self.table.loc[image_id, name] for name in self.properties}


def open_run_images(config: DictConfig, root: Path | None = None) -> RunImages:
    """Open the images of a run, but for those whose rows something is wrong with by now.

    Args:
        config: of the run.
        root: their folder; None: the one that the run was trained on.

    Raises:
        SkinlesionError: one line that says why they are not at hand.
    """
    root = root or OmegaConf.select(config, "machine.data")
    if root is None:
        raise SkinlesionError("the run does not say where its images are (it was collected)")
    try:
        schema = Schema.from_config(config.data)
        archive = ImageArchive(Path(root), schema.region)
        table, problems = read_table(archive, schema)
        if schema.test and (folder := OmegaConf.select(config, "machine.test")):
            tested = join_test_set(archive, table, problems, Path(folder), config.data)
            table = pd.concat([table, tested])
    except SkinlesionError as error:
        raise SkinlesionError(str(error).splitlines()[0].rstrip(".:")) from None
    return RunImages(archive, table.set_index("image_id"), tuple(schema.properties))
