"""The history of a run: a CSV with one row per epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("epoch", "train_loss", "train_accuracy"),
    *("val_loss", "val_accuracy", "val_balanced_accuracy", "lr", "seconds"),
)


def read_history(path: str | Path) -> "pd.DataFrame":
    """Read a history; SkinlesionError if it is missing or no CSV."""
    import pandas as pd

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise SkinlesionError(f"{path} cannot be read as a history: {error}") from error


def write_history(rows: Sequence[dict[str, float]], path: str | Path) -> None:
    """Write the rows, whole or not at all."""
    import pandas as pd

    with replacing(path) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
