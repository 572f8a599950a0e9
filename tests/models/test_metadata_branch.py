"""The metadata branch: one dense layer with ReLU."""

import pytest
import torch

from skinlesion.models import MetadataMLP


def test_is_a_dense_layer_with_relu():
    branch = MetadataMLP(features=2, width=3)
    weight = torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.0, 1.0]])
    branch.load_state_dict({"dense.weight": weight, "dense.bias": torch.tensor([0.5, 0.5, -9.0])})
    # 1·1 + 2·4 + 0.5;  -1·1 + 0.5 < 0;  1·4 - 9 < 0
    assert branch(torch.tensor([[1.0, 4.0]])).tolist() == [[9.5, 0.0, 0.0]]


def test_has_the_authors_parameters():
    branch = MetadataMLP()
    assert sum(p.numel() for p in branch.parameters()) == 90_112  # 21 · 4,096 + 4,096
    assert branch(torch.zeros(5, 21)).shape == (5, 4096)
    assert branch.width == 4096


def test_needs_a_unit():
    with pytest.raises(ValueError, match=r"metadata\.width=0: expected at least 1"):
        MetadataMLP(width=0)
