import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from torch import nn

from skinlesion.training.build import build, open_data
from skinlesion.training.config import read_job, resolve
from skinlesion.training.teacher import MeanTeacher, another_view, centres, divergence, ramp_up


def test_the_average_takes_the_first_weights_then_half_then_a_third_of_the_way():
    student = nn.Linear(1, 1)
    teacher = MeanTeacher(student, samples=1, classes=1, decay=0.6, start=9)
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
    found = centres(bank, torch.tensor([0, 1, 0]), 2)
    assert found.flatten().tolist() == pytest.approx([0.6, 0.8, 0, 1])


def test_another_view_has_the_same_pixels_elsewhere():
    torch.manual_seed(0)
    image = torch.arange(9).view(1, 1, 3, 3)
    views = {tuple(another_view(image).flatten().tolist()) for _ in range(99)}
    assert len(views) == 8  # four turns, each flipped or not
    assert all(sorted(view) == list(range(9)) for view in views)


CHOICES = ("attention=spectral loss=mwnl", "attention=spectral attention.transform=dft")
CHOICES += ("experiment=rival_gessert", "teacher=mean teacher.start=0", "teacher=crckd")


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet50"])
def test_each_rival_makes_a_step_with_very_different_backbones(config, choice, backbone):
    composed = config(*choice.split(), f"backbone={backbone}", "weights=none", "preprocess=paper")
    job = read_job(composed)
    data = open_data(job)
    module = build(job, resolve(job), data).module.train()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    width = sum(data.encoder.sizes)
    batch = {"image": image, "metadata": torch.zeros(2, width), "label": torch.tensor([0, 5])}
    batch["index"] = torch.tensor([0, 1])
    logits = module.logits(batch)
    loss = module.loss(logits, batch["label"])
    if module.teacher is not None:
        assert not module.teacher.average.module.training
        at = SimpleNamespace(network=module.network, global_step=0, current_epoch=20)
        added = module.teacher(at, batch, logits)
        assert added > 0
        loss = loss + added
    loss.backward()
    module.optimizer.step()
    assert loss.isfinite()
    assert module.network.dense.weight.grad.any()
    assert F.softmax(module.logits(batch), dim=1).isfinite().all()


def test_relations_need_a_hidden_layer(config):
    job = read_job(config("teacher=crckd", "hidden=null"))
    with pytest.raises(InstantiationException, match="hidden=128"):
        build(job, resolve(job), open_data(job))
