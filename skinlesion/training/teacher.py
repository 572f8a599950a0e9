"""Mean teachers: a moving average of the network says what the network should (conf/teacher/).

Xing et al. 2021, arXiv:2107.03225: consistency with the teacher on another view (MeanTeacher), a
contrast of each image with others of its class and of other classes (CCD), and categorical
relations, of which class an embedding is how near (CRP).
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
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
        labels: (N,) class of each row of the table that is trained on, -1 of the others.
        decay: the most of the average that a step keeps.
        start: the epoch, from 0, from which the loss is added; the average runs from the first.
        ramp: the epoch from which it counts in full, see `ramp_up`.

    Raises:
        ValueError: if a number is none of these.
    """

    def __init__(
        self,
        network: Classifier,
        labels: np.ndarray,
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
        ).requires_grad_(False)
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
        return self.added(module.current_epoch, batch, logits)

    def added(self, epoch: int, batch: Batch, logits: Tensor) -> Tensor:
        """Return it in an epoch."""
        if epoch < self.start:
            return logits.new_zeros(())
        return self.consistency(epoch, self.look(batch), logits)

    def look(self, batch: Batch) -> Tensor:
        """Return the teacher's features (B, F) of another view of a batch."""
        teacher: Any = self.average.module
        with torch.no_grad():
            return teacher.features(another_view(batch["image"]), batch["metadata"])

    def consistency(self, epoch: int, features: Tensor, logits: Tensor) -> Tensor:
        """Return the divergence of the predictions, from the teacher's features (B, F)."""
        teacher: Any = self.average.module
        return ramp_up(epoch, self.ramp) * divergence(teacher.dense(features), logits)


class RelationTeacher(MeanTeacher):
    """Adds CCD to it from the first epoch, and CRP from `start`.

    Embeddings v (norm 1) are linear in what the last layer sees, for student and teacher by a layer
    each, which are trained. Two banks hold them by image, random at first and moved by half towards
    each newer one. CCD is noise contrastive estimation: of an image, P embeddings u of its class
    (first its own) and K of other classes are drawn from the other network's bank, and

        s = v · u / temperature - ln(K m)        m: mean of exp(v · u / temperature) at first
        CCD = mean over the P of -ln sigmoid(s) + sum over the K of -ln sigmoid(-s)

    is added for both networks. A class' centre is the mean of its bank after a ReLU, with norm 1,
    and CRP = KL(teacher || student) of the softmax over the classes of v · centre / temperature.

    Args:
        network, labels: as above.
        temperature: see there.
        contrast: weight of CCD; CRP's is 1.
        positives, negatives: P and K, drawn with replacement.
        width: E, of an embedding.
        options: `decay`, `start`, `ramp` as above.

    Raises:
        ValueError: if a number is none of these, or only one class is trained on.
    """

    bank: Tensor  # (2, N, E) of student and teacher, as all that has a 2 in front
    noise: Tensor  # (2,) ln(K m), not a number before the first step
    members: Tensor  # (C, N) 1 where an image of the training set is of a class
    rows: Tensor  # (n,) images of the training set, by class

    def __init__(
        self,
        network: Classifier,
        labels: np.ndarray,
        temperature: float = 0.07,
        contrast: float = 0.1,
        positives: int = 20,
        negatives: int = 4096,
        width: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(network, labels, **options)
        label, classes = torch.from_numpy(labels), network.dense.out_features
        members = F.one_hot(label + 1, classes + 1)[:, 1:].T
        whole = all(isinstance(n, int) and n > 0 for n in (positives, negatives, width))
        if not (whole and temperature > 0 and contrast >= 0):
            raise ValueError(
                f"temperature={temperature}, contrast={contrast}, positives={positives}, "
                f"negatives={negatives}, width={width}: expected a number above 0, one from 0, "
                "and three whole ones from 1"
            )
        if members.any(1).sum() < 2:
            raise ValueError("it contrasts classes: expected training images of at least two")
        self.temperature, self.contrast = temperature, contrast
        self.positives, self.negatives = positives, negatives
        features = network.dense.in_features
        self.embed = nn.ModuleList(nn.Linear(features, width) for _ in range(2))
        self.register_buffer("bank", F.normalize(torch.randn(2, len(label), width), dim=2))
        self.register_buffer("noise", torch.full((2,), math.nan))
        self.register_buffer("members", members.float(), persistent=False)
        rows = label.argsort(stable=True)[(label < 0).sum() :]
        self.register_buffer("rows", rows, persistent=False)
        network.dense.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._seen = given[0]  # (B, F) by the student

    def added(self, epoch: int, batch: Batch, logits: Tensor) -> Tensor:
        """Return it in an epoch; the banks take the embeddings between CCD and CRP."""
        features = self.look(batch)
        with torch.autocast(logits.device.type, enabled=False):  # bfloat16 is too coarse here
            both = zip(self.embed, (self._seen, features), strict=True)
            v = F.normalize(torch.stack([layer(f.float()) for layer, f in both]), dim=2)
            loss = self.contrast * self.ccd(v, self.draw(batch))
            index = batch["index"]
            self.bank[:, index] = F.normalize(self.bank[:, index] + v.detach(), dim=2)
            if epoch < self.start:
                return loss
            near = v @ centres(self.bank, self.members).mT / self.temperature  # (2, B, C)
        relations = divergence(near[1].detach(), near[0])
        return loss + self.consistency(epoch, features, logits) + relations

    def ccd(self, v: Tensor, drawn: Tensor) -> Tensor:
        """Return CCD of embeddings v (2, B, E) and what is drawn for them (B, P + K)."""
        near = v @ self.bank.flip(0).mT / self.temperature  # (2, B, N)
        near = near.gather(2, drawn.expand(2, -1, -1))  # (2, B, P + K)
        first = near.detach().logsumexp((1, 2)) + math.log(self.negatives / near[0].numel())
        self.noise = torch.where(self.noise.isnan(), first, self.noise)
        s = near - self.noise[:, None, None]
        alike, others = s[..., : self.positives], s[..., self.positives :]
        return (F.softplus(-alike).mean(2) + F.softplus(others).sum(2)).mean(1).sum()

    def draw(self, batch: Batch) -> Tensor:
        """Return images (B, P + K): of each one's class, first itself, then of other classes."""
        label, count = batch["label"], self.members.sum(1).long()  # (B,), (C,)
        first = (count.cumsum(0) - count)[label, None]  # (B, 1) where its class begins in rows
        count = count[label, None]
        # Of the host's generator, which a resumed run seeds alike; no device is waited for.
        drawn = torch.rand(len(label), self.positives + self.negatives, pin_memory=label.is_cuda)
        drawn = drawn.to(label.device, non_blocking=True)
        alike = first + (drawn[:, : self.positives] * count).long()
        others = (drawn[:, self.positives :] * (len(self.rows) - count)).long()
        others = others + count * (others >= first)  # past those of its class
        drawn = self.rows[torch.cat([alike, others], dim=1)]
        drawn[:, 0] = batch["index"]
        return drawn


def centres(bank: Tensor, members: Tensor) -> Tensor:
    """Return the centre of each class (…, C, E), norm 1, of a bank (…, N, E); members is (C, N)."""
    return F.normalize(members @ bank.relu(), dim=-1)  # of the sum as of the mean


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(teacher || student) of logits (B, C), the mean over the batch."""
    said, learned = teacher.float().log_softmax(dim=1), student.float().log_softmax(dim=1)
    return F.kl_div(learned, said, reduction="batchmean", log_target=True)


def ramp_up(epoch: int, full: int) -> float:
    """Return exp(-5 (1 - min(epoch, full) / full)²)."""
    return math.exp(-5 * (1 - min(epoch, full) / full) ** 2)


def another_view(image: Tensor) -> Tensor:
    """Return images (B, 3, S, S) turned by a quarter and flipped, alike and at random."""
    turns, flip = torch.randint(4, (2,)).tolist()  # on the host: no device is waited for
    turned = torch.rot90(image, turns, (2, 3))
    return turned.flip(3) if flip % 2 else turned
