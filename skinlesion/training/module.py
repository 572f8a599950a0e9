"""The LightningModule: one step, its metrics, its optimizer. The network is plain torch."""

import io
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from skinlesion.data.batch import Batch
from skinlesion.training.metrics import BalancedAccuracy

Optimizer = Callable[..., torch.optim.Optimizer]
Scheduler = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.ReduceLROnPlateau]


class LesionModule(pl.LightningModule):
    """Trains a classifier.

    Args:
        network: image, metadata → logits.
        loss: logits, label → scalar.
        optimizer: called with the parameters.
        scheduler: called with the optimizer; steps on the validation loss of each epoch; None for a
            learning rate that stays.
        classes: number of classes.
        seed: with the epoch it decides every random number of that epoch.
        memory_format: in which images are handed to the network.
        compile_mode: mode of torch.compile; None: eager.
        description: plain values from which the network can be built again, kept in checkpoints.

    Attributes:
        rebuild: builds the network in a spawned process, which is sent only its weights.
    """

    rebuild: Callable[[], nn.Module]

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: Optimizer,
        scheduler: Scheduler | None,
        classes: int,
        seed: int,
        description: dict[str, Any],
        memory_format: torch.memory_format = torch.channels_last,
        compile_mode: str | None = None,
    ) -> None:
        """Keep the parts; the metrics stay on the device until the epoch ends."""
        super().__init__()
        self.save_hyperparameters(description)
        self.network, self.loss = network, loss
        self.make_optimizer, self.make_scheduler, self.seed = optimizer, scheduler, seed
        self.memory_format, self.compile_mode = memory_format, compile_mode
        # To validate its arguments a metric would wait for the device in every step.
        self.train_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_balanced_accuracy = BalancedAccuracy(classes)

    def __getstate__(self) -> dict[str, Any]:
        """Send the weights in the network's place, whose graph is too deep for pickle.

        They go as bytes: in torch's shared memory each tensor would be an open file.
        """
        state = super().__getstate__()
        weights = io.BytesIO()
        torch.save(self.network.state_dict(), weights)
        return state | {"_modules": state["_modules"] | {"network": weights.getvalue()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the network again."""
        super().__setstate__(state)
        weights = io.BytesIO(state["_modules"]["network"])
        self._modules["network"] = self.rebuild()
        self.network.load_state_dict(torch.load(weights, weights_only=True))

    def configure_model(self) -> None:
        """Let batch norms see the batch of all GPUs (on CPUs torch cannot), and compile.

        Lightning's own `sync_batchnorm` loses the activations that timm joins with batch norms.
        """
        if self.trainer.world_size > 1 and self.trainer.strategy.root_device.type == "cuda":
            self.network = convert_sync_batchnorm(self.network)
        if self.compile_mode is not None:
            self.network.compile(mode=self.compile_mode)  # in place: names of weights stay

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the plateau scheduler."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseed at the start of an epoch, so that a resumed run equals an uninterrupted one.

        Processes that train together draw different numbers, for different samples.
        """
        if batch_idx == 0:
            self._loss, self._trained = torch.zeros((), device=self.device), 0
            seed = self.seed * 1_000_003 + self.current_epoch
            torch.manual_seed(seed * self.trainer.world_size + self.global_rank)

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, C)."""
        image = batch["image"].contiguous(memory_format=self.memory_format)  # (B, 3, S, S)
        return self.network(image, batch["metadata"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        logits = self.logits(batch)
        loss = self.loss(logits, batch["label"])
        self.train_accuracy.update(logits, batch["label"])
        self._loss += loss.detach() * len(logits)
        self._trained += len(logits)
        if (
            self.trainer.is_last_batch
        ):  # Lightning's log in every step would cost up to a millisecond
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
        return batch["index"], self.logits(batch).float().softmax(dim=1)

    def on_train_epoch_end(self) -> None:
        """Step the scheduler here, because Lightning would only after the checkpoint is written.

        A resumed run would then have missed the last epoch's step.
        """
        scheduler: Any = self.lr_schedulers()
        val_loss = self.trainer.callback_metrics.get("val_loss")
        if scheduler and val_loss is not None:
            scheduler.step(val_loss)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Do nothing: see `on_train_epoch_end`."""

    def _log(self, values: dict[str, Any], samples: int) -> None:
        # Of whole numbers of samples Lightning's mean over processes would lose the fraction.
        weight: Any = float(samples)
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=weight)
