import math

import pytest
import torch

from skinlesion.training.loss import CrossEntropy


def test_classes_weigh_n_over_c_times_their_count() -> None:
    # N = 8, C = 2: 8 / (2 * 6) and 8 / (2 * 2)
    assert CrossEntropy([6, 2]).weight.tolist() == pytest.approx([2 / 3, 2])


def test_the_authors_weights_follow_from_all_their_images() -> None:
    # Printed in the released code as 4.37, 2.78, 1.3, 12.44, 1.28, 0.21, 10.
    weight = CrossEntropy([327, 514, 1099, 115, 1113, 6705, 142]).weight
    assert weight.tolist() == pytest.approx(
        [4.375, 2.784, 1.302, 12.441, 1.285, 0.213, 10.075], abs=6e-4
    )


def test_the_batch_size_divides_and_not_the_sum_of_weights() -> None:
    logits = torch.zeros(2, 2)  # each sample loses log 2
    label = torch.tensor([0, 1])
    expected = (2 / 3 + 2) * math.log(2) / 2
    assert CrossEntropy([6, 2])(logits, label).item() == pytest.approx(expected)
    assert CrossEntropy([6, 2], balanced=False)(logits, label).item() == pytest.approx(math.log(2))
