"""The metadata branches, the paper's and the one that it cites."""

import pytest
import torch

from skinlesion.models import MetadataMLP
from skinlesion.models.metadata import GessertMLP

HAM10000 = (1, 4, 16)


def test_is_dense_layers_with_relu():
    branch = MetadataMLP(properties=[2], width=2, layers=2)
    first, second = torch.tensor([[1.0, 2.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    state = {"layers.0.weight": first, "layers.0.bias": torch.tensor([0.5, 0.5])}
    state |= {"layers.1.weight": second, "layers.1.bias": torch.tensor([-1.0, 0.0])}
    branch.load_state_dict(state)
    # 1·1 + 2·4 + 0.5 and -1·1 + 0.5 < 0; 9.5 + 0 - 1 and -9.5 < 0
    assert branch(torch.tensor([[1.0, 4.0]])).tolist() == [[8.5, 0.0]]


def test_has_the_authors_parameters():
    branch = MetadataMLP(HAM10000)
    assert sum(p.numel() for p in branch.parameters()) == 90_112  # 21 · 4,096 + 4,096
    assert branch(torch.zeros(5, 21)).shape == (5, 4096)
    assert branch.width == 4096


def test_gesserts_branch_is_two_layers_with_batch_norm_relu_and_dropout():
    branch = GessertMLP(HAM10000)
    kinds = [type(layer).__name__ for layer in branch.layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2
    assert [layer.p for layer in branch.layers if isinstance(layer, torch.nn.Dropout)] == [0.4, 0.4]
    # 21 · 256 + 256, 256 · 256 + 256, and scale and offset of two batch norms
    assert sum(p.numel() for p in branch.parameters()) == 5_632 + 65_792 + 4 * 256
    assert branch(torch.zeros(5, 21)).shape == (5, 256)


def given_to_the_layers(branch, metadata):
    seen = []
    hook = branch.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    branch(metadata)
    hook.remove()
    return seen[0]


def test_properties_go_missing_whole_and_one_by_one_in_training():
    torch.manual_seed(0)
    branch = GessertMLP(HAM10000, missing=0.1)
    kept = given_to_the_layers(branch.train(), torch.ones(20_000, 21))
    by_property = [kept[:, :1], kept[:, 1:5], kept[:, 5:]]
    for columns in by_property:
        assert set(columns.unique().tolist()) == {0.0, 1.0}
        assert (columns == columns[:, :1]).all()  # whole
        assert (columns == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    both = (by_property[0][:, 0] == 0) & (by_property[1][:, 0] == 0)
    assert both.float().mean().item() == pytest.approx(0.01, abs=0.004)  # one by one


def test_nothing_goes_missing_in_evaluation():
    assert given_to_the_layers(GessertMLP(HAM10000, missing=0.9).eval(), torch.ones(99, 21)).all()
