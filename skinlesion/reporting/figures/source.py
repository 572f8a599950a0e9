"""The images of a run, for the figures that show some."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from skinlesion.data.archive import READ_ERRORS, ImageArchive
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError

ELSEWHERE = (
    "With the folder of its images: python -m skinlesion.reporting figures RUN --data FOLDER"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where pictures and metadata come from: the archive, and each image's properties by id."""

    archive: ImageArchive
    table: pd.DataFrame

    def read(self, image_id: str) -> bytes:
        """Return the bytes of an image.

        Raises:
            SkinlesionError: if it is not there or cannot be read.
        """
        try:
            return self.archive.read(image_id)
        except (KeyError, *READ_ERRORS) as error:
            raise SkinlesionError(f"{self.archive.root}: no {image_id} ({error})") from None

    def metadata(self, image_id: str) -> dict[str, Any]:
        """Return an image's properties."""
        return {str(name): value for name, value in self.table.loc[image_id].items()}


def open_source(config: DictConfig, data_root: Path | None) -> Source | None:
    """Open the images of a run; None, and one line of log that says why, where they are not here.

    Args:
        config: of the run.
        data_root: the folder of the images; None: the config's `machine.data`.
    """
    root = data_root or OmegaConf.select(config, "machine.data")
    if root is None:
        why = "the run does not say where its images are (it was collected)"
        log.warning("mistakes and attention are not drawn: %s. %s", why, ELSEWHERE)
        return None
    try:
        archive = ImageArchive(Path(root))
        schema = Schema.from_config(config.data)
        table, _ = read_table(archive, schema)
    except SkinlesionError as error:
        why = str(error).split("\n")[0].rstrip(".")
        log.warning("mistakes and attention are not drawn: %s. %s", why, ELSEWHERE)
        return None
    return Source(archive, table.set_index("image_id")[[*schema.properties]])
