"""How dense layers start."""

import copy
import math

import pytest
import torch

from skinlesion.models.build import build_classifier
from skinlesion.models.initialise import initialise


@pytest.fixture(scope="module")
def network(config):
    torch.manual_seed(0)
    return build_classifier(
        config(), {"name": "paper"}, {"name": "paper"}, classes=7, properties=(1, 4, 16)
    )


def limit(layer):
    """Glorot uniform: the square root of 6 / (inputs + outputs)."""
    return math.sqrt(6 / (layer.in_features + layer.out_features))


@pytest.mark.parametrize("metadata", ["paper", "gessert"])
def test_keras_starts_dense_layers_glorot_uniform_without_bias(config, metadata):
    torch.manual_seed(0)
    network = build_classifier(
        config(), {"name": "none"}, {"name": metadata}, classes=7, properties=(1, 4, 16)
    )
    branch = [m for m in network.metadata.modules() if isinstance(m, torch.nn.Linear)]
    assert len(branch) == (1 if metadata == "paper" else 2)
    for layer in (network.dense, *branch):
        assert not layer.bias.any()
        assert 0.98 * limit(layer) < layer.weight.abs().max() <= limit(layer)
        assert layer.weight.std().item() == pytest.approx(limit(layer) / math.sqrt(3), rel=0.05)


def test_torch_starts_them_within_one_over_the_root_of_inputs(network):
    other = copy.deepcopy(network)
    initialise(other, "torch")
    bound = 1 / math.sqrt(other.dense.in_features)
    assert other.dense.bias.any()
    assert 0.98 * bound < other.dense.weight.abs().max() <= bound
    assert other.dense.weight.abs().max() < 0.5 * limit(other.dense)


def test_nothing_else_starts_anew(network):
    other = copy.deepcopy(network)
    initialise(other, "keras")
    for name, value in other.state_dict().items():
        dense = name.startswith(("dense.", "metadata."))
        changed = not torch.equal(value, network.state_dict()[name])
        assert changed == (dense and name.endswith("weight")), name
