"""Dropout drops as often as torch's, and scales what it keeps."""

import pytest
import torch

from skinlesion.models.dropout import Dropout

ONES = torch.ones(100_000)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_zero_with_probability_p_and_else_scaled(p, dtype):
    torch.manual_seed(0)
    dropped = Dropout(p)(ONES.to(dtype))
    assert dropped.dtype == dtype
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)))
    error = (p * (1 - p) / len(ONES)) ** 0.5
    assert abs(1 - len(kept) / len(ONES) - p) < 4 * error


def test_the_gradient_is_that_of_what_was_kept():
    values = torch.randn(1000, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped.sum().backward()
    assert values.grad.tolist() == (2.0 * (dropped != 0)).tolist()


def test_the_seed_decides_and_every_call_draws_anew():
    def draw():
        torch.manual_seed(1)
        drop = Dropout(0.5)
        return drop(ONES), drop(ONES)

    first, second = draw()
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(draw()), torch.stack((first, second)))


@pytest.mark.parametrize(("p", "expected"), [(0, 1.0), (1, 0.0)])
def test_nothing_or_all_may_be_dropped(p, expected):
    assert Dropout(p)(ONES).unique().tolist() == [expected]


def test_nothing_is_dropped_but_in_training():
    assert torch.equal(Dropout(0.5).eval()(ONES), ONES)
