import math

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate

from skinlesion.training.loss import CrossEntropy, MultiWeightedLoss

HAM10000 = [327, 514, 1099, 115, 1113, 6705, 142]  # images of each class, all 10,015


def test_classes_weigh_n_over_c_times_their_count():
    # N = 8, C = 2: 8 / (2 * 6) and 8 / (2 * 2)
    assert CrossEntropy([6, 2]).weight.tolist() == pytest.approx([2 / 3, 2])


def test_the_authors_weights_follow_from_all_their_images(plain):
    ours = CrossEntropy(HAM10000).weight
    released, rescaled = (
        instantiate(plain(f"loss={name}").loss, counts=[1] * 7).weight
        for name in ("released", "rescaled")
    )
    # 4.375, 2.784, 1.302, 12.441, 1.285, 0.213 and 10.075, rounded by hand
    assert released.tolist() == pytest.approx([4.37, 2.78, 1.3, 12.44, 1.28, 0.21, 10])
    assert ours.tolist() == pytest.approx(released.tolist(), rel=0.02)
    # The rescaled ones are the same ratios and a thirtieth of the size.
    assert rescaled.sum().item() == pytest.approx(1, abs=0.03)
    assert ((ours / rescaled > 28) & (ours / rescaled < 44)).all()


def test_the_batch_size_divides_and_not_the_sum_of_weights():
    logits, label = torch.zeros(2, 2), torch.tensor([0, 1])  # each sample loses log 2
    expected = (2 / 3 + 2) * math.log(2) / 2
    assert CrossEntropy([6, 2])(logits, label).item() == pytest.approx(expected)
    assert CrossEntropy([6, 2], weight=None)(logits, label).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("weigh_validation", "factor"), [(False, 1), (True, 4)])
def test_classes_weigh_in_training_only_as_in_keras(weigh_validation, factor):
    logits, label = torch.zeros(2, 2), torch.tensor([0, 1])
    loss = CrossEntropy([1, 1], weight=[3, 5], weigh_validation=weigh_validation)
    assert loss.train()(logits, label).item() == pytest.approx(4 * math.log(2))
    assert loss.eval()(logits, label).item() == pytest.approx(factor * math.log(2))


def test_divided_by_the_weights_it_is_pytorchs_own():
    torch.manual_seed(0)
    logits, label = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 2])
    loss = CrossEntropy([1, 1, 1], weight=[1, 2, 5], divide_by="weights")
    expected = F.cross_entropy(logits, label, weight=torch.tensor([1.0, 2, 5]))
    torch.testing.assert_close(loss(logits, label), expected)


def test_class_balanced_weighs_by_the_effective_number_of_samples():
    # beta = 1/2: effective numbers 1 and 1.75, inverse 1 and 4/7, with mean 1: 14/11 and 8/11
    weight = CrossEntropy([1, 3], weight="effective", beta=0.5).weight
    assert weight.tolist() == pytest.approx([14 / 11, 8 / 11])
    # beta = 0 weighs nothing; beta near 1 weighs as the inverse counts.
    assert CrossEntropy([1, 3], weight="effective", beta=0).weight.tolist() == [1, 1]
    almost = CrossEntropy([1, 3], weight="effective", beta=1 - 1e-9).weight
    assert almost.tolist() == pytest.approx([1.5, 0.5])


def test_focal_loss_takes_weight_from_what_is_easy():
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    for label, p in ((0, 1 / 4), (1, 3 / 4)):
        loss = CrossEntropy([1, 1], weight=None, focus=2)(logits, torch.tensor([label]))
        assert loss.item() == pytest.approx((1 - p) ** 2 * -math.log(p))


def test_focal_loss_of_a_certain_sample_has_a_finite_gradient():
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    CrossEntropy([1, 1], weight=None, focus=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad.isfinite().all()


def test_multi_weighted_loss_worked_out_by_hand():
    # p = 1/2 and 3/4: BCE log 2 and log 4, easy by (1/2)^2 and (3/4)^2; the class weighs 5.
    loss = MultiWeightedLoss([1, 1], weight=[5, 1])
    found = loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([0]))
    expected = 30 * 5 * (math.log(2) / 4 + math.log(4) * 9 / 16) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)
    # p = 1/20 of the true class costs log 10 and no more, times (19/20)^2; the other is 1/2.
    found = loss.eval()(torch.tensor([[-math.log(19), 0.0]]), torch.tensor([0]))
    expected = 30 * (math.log(10) * 0.95**2 + math.log(2) / 4) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"focus=2\.0, clip=1: expected"):
        MultiWeightedLoss([1, 1], clip=1)


@pytest.mark.parametrize(
    ("choice", "epoch", "power"),
    [("mwnl", 0, 1.2)]
    + [("mwnl_cumulative", e, k) for e, k in ((0, 0), (20, 0), (40, 0.3), (60, 1.2), (99, 1.2))]
    + [("deferred", 59, None), ("deferred", 60, 1)],
)
def test_the_weights_of_an_epoch(plain, choice, epoch, power):
    node = plain(f"loss={choice}").loss
    loss = instantiate(node, counts=HAM10000)
    loss.at(epoch)
    scores = [n ** -(power or 0) for n in HAM10000]  # k = 1.2 ((e - 20) / 40)^2
    if choice == "deferred":
        scores = [(1 - 0.999**n) ** -(power or 0) for n in HAM10000]
    assert loss.weight.tolist() == pytest.approx([7 * s / sum(scores) for s in scores], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": "balance"}, "weight=balance: expected balanced, effective, null or a number"),
        ({"weight": [1.0]}, r"weight=\[1.0\]: expected 2 numbers above 0"),
        ({"weight": [1.0, 0.0]}, "expected 2 numbers above 0"),
        ({"weight": "effective", "beta": 1}, "beta=1: expected a number from 0, below 1"),
        ({"focus": -1}, "focus=-1: expected a number from 0"),
        ({"divide_by": "sum"}, "divide_by=sum: expected one of batch, weights"),
        ({"schedule": {"from": 9, "to": 3, "power": 1}}, "epochs 0 <= from <= to"),
        ({"schedule": {"to": 3}}, r"schedule=\{'to': 3\}: expected from, to and power"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropy([1, 1], **arguments)
