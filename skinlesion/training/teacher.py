"""Mean teachers: a moving average of the network says what the network should (conf/teacher/).

Xing et al. 2021, arXiv:2107.03225: consistency with the teacher on another view, and categorical
relations, of which class an embedding is how near. Their contrastive part (CCD) is left out.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from skinlesion.data.samples import Batch
from skinlesion.models.classifier import Classifier

if TYPE_CHECKING:
    from skinlesion.training.module import LesionModule


class MeanTeacher(nn.Module):
    """Adds ramp(epoch) KL(teacher || student) of the predictions to the loss.

    The teacher averages weights and statistics, with a = min(1 - 1 / (step + 1), decay), and sees
    the batch turned and flipped at random, in evaluation mode.

    Args:
        network: the student.
        samples: rows of the table, N.
        classes: C.
        decay: the most of the average that a step keeps.
        start: the epoch, from 0, from which the loss is added; the average runs from the first.
        ramp: the epoch from which it counts in full, see `ramp_up`.

    Raises:
        ValueError: if a number is none of these.
    """

    def __init__(
        self,
        network: Classifier,
        samples: int,
        classes: int,
        decay: float = 0.99,
        start: int = 20,
        ramp: int = 30,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1 or start < 0 or ramp < 1:
            raise ValueError(
                f"decay={decay}, start={start}, ramp={ramp}: expected a number from 0 and below 1, "
                "an epoch from 0 and one from 1"
            )
        self.average = ModelEmaV3(
            network, decay=decay, use_warmup=True, warmup_gamma=1.0, warmup_power=1.0
        )
        self.start, self.ramp = start, ramp

    def train(self, mode: bool = True) -> "MeanTeacher":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, module: "LesionModule", batch: Batch, logits: Tensor) -> Tensor:
        """Return what is added to the loss of a batch, whose logits (B, C) are the student's.

        The average moves first: it takes the weights that the steps so far have led to.
        """
        # timm counts steps from 1, and its a is 1 - 1 / step.
        self.average.update(module.network, module.global_step + 1)
        if module.current_epoch < self.start:
            return logits.new_zeros(())
        teacher: Any = self.average.module
        with torch.no_grad():
            features = teacher.features(another_view(batch["image"]), batch["metadata"])
            said = teacher.dense(features)  # (B, C)
        weight = ramp_up(module.current_epoch, self.ramp)
        return weight * divergence(said, logits) + self.relations(batch, features)

    def relations(self, batch: Batch, features: Tensor) -> Tensor | float:
        """Return a further loss on the teacher's features (B, F)."""
        return 0.0


class RelationTeacher(MeanTeacher):
    """Adds KL(teacher || student) of how near an embedding is to the centre of each class.

    Embeddings are what the last layer sees, with norm 1. A bank holds the teacher's of each sample,
    moved by half towards each newer one; a class' centre is the mean of theirs after a ReLU, with
    norm 1; the nearness is the softmax over the classes of embedding · centre / temperature.

    Args:
        network: the student, with a hidden layer.
        samples, classes: as above.
        temperature: see there.
        options: `decay`, `start`, `ramp` as above.

    Raises:
        ValueError: if the network has no hidden layer.
    """

    bank: Tensor  # (N, F)
    owner: Tensor  # (N,) class of a sample; of one not yet seen the embedding is zero

    def __init__(
        self,
        network: Classifier,
        samples: int,
        classes: int,
        temperature: float = 0.07,
        **options: Any,
    ) -> None:
        super().__init__(network, samples, classes, **options)
        if network.hidden is None:
            raise ValueError("it compares embeddings of a hidden layer: say hidden=128")
        self.temperature, self.classes = temperature, classes
        self.register_buffer("bank", torch.zeros(samples, network.dense.in_features))
        self.register_buffer("owner", torch.zeros(samples, dtype=torch.long))
        network.dense.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._embedded = given[0]  # (B, F) of the student

    def relations(self, batch: Batch, features: Tensor) -> Tensor:
        """Return the divergence of the relations, after the bank has taken the features."""
        index, teacher = batch["index"], F.normalize(features.float(), dim=1)
        self.owner[index] = batch["label"]
        self.bank[index] = F.normalize(self.bank[index] + teacher, dim=1)
        found = centres(self.bank, self.owner, self.classes).T / self.temperature  # (F, C)
        student = F.normalize(self._embedded.float(), dim=1)
        with torch.autocast(student.device.type, enabled=False):  # bfloat16 is too coarse here
            return divergence(teacher @ found, student @ found)


def centres(bank: Tensor, owner: Tensor, classes: int) -> Tensor:
    """Return the centre of each class (C, F), of norm 1, from embeddings (N, F) of classes (N,)."""
    total = bank.new_zeros(classes, bank.shape[1]).index_add_(0, owner, bank.relu())
    return F.normalize(total, dim=1)  # of the sum as of the mean


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(teacher || student) of logits (B, C), the mean over the batch."""
    said, learned = teacher.float().log_softmax(dim=1), student.float().log_softmax(dim=1)
    return F.kl_div(learned, said, reduction="batchmean", log_target=True)


def ramp_up(epoch: int, full: int) -> float:
    """Return exp(-5 (1 - min(epoch, full) / full)²)."""
    return math.exp(-5 * (1 - min(epoch, full) / full) ** 2)


def another_view(image: Tensor) -> Tensor:
    """Return images (B, 3, S, S) turned by a quarter and flipped, alike and at random."""
    turns, flip = torch.randint(
        4, (2,)
    ).tolist()  # of the host's generator: no device is waited for
    turned = torch.rot90(image, turns, (2, 3))
    return turned.flip(3) if flip % 2 else turned
