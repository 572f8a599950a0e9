"""What happens around an epoch: history, stopping, checkpoints."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import callbacks

from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.runs.directory import HISTORY, RunDirectory, write_history

log = logging.getLogger(__name__)


class History(callbacks.Callback):
    """Keeps a row an epoch, in the checkpoint and from there in `history.csv`.

    Because the checkpoint holds the rows, a resumed run's history has no hole and no repeat.

    Args:
        path: where the CSV is written.
        log_epochs: whether to log a line an epoch (for when there is no progress bar).
    """

    def __init__(self, path: Path, log_epochs: bool) -> None:
        self.path, self.log_epochs = path, log_epochs
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note when an epoch begins (on_train_epoch_start is not called after a resumption)."""
        if batch_idx == 0:
            self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row and write the file."""
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            **measured,
            "epoch": trainer.current_epoch + 1,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        self.rows.append({name: row[name] for name in HISTORY if name in row})
        write_history(self.rows, self.path)
        if self.log_epochs:
            log.info(
                "epoch %d/%s  loss %.3f  val_loss %.3f  val_accuracy %.3f  "
                "val_balanced_accuracy %.3f  lr %.0e  %.1f s",
                *(row["epoch"], trainer.max_epochs, row["train_loss"], row["val_loss"]),
                *(row["val_accuracy"], row["val_balanced_accuracy"], row["lr"], row["seconds"]),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows from the checkpoint."""
        self.rows = list(state_dict["rows"])


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which also knows after a resumption that it had already stopped."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further epoch if the checkpoint is of a stopped run."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class FiniteLoss(callbacks.Callback):
    """Stops the run as soon as its loss is NaN or infinite, and saves which images led to it.

    A GPU is not waited for: whether a step was finite is copied in its stream and read in a later
    step, when it has arrived.

    Args:
        directory: where `non_finite.json` is written.
        image_ids: of all samples, by the batch's `index`.
    """

    def __init__(self, directory: RunDirectory, image_ids: Sequence[str]) -> None:
        self.directory, self.image_ids = directory, image_ids
        self._steps: deque[tuple[int, torch.Tensor, torch.Tensor, torch.cuda.Event | None]]
        self._steps = deque()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at the steps whose loss has arrived."""
        loss, arrived = outputs["loss"].detach(), None
        if loss.is_cuda:
            copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
            loss = copy.copy_(loss, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._steps.append((batch_idx, loss, batch["index"], arrived))
        while self._steps and ((event := self._steps[0][3]) is None or event.query()):
            self._check(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at all steps and at the validation loss, before anything is saved."""
        if self._steps and (event := self._steps[-1][3]) is not None:
            event.synchronize()
        while self._steps:
            self._check(trainer)
        if not (loss := trainer.callback_metrics["val_loss"]).isfinite():
            self._stop(trainer, "validation", loss, [])

    def _check(self, trainer: pl.Trainer) -> None:
        step, loss, index, _ = self._steps.popleft()
        if not loss.isfinite():
            self._stop(trainer, f"step {step + 1}", loss, [self.image_ids[i] for i in index])

    def _stop(self, trainer: pl.Trainer, step: str, loss: torch.Tensor, images: list[str]) -> None:
        epoch, lr = trainer.current_epoch + 1, trainer.optimizers[0].param_groups[0]["lr"]
        found = {"epoch": epoch, "step": step, "loss": f"{loss:g}", "lr": lr, "images": images}
        self.directory.write_json("non_finite.json", found)
        raise SkinlesionError(
            f"the loss is {loss:g} in epoch {epoch}, {step}, with a learning rate of {lr:g}; the "
            "run is stopped. Try a smaller optimizer.lr, or precision=32-true. The images of that "
            f"step: {self.directory.path / 'non_finite.json'}"
        )


class Checkpoint(callbacks.ModelCheckpoint):
    """Lightning's, saving at the end of an epoch, for a run directory that may be moved.

    Args:
        dirpath: the run's folder of checkpoints.
        filename: name without `.ckpt`, replaced by each newer checkpoint.
        monitor: save only when this improves; None: after every epoch.
        mode: `min` or `max`.
    """

    def __init__(
        self, dirpath: Path, filename: str, monitor: str | None = None, mode: str = "min"
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score along, which Lightning forgets when the folder has another path."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here) / Path(path).name) if path else path

        super().load_state_dict(
            state_dict
            | {"dirpath": here}
            | {name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
            | {"best_k_models": {moved(k): v for k, v in state_dict["best_k_models"].items()}}
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    Lightning writes into TMPDIR and moves the file, which between file systems is a copy over the
    good one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write beside and rename."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # of torch, in the place of what the disk said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
