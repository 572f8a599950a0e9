"""The LightningModule: one step, its metrics, its optimizer. The network is plain torch."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from skinlesion.data.samples import Batch
from skinlesion.models.classifier import Classifier


class LesionModule(pl.LightningModule):
    """Trains a classifier.

    Args:
        network: image, metadata → logits; `at_step(step)` of its layers is called in each step.
        loss: logits, label → scalar; its `at(epoch)`, where it has one, is called in each epoch.
        optimizer: of the network's parameters.
        scheduler: of the optimizer; steps after each epoch, ReduceLROnPlateau on its validation
            loss; None for a learning rate that stays.
        classes: number of classes.
        seed: with the epoch it decides every random number of that epoch.
        memory_format: in which images are handed to the network.
        teacher: module, batch, logits → what is added to the loss; None for nothing.
        compile_mode: mode of torch.compile; None: eager.
        description: plain values from which the network can be built again, kept in checkpoints.
    """

    network: Classifier

    def __init__(
        self,
        network: Classifier,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        classes: int,
        seed: int,
        description: dict[str, Any],
        teacher: nn.Module | None = None,
        memory_format: torch.memory_format = torch.channels_last,
        compile_mode: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(description)
        self.network = network
        self.loss: Any = loss
        self.teacher = teacher
        self.optimizer, self.scheduler, self.seed = optimizer, scheduler, seed
        self._by_step: list[Any] = [m for m in network.modules() if hasattr(m, "at_step")]
        self.memory_format, self.compile_mode = memory_format, compile_mode
        # To validate its arguments a metric would wait for the device in every step.
        self.train_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_balanced_accuracy = BalancedAccuracy(classes)

    def configure_model(self) -> None:
        """Compile, in place: the names of the weights stay."""
        if self.compile_mode is not None:
            self.network.compile(mode=self.compile_mode)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the scheduler."""
        if self.scheduler is None:
            return self.optimizer
        return [self.optimizer], [{"scheduler": self.scheduler, "monitor": "val_loss"}]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseed at the start of an epoch, so that a resumed run equals an uninterrupted one."""
        if batch_idx == 0:
            self._loss, self._trained = torch.zeros((), device=self.device), 0
            torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
            if hasattr(self.loss, "at"):
                self.loss.at(self.current_epoch)
        for layer in self._by_step:
            layer.at_step(self.global_step)

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, C)."""
        image = batch["image"].contiguous(memory_format=self.memory_format)  # (B, 3, S, S)
        return self.network(image, batch["metadata"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        logits = self.logits(batch)
        loss = self.loss(logits, batch["label"])
        if self.teacher is not None:
            loss = loss + self.teacher(self, batch, logits)
        self.train_accuracy.update(logits, batch["label"])
        self._loss += loss.detach() * len(logits)
        self._trained += len(logits)
        if self.trainer.is_last_batch:  # logged in every step it would cost up to a millisecond
            epoch = {
                "train_loss": self._loss / self._trained,
                "train_accuracy": self.train_accuracy,
            }
            self._log(epoch, self._trained)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a batch."""
        logits = self.logits(batch)
        self.val_accuracy.update(logits, batch["label"])
        self.val_balanced_accuracy.update(logits, batch["label"])
        measured = {
            "val_loss": self.loss(logits, batch["label"]),
            "val_accuracy": self.val_accuracy,
            "val_balanced_accuracy": self.val_balanced_accuracy,
        }
        self._log(measured, len(logits))

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return which samples these are (B,) and their probabilities (B, C)."""
        if self.hparams["tta"] is None:
            return batch["index"], self.logits(batch).float().softmax(dim=1)
        from skinlesion.data.views import mean_over_views  # of Pillow, so on the host

        def predict(view: np.ndarray) -> np.ndarray:
            image = torch.from_numpy(view).to(self.device).permute(0, 3, 1, 2)
            return self.logits(batch | {"image": image}).float().softmax(dim=1).cpu().numpy()

        images = batch["image"].permute(0, 2, 3, 1).cpu().numpy()  # (B, S, S, C)
        found = mean_over_views(predict, images, self.hparams["tta"])
        return batch["index"], torch.from_numpy(found)

    def on_train_epoch_end(self) -> None:
        """Step the scheduler here, because Lightning would only after the checkpoint is written.

        A resumed run would then have missed the last epoch's step.
        """
        scheduler: Any = self.lr_schedulers()
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(self.trainer.callback_metrics["val_loss"])
        elif scheduler:
            scheduler.step()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Do nothing: see `on_train_epoch_end`."""

    def _log(self, values: dict[str, Any], samples: int) -> None:
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=samples)


class BalancedAccuracy(Metric):
    """The mean over the classes of the share of their samples that is classified correctly.

    Classes without a sample do not count. torchmetrics' macro accuracy is the same, but counts with
    `bincount`, for which the host waits for a GPU in every step.

    Args:
        classes: number of classes.
    """

    higher_is_better = True
    full_state_update = False
    hits: Tensor  # (C,)
    support: Tensor  # (C,)

    def __init__(self, classes: int) -> None:
        super().__init__()
        for name in ("hits", "support"):
            self.add_state(name, torch.zeros(classes), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count a batch: logits (B, C), label (B,)."""
        hit = (logits.argmax(dim=1) == label).float()  # (B,)
        self.hits.index_add_(0, label, hit)
        self.support.index_add_(0, label, torch.ones_like(hit))

    def compute(self) -> Tensor:
        """Return the balanced accuracy of what was counted."""
        recall = self.hits / self.support.clamp(min=1)  # (C,)
        return recall.sum() / (self.support > 0).sum().clamp(min=1)
