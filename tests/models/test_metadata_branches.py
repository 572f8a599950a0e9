"""The metadata branches, the paper's and the one that it cites."""

import pytest
import torch

from skinlesion.models.metadata import GessertMLP, MetadataMLP

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


@pytest.mark.parametrize(("training", "missing"), [(True, 0.1), (False, 0)])
def test_properties_go_missing_whole_and_one_by_one_and_only_in_training(training, missing):
    torch.manual_seed(0)
    branch = GessertMLP(HAM10000, missing=0.1).train(training)
    seen = []
    branch.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    branch(torch.ones(20_000, 21))
    lost = seen[0] == 0
    assert torch.equal(lost, seen[0] != 1)
    age, sex, place = lost[:, :1], lost[:, 1:5], lost[:, 5:]
    for columns in (age, sex, place):
        assert (columns == columns[:, :1]).all()  # whole
        assert columns.float().mean().item() == pytest.approx(missing, abs=0.01)
    both = age[:, 0] & sex[:, 0]
    assert both.float().mean().item() == pytest.approx(missing**2, abs=0.004)  # one by one
