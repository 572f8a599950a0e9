"""The work of a step is counted as it is done."""

import pytest
import torch
from torch import nn

from skinlesion.bench.work import Peaks, Traffic, Work, count, counter
from skinlesion.training.compute import resolve

BACKBONE = "mobilenet_v3_small"


def traffic_of(function) -> tuple[int, int]:
    with Traffic() as traffic:
        function()
    return traffic.bytes, traffic.launches


def test_the_flop_of_a_convolution_are_two_for_each_weight_and_output() -> None:
    image = torch.zeros(2, 6, 8, 8)
    with counter() as flop:
        nn.Conv2d(6, 10, kernel_size=3, padding=1)(image)
    assert flop.get_total_flops() == 2 * (2 * 10 * 8 * 8) * (6 * 3 * 3)


@pytest.mark.parametrize(("groups", "weights"), [(1, 6 * 3 * 3), (2, 3 * 3 * 3), (6, 3 * 3)])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(groups, weights) -> None:
    image = torch.zeros(2, 6, 8, 8, requires_grad=True)
    conv = nn.Conv2d(6, 12, kernel_size=3, padding=1, groups=groups)
    with counter() as flop:
        conv(image).sum().backward()
    assert flop.get_total_flops() == 3 * 2 * (2 * 12 * 8 * 8) * weights


def test_an_image_needs_no_gradient() -> None:
    with counter() as flop:
        nn.Conv2d(6, 10, kernel_size=3)(torch.zeros(2, 6, 8, 8)).sum().backward()
    assert flop.get_total_flops() == 2 * 2 * (2 * 10 * 6 * 6) * (6 * 3 * 3)


def test_an_op_reads_its_inputs_and_writes_its_outputs() -> None:
    a, b = torch.zeros(4, 5), torch.zeros(4, 5)
    assert traffic_of(lambda: a + b) == (3 * 80, 1)
    assert traffic_of(lambda: a.add_(b)) == (3 * 80, 1)
    assert traffic_of(lambda: a.copy_(b)) == (2 * 80, 1)
    assert traffic_of(lambda: a.zero_()) == (80, 1)
    assert traffic_of(lambda: a.sum()) == (80 + 4, 1)
    assert traffic_of(lambda: a.bfloat16()) == (80 + 40, 1)


def test_a_view_moves_nothing_and_an_expanded_dimension_is_read_once() -> None:
    row = torch.zeros(1, 5)
    assert traffic_of(lambda: row.view(5).t()) == (0, 0)
    assert traffic_of(lambda: torch.empty(4, 5)) == (0, 0)
    assert traffic_of(lambda: row.expand(4, 5) + 1) == (20 + 80, 1)


def test_a_step_counted_on_shapes_is_the_step_that_is_taken(setting) -> None:
    config = setting.job(BACKBONE)
    compute, samples = resolve(config), setting.samples(config)
    step = setting.steps(config)
    step()
    with counter() as flop, Traffic() as traffic:
        step()
    counted = count(config, samples, compute, config.batch_size)
    assert counted.flop == flop.get_total_flops()
    assert counted.bytes == pytest.approx(traffic.bytes, rel=0.02)
    assert counted.launches == pytest.approx(traffic.launches, rel=0.1)
    assert counted.flop == pytest.approx(3 * counted.forward_flop, rel=0.1)


def test_bfloat16_moves_fewer_bytes_for_the_same_flop(setting) -> None:
    work = {}
    for precision in ("32-true", "bf16-mixed"):
        config = setting.job(BACKBONE, f"precision={precision}")
        work[precision] = count(config, setting.samples(config), resolve(config), 64)
    assert work["bf16-mixed"].flop == work["32-true"].flop
    assert work["bf16-mixed"].bytes < 0.8 * work["32-true"].bytes


def test_the_largest_bound_limits() -> None:
    work = Work(forward_flop=1, flop=100, bytes=50, launches=3)
    bounds = work.bounds(Peaks(flop=10, bytes=10, launch=2))
    assert bounds == {"arithmetic": 10, "memory": 5, "launches": 6}
