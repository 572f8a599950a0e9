"""The whole network: the head worked out by hand on given feature maps, and real backbones."""

import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skinlesion.errors import SkinlesionError
from skinlesion.models.classifier import Classifier, Dropout, build_classifier, initialise, max_pool
from skinlesion.models.metadata import MetadataMLP
from skinlesion.models.soft_attention import SoftAttention

HAM10000 = (1, 4, 16)
METADATA = torch.randn(2, 21, generator=torch.Generator().manual_seed(0))


class Given(nn.Identity):
    """A backbone whose feature map is the image itself."""

    def __init__(self, *shape):
        super().__init__()
        self.feature_shape = lambda: shape
        self.spec = SimpleNamespace(timm_model="given", cut="all")


def features_of(network, *inputs):
    """What enters the dense layer."""
    seen = []
    hook = network.dense.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(*inputs)
    hook.remove()
    return seen[0]


def test_max_pool_keeps_the_odd_last_row_and_column():
    # As tf.nn.max_pool2d(t, 2, 2, "SAME"): windows of 2x2, 2x1, 1x2 and 1x1.
    t = torch.tensor([[[[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [6.0, 8.0, -7.0]]]])
    assert max_pool(t).tolist() == [[[[4.0, 9.0], [8.0, -7.0]]]]
    assert max_pool(torch.tensor([[[[-3.0]]]])).tolist() == [[[[-3.0]]]]


@pytest.mark.parametrize(
    ("t", "factor", "pooling", "expected"),
    [
        # t pools to 2 and -3. Attended, -10 -20 and 40 30, it pools to -10 and 40: pooled by
        # itself, not ten times the pooled map. Then a ReLU.
        ([[[[1.0, 2.0]], [[-4.0, -3.0]]]], -10, "max", [[2.0, 0.0, 0.0, 40.0]]),
        ([[[[1.0, 2.0], [3.0, 6.0]]]], 3, "average", [[3.0, 9.0]]),
        # The plain network of Table 9's last row: a dense layer on ImageNet's logits.
        ([[-1.0, 2.0, -3.0]], None, "max", [[-1.0, 2.0, -3.0]]),
    ],
    ids=["max", "average", "a vector stays as it is"],
)
def test_features_are_the_pooled_map_and_the_pooled_attended_map(t, factor, pooling, expected):
    t = torch.tensor(t)
    attention = (lambda channels: lambda t: factor * t) if factor else None
    network = Classifier(Given(*t.shape[1:]), attention, None, classes=3, pooling=pooling).eval()
    assert features_of(network, t, METADATA[:1]).tolist() == expected


def test_metadata_is_appended_behind_the_features():
    branch = MetadataMLP([1], width=2)
    state = {"layers.0.weight": torch.tensor([[1.0], [2.0]]), "layers.0.bias": torch.zeros(2)}
    branch.load_state_dict(state)
    network = Classifier(Given(1, 1, 1), None, branch, classes=3).eval()
    features = features_of(network, torch.tensor([[[[5.0]]]]), torch.tensor([[7.0]]))
    assert features.tolist() == [[5.0, 7.0, 14.0]]


def test_logits_are_the_dense_layer_of_the_features_or_of_a_hidden_layer():
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # the largest is 4
    dense = {"dense.weight": torch.tensor([[2.0], [-3.0]]), "dense.bias": torch.tensor([0.0, 1.0])}
    network = Classifier(Given(1, 2, 2), None, None, classes=2).eval()
    network.load_state_dict(dense)
    assert network(image, METADATA[:1]).tolist() == [[8.0, -11.0]]
    # hidden 8 and, below zero, 0
    hidden = {"hidden.weight": torch.tensor([[2.0], [-1.0]]), "hidden.bias": torch.zeros(2)}
    dense["dense.weight"] = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    network = Classifier(Given(1, 2, 2), None, None, classes=2, hidden=2).eval()
    network.load_state_dict(dense | hidden)
    assert network(image, METADATA[:1]).tolist() == [[8.0, 25.0]]


@pytest.mark.parametrize(
    ("shape", "attention"), [((5,), SoftAttention), ((4, 5), None), ((4, 5), SoftAttention)]
)
def test_a_cut_without_positions_is_refused_where_they_are_needed(shape, attention):
    with pytest.raises(SkinlesionError, match=r"need a feature map \(B, C, h, w\)") as refusal:
        Classifier(Given(*shape), attention, None, classes=7)
    assert f"(B, {', '.join(map(str, shape))})" in str(refusal.value)


def test_dropout_drops_image_features_and_none_of_the_metadata():
    branch = MetadataMLP(HAM10000, width=4)
    network = Classifier(Given(99, 2, 2), None, branch, classes=7, dropout=0.5)
    t = torch.ones(2, 99, 2, 2)
    kept = features_of(network.eval(), t, METADATA)
    trained = features_of(network.train(), t, METADATA)
    assert set(trained[:, :99].unique().tolist()) == {0.0, 2.0}  # dropped, or scaled by 1/(1-p)
    assert torch.equal(trained[:, 99:], kept[:, 99:])


def test_what_is_dropped_does_not_depend_on_the_layout_in_memory():
    network = Classifier(Given(8, 6, 6), None, None, classes=7).train()
    t = torch.rand(2, 8, 6, 6)
    seen = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        seen.append(features_of(network, t.contiguous(memory_format=layout), METADATA))
    assert torch.equal(*seen)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_dropped_with_probability_p_and_else_scaled(p, dtype):
    torch.manual_seed(0)
    values = torch.ones(100_000, dtype=dtype, requires_grad=True)
    dropped = Dropout(p)(values)
    assert dropped.dtype == dtype
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)))
    error = (p * (1 - p) / len(values)) ** 0.5
    assert abs(1 - len(kept) / len(values) - p) < 4 * error
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped)
    assert not torch.equal(Dropout(p)(values), dropped)  # every call draws anew


def test_nothing_or_all_may_be_dropped_and_nothing_but_in_training():
    ones = torch.ones(100)
    for dropout, expected in ((Dropout(0), 1), (Dropout(1), 0), (Dropout(0.5).eval(), 1)):
        assert (dropout(ones) == expected).all()


def network_of(backbone, attention="paper", metadata="paper", classes=7, **options):
    choices = ({"name": c} if isinstance(c, str) else c for c in (attention, metadata))
    return build_classifier(
        backbone, *choices, **{"classes": classes, "properties": HAM10000} | options
    )


@pytest.mark.parametrize("attention", ["paper", "none"])
@pytest.mark.parametrize("metadata", ["paper", "none"])
def test_every_combination_gives_logits_and_metadata_counts_with_its_branch_only(
    config, image, attention, metadata
):
    network = network_of(config(), attention, metadata).eval()
    width = 192 * (2 if attention == "paper" else 1) + (4096 if metadata == "paper" else 0)
    assert network.dense.in_features == width
    with torch.no_grad():
        logits = network(image, METADATA)
        same_image = network(image[:1].expand(2, -1, -1, -1), METADATA)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert not torch.allclose(logits[0], logits[1])
    assert torch.allclose(same_image[0], same_image[1]) == (metadata == "none")


def test_has_the_authors_parameters(config):
    with torch.device("meta"):
        # 7 x 7 x 960 pools to 4 x 4, twice, and 4,096 of the metadata.
        assert network_of(config("mobilenet_v3_large")).dense.in_features == 34_816
        # The notebook behind Table 9's Dense(512) (nb30) counts 37,062,250, with the batch norms'
        # statistics (22,160) and the three numbers of Keras' Normalization, and without gamma. Its
        # metadata passes two layers.
        two_layers = {"name": "paper", "layers": 2}
        wide = network_of(config("mobilenet_v3_large"), "released", two_layers, hidden=512)
    assert sum(p.numel() for p in wide.parameters()) == 37_062_250 - 22_160 - 3


@pytest.mark.parametrize(
    ("name", "cut"), [("tiny", {}), ("mobilenet_v3_small", {"cut": "blocks.4.1.se.gate"})]
)  # the second has one position
def test_one_training_step_gives_every_parameter_a_finite_gradient(config, image, name, cut):
    torch.manual_seed(0)
    network = network_of(config(name, input_size=64, **cut)).train()
    F.cross_entropy(network(image, METADATA), torch.tensor([0, 6])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert network.attention.gamma.grad.any()
    assert network.attention.conv.weight.grad.any() == (not cut)
    assert network.metadata.layers[0].weight.grad.any()
    assert next(network.backbone.parameters()).grad.any()


def test_a_frozen_backbone_stays_as_it_is_and_the_norm_stands_before_the_relu(config, image):
    options = {"hidden": 8, "hidden_norm": "batch"}
    network = network_of(config(), "none", "gessert", **options)
    network.backbone.freeze()
    before = {n: v.clone() for n, v in network.backbone.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=0.1)
    features = features_of(network.train(), image, METADATA)
    F.cross_entropy(network(image, METADATA), torch.tensor([0, 6])).backward()
    optimizer.step()
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Of two samples the batch norm makes -1 and 1, of which the ReLU leaves one.
    assert ((features == 0).sum(dim=0) == 1).all()
    assert features.max().item() == pytest.approx(1, abs=0.01)
    assert network.hidden_norm.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet50"])
@pytest.mark.parametrize("transform", ["dct", "dft"])
def test_a_spectral_layer_learns_behind_very_different_backbones(config, image, name, transform):
    attention = {"name": "spectral", "transform": transform}
    network = network_of(config(name, input_size=64), attention).train()
    F.cross_entropy(network(image, METADATA), torch.tensor([0, 6])).backward()
    assert network.attention.rows.grad.any()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("metadata", "layers"), [("paper", 2), ("gessert", 3)])
def test_keras_starts_dense_layers_glorot_uniform_without_bias(config, metadata, layers):
    torch.manual_seed(0)
    network = network_of(config(), "none", metadata)
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert len(dense) == layers
    for layer in dense:
        limit = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert not layer.bias.any()
        assert 0.97 * limit < layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)


def test_torch_starts_them_within_one_over_the_root_of_inputs_and_nothing_else_starts_anew(config):
    torch.manual_seed(0)
    network = network_of(config())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialise(network, "torch")
    bound = 1 / math.sqrt(network.dense.in_features)
    assert network.dense.bias.any()
    assert 0.97 * bound < network.dense.weight.abs().max() <= bound
    for name, value in network.state_dict().items():
        dense = name.startswith(("dense.", "metadata."))
        assert torch.equal(value, before[name]) == (not dense), name


def test_plain_values_reach_the_parts_and_build_the_same_network_again(config, image):
    values = {
        "backbone": config(timm_kwargs={"bn_eps": 0.01}, mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 1]),
        "attention": {"name": "paper", "maps": 3, "gamma": 0.5},
        "metadata": {"name": "paper", "width": 11},
        **{"classes": 4, "properties": [1, 4, 16], "dropout": 0.25},
    }
    before = json.dumps(values)
    network = build_classifier(**values).eval()
    assert json.dumps(values) == before
    assert network.attention.conv.weight.shape == (3, 192, 3, 3)
    assert network.attention.gamma.item() == 0.5
    assert network.metadata.layers[0].weight.shape == (11, 21)
    assert network.dense.out_features == 4
    assert network.dropout.p == 0.25
    values["backbone"] = asdict(network.backbone.spec)
    again = build_classifier(**json.loads(json.dumps(values))).eval()
    again.load_state_dict(network.state_dict())
    assert again.backbone.spec == network.backbone.spec
    with torch.no_grad():
        assert torch.equal(again(image, METADATA), network(image, METADATA))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention": "all"},
            r"attention\.name=all: expected one of paper, released, spectral, none",
        ),
        (
            {"metadata": "mlp"},
            r"^metadata\.name=mlp: expected one of paper, gessert, encoded, none",
        ),
        ({"attention": {"name": "paper", "map": 3}}, r"unexpected keyword argument 'map'"),
        ({"attention": {"name": "none", "maps": 3}}, r"none takes no arguments, found maps"),
        ({"attention": {"name": "paper", "maps": 0}}, r"attention\.maps=0: expected at least 1"),
        ({"attention": {"name": "spectral", "transform": "fft"}}, r"transform=fft: .* dct, dft"),
        ({"attention": {"name": "spectral", "initial": "one"}}, r"initial=one: .* spectral, rand"),
        ({"attention": {"name": "paper", "gamma": "much"}}, r"cannot be built: .*'much'"),
        ({"attention": {"name": "released", "maps": 0}}, r"attention\.maps=0: expected at least 1"),
        ({"metadata": {"name": "paper", "layers": 0}}, r"metadata\.layers=0: expected at least 1"),
        ({"attention": {"name": "released", "gamma": 1}}, r"unexpected keyword argument 'gamma'"),
        ({"metadata": {"name": "paper", "width": -1}}, r"metadata\.width=-1: expected at least 1"),
        ({"metadata": {"name": "gessert", "width": 0}}, r"metadata\.width=0: expected at least 1"),
        ({"metadata": {"name": "gessert", "missing": 1}}, r"metadata\.missing=1: expected a prob"),
        ({"properties": []}, r"metadata\.name=paper, but .* metadata=none"),
        ({"pooling": "min"}, r"pooling=min: expected one of max, average"),
        ({"hidden_norm": "batch"}, r"hidden_norm=batch: expected null, or batch with hidden"),
        ({"dropout": 1.5}, r"cannot be built: dropout .* between 0 and 1, but got 1\.5"),
        ({"classes": -1}, r"cannot be built: .*negative dimension"),
    ],
)
def test_a_wrong_name_or_argument_is_refused_in_one_line(config, changes, message):
    with pytest.raises(SkinlesionError, match=message) as refusal:
        network_of(config(), **changes)
    assert "\n" not in str(refusal.value)
