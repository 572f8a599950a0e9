import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from torch import nn

from skinlesion.training.build import build, open_data
from skinlesion.training.config import read_job, resolve
from skinlesion.training.teacher import (
    MeanTeacher,
    RelationTeacher,
    another_view,
    centres,
    divergence,
    ramp_up,
)


def test_the_average_takes_the_first_weights_then_half_then_a_third_of_the_way():
    student = nn.Linear(1, 1)
    teacher = MeanTeacher(student, labels=np.zeros(1, int), decay=0.6, start=9)
    # a = 0, 1/2, and 0.6 in the place of 2/3: 2, (2 + 4) / 2, 0.6 * 3 + 0.4 * 8
    for step, (value, expected) in enumerate([(2.0, 2.0), (4.0, 3.0), (8.0, 5.0)]):
        nn.init.constant_(student.weight, value)
        module = SimpleNamespace(network=student, global_step=step, current_epoch=0)
        assert teacher(module, {}, torch.zeros(1, 1)) == 0  # before its start
        assert teacher.average.module.weight.item() == pytest.approx(expected)


def test_the_ramp_and_the_divergence_worked_out_by_hand():
    found = [ramp_up(epoch, 30) for epoch in (0, 15, 30, 99)]
    assert found == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])
    # 1/4 and 3/4 against halves
    expected = math.log(1 / 2) / 4 + 3 / 4 * math.log(3 / 2)
    teacher, student = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    assert divergence(teacher, student).item() == pytest.approx(expected)


def test_centres_of_two_classes_worked_out_by_hand():
    # Class 0: (3, 0) and, after the ReLU, (0, 4): direction (3, 4) / 5. Class 1: (0, 1).
    bank = torch.tensor([[3.0, -1.0], [0.0, 2.0], [-5.0, 4.0]])
    # The fourth is of no class: it is not trained on.
    bank = torch.cat([bank, torch.ones(1, 2)])
    found = centres(bank, torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]]))
    assert found.flatten().tolist() == pytest.approx([0.6, 0.8, 0, 1])


class Seen(nn.Module):
    """A network whose features are the image's first two pixels."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(2, 3)

    def features(self, image, metadata):
        return image.flatten(1)[:, :2].float()


def relations(labels, **options):
    torch.manual_seed(0)
    return RelationTeacher(Seen(), np.array(labels), width=2, **options)


def test_ccd_worked_out_by_hand():
    teacher = relations([0, 1, -1], temperature=1 / math.log(2), positives=1, negatives=2)
    # Embeddings (1, 0) of the student and (0, 1) of the teacher; an image of each class.
    v = torch.eye(2)[:, None]
    teacher.bank[0, :2] = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    teacher.bank[1, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    # 2^(v · u) of positive, negative, negative: student 1, 2, 2, so that K m = 2 * 5/3; teacher
    # 1, 1/2, 1/2, so that K m = 2 * 2/3. Of the positive 1 / (1 + K m), of each negative
    # K m / (2^(v · u) + K m): 10/16 and 8/11.
    expected = math.log(13 / 3) + 2 * math.log(16 / 10) + math.log(7 / 3) + 2 * math.log(11 / 8)
    assert teacher.ccd(v, torch.tensor([[0, 1, 1]])).item() == pytest.approx(expected)
    teacher.ccd(v, torch.tensor([[1, 0, 0]]))  # K m stays as it was in the first step
    assert teacher.noise.exp().tolist() == pytest.approx([10 / 3, 4 / 3])


def test_what_is_drawn_is_an_image_itself_others_of_its_class_and_of_no_other_classes_images():
    teacher = relations([2, -1, 0, 2, 0, 1, 0], positives=50, negatives=99)
    batch = {"label": torch.tensor([2, 0, 1]), "index": torch.tensor([3, 4, 5])}
    drawn = teacher.draw(batch)
    assert drawn[:, 0].tolist() == [3, 4, 5]
    alike, others = ([set(row.tolist()) for row in part] for part in drawn.split([50, 99], 1))
    assert alike == [{0, 3}, {2, 4, 6}, {5}]
    assert others == [{2, 4, 5, 6}, {0, 3, 5}, {0, 2, 3, 4, 6}]


@pytest.mark.parametrize("contrast", [0, 0.5])
def test_the_contrast_is_from_the_first_epoch_and_the_banks_move_by_half(contrast):
    teacher = relations([0, 1, 2], contrast=contrast, positives=1, negatives=2, start=1)
    for layer in teacher.embed:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    image = torch.tensor([3, 4], dtype=torch.uint8).expand(1, 1, 2, 2)
    batch = {"image": image, "metadata": None} | {k: torch.tensor([2]) for k in ("label", "index")}
    teacher._seen = torch.tensor([[3.0, 4.0]], requires_grad=True)
    logits, before = torch.zeros(1, 3), teacher.bank.clone()
    added = teacher.added(0, batch, logits)
    assert (added.item() > 0) == bool(contrast)
    torch.testing.assert_close(teacher.bank[:, :2], before[:, :2])
    expected = F.normalize(before[0, 2] + torch.tensor([0.6, 0.8]), dim=0)
    torch.testing.assert_close(teacher.bank[0, 2], expected)
    added.backward()
    assert all(layer.weight.grad.any() == bool(contrast) for layer in teacher.embed)
    assert teacher._seen.grad.any() == bool(contrast)
    assert teacher.added(1, batch, logits) > 0  # consistency and relations


def test_another_view_has_the_same_pixels_elsewhere():
    torch.manual_seed(0)
    image = torch.arange(9).view(1, 1, 3, 3)
    views = {tuple(another_view(image).flatten().tolist()) for _ in range(99)}
    assert len(views) == 8  # four turns, each flipped or not
    assert all(sorted(view) == list(range(9)) for view in views)


def test_a_teacher_that_cannot_be_is_refused(config):
    job = read_job(config("teacher=crckd", "teacher.negatives=1.5"))
    with pytest.raises(InstantiationException, match=r"negatives=1\.5.*whole"):
        build(job, resolve(job), open_data(job))
    with pytest.raises(ValueError, match="at least two"):
        relations([1, -1, 1])
