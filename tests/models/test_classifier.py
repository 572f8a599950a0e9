"""The whole network: the head worked out by hand on given feature maps, and real backbones."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skinlesion.errors import SkinlesionError
from skinlesion.models import Classifier, MetadataMLP, SoftAttention
from skinlesion.models.build import build_classifier
from skinlesion.models.classifier import max_pool

HAM10000 = (1, 4, 16)
METADATA = torch.randn(2, 21, generator=torch.Generator().manual_seed(0))


class Given(nn.Module):
    """A backbone whose feature map is the image itself."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.spec = SimpleNamespace(timm_model="given", cut="all")

    def feature_shape(self):
        return self.shape

    def forward(self, image):
        return image


class Times(nn.Module):
    """A soft attention that multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, t):
        return self.factor * t


def features_of(network: Classifier, *inputs: torch.Tensor) -> torch.Tensor:
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


def test_max_pool_of_one_position_is_the_position():
    assert max_pool(torch.tensor([[[[-3.0]]]])).tolist() == [[[[-3.0]]]]


def test_features_are_the_pooled_map_and_the_pooled_attended_map_after_relu():
    network = Classifier(Given(2, 1, 2), lambda channels: Times(-10), None, classes=3).eval()
    t = torch.tensor([[[[1.0, 2.0]], [[-4.0, -3.0]]]])
    # t pools to 2 and -3. Attended, -10 -20 and 40 30, it pools to -10 and 40: pooled by itself,
    # not ten times the pooled map.
    assert features_of(network, t, METADATA[:1]).tolist() == [[2.0, 0.0, 0.0, 40.0]]


def test_average_pooling_takes_the_mean_over_all_positions():
    network = Classifier(
        Given(1, 2, 2), lambda channels: Times(3), None, classes=3, pooling="average"
    ).eval()
    t = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert features_of(network, t, METADATA[:1]).tolist() == [[3.0, 9.0]]


def test_a_vector_goes_to_the_dense_layer_as_it_is():
    # The plain network of Table 9's last row: a dense layer on ImageNet's logits.
    network = Classifier(Given(3), None, None, classes=2, dropout=0.9).train()
    t = torch.tensor([[-1.0, 2.0, -3.0]])
    assert features_of(network, t, METADATA[:1]).tolist() == t.tolist()


def test_metadata_is_appended_behind_the_features():
    branch = MetadataMLP([1], width=2)
    branch.load_state_dict(
        {"layers.0.weight": torch.tensor([[1.0], [2.0]]), "layers.0.bias": torch.zeros(2)}
    )
    network = Classifier(Given(1, 1, 1), None, branch, classes=3).eval()
    features = features_of(network, torch.tensor([[[[5.0]]]]), torch.tensor([[7.0]]))
    assert features.tolist() == [[5.0, 7.0, 14.0]]


def test_logits_are_the_dense_layer_of_the_features():
    network = Classifier(Given(1, 1, 2), None, None, classes=2).eval()
    network.load_state_dict(
        {"dense.weight": torch.tensor([[2.0], [-3.0]]), "dense.bias": torch.tensor([0.0, 1.0])}
    )
    logits = network(torch.tensor([[[[1.0, 5.0]]]]), METADATA[:1])
    assert logits.tolist() == [[10.0, -14.0]]


def test_attention_is_made_for_the_channels_of_the_map():
    network = Classifier(Given(6, 3, 3), lambda c: SoftAttention(c, maps=4), None, classes=7)
    assert network.attention.conv.weight.shape == (4, 6, 3, 3)


def test_dropout_drops_image_features_in_training_only():
    branch = MetadataMLP(HAM10000, width=4)
    network = Classifier(Given(3, 2, 2), None, branch, classes=7, dropout=0.5)
    t = torch.ones(2, 3, 2, 2)
    kept = features_of(network.eval(), t, METADATA)
    assert kept[:, :3].tolist() == [[1.0] * 3] * 2
    torch.manual_seed(0)
    trained = torch.stack([features_of(network.train(), t, METADATA) for _ in range(100)])
    assert set(trained[..., :3].unique().tolist()) == {0.0, 2.0}  # dropped, or scaled by 1/(1-p)
    assert 0.4 < (trained[..., :3] == 0).float().mean() < 0.6
    assert torch.equal(trained[..., 3:], kept[:, 3:].expand(100, 2, 4))  # the metadata's stay


def test_what_is_dropped_does_not_depend_on_the_layout_in_memory():
    network = Classifier(Given(8, 6, 6), None, None, classes=7).train()
    t = torch.rand(2, 8, 6, 6)
    seen = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        seen.append(features_of(network, t.contiguous(memory_format=layout), METADATA))
    assert torch.equal(*seen)


@pytest.fixture(scope="module")
def networks(config):
    """The four combinations of soft attention and metadata, on a 2 x 2 map of 576 channels."""
    return {
        (attention, metadata): build_classifier(
            config(), {"name": attention}, {"name": metadata}, 7, HAM10000, dropout=0.5
        ).eval()
        for attention in ("paper", "none")
        for metadata in ("paper", "none")
    }


@pytest.mark.parametrize(
    ("attention", "metadata", "width"),
    [
        ("paper", "paper", 2 * 576 + 4096),
        ("paper", "none", 2 * 576),
        ("none", "paper", 576 + 4096),
        ("none", "none", 576),
    ],
)
def test_every_combination_gives_logits(networks, image, attention, metadata, width):
    network = networks[attention, metadata]
    assert network.dense.in_features == width
    with torch.no_grad():
        logits = network(image, METADATA)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("attention", ["paper", "none"])
def test_metadata_counts_with_its_branch_only(networks, image, attention):
    same_images = image[:1].expand(2, -1, -1, -1)
    with torch.no_grad():
        heard = networks[attention, "paper"](same_images, METADATA)
        unheard = networks[attention, "none"](same_images, METADATA)
    assert not torch.allclose(heard[0], heard[1])
    torch.testing.assert_close(unheard[0], unheard[1])


def test_dense_layer_has_the_authors_width(config):
    # MobileNetV3Large: 7 x 7 x 960 pools to 4 x 4, twice, and 4,096 of the metadata.
    with torch.device("meta"):
        network = build_classifier(
            config("mobilenet_v3_large"), {"name": "paper"}, {"name": "paper"}, 7, HAM10000, 0.5
        )
    assert network.dense.in_features == 34_816


def test_a_hidden_layer_stands_before_the_last(config):
    network = Classifier(Given(1, 2, 2), None, None, classes=3, hidden=2).eval()
    with torch.no_grad():
        network.hidden.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        network.hidden.bias.zero_()
        network.dense.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]]))
        network.dense.bias.zero_()
    # The largest of the map is 4; hidden 8 and, below zero, 0.
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert network(image, METADATA[:1]).tolist() == [[8.0, 0.0, 24.0]]


def test_table_9s_dense_512_has_the_authors_parameters(config):
    # The notebook behind the row (nb30) counts 37,062,250, with the batch norms' statistics
    # (22,160) and the three numbers of Keras' Normalization, and without gamma. Its metadata passes
    # two layers.
    with torch.device("meta"):
        network = build_classifier(
            config("mobilenet_v3_large"),
            {"name": "released"},
            {"name": "paper", "layers": 2},
            classes=7,
            properties=HAM10000,
            hidden=512,
        )
    assert sum(p.numel() for p in network.parameters()) == 37_062_250 - 22_160 - 3


def test_a_cut_of_one_position_works_through_the_head(config):
    fields = config("mobilenet_v3_large", cut="blocks.5.1.se.gate", input_size=64)
    network = build_classifier(fields, {"name": "paper"}, {"name": "paper"}, 7, HAM10000, 0.5)
    assert network.backbone.feature_shape() == (960, 1, 1)
    assert network.dense.in_features == 2 * 960 + 4096
    image = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert network(image, METADATA).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "attention"), [((5,), SoftAttention), ((4, 5), None), ((4, 5), SoftAttention)]
)
def test_a_cut_without_positions_is_refused_where_they_are_needed(shape, attention):
    with pytest.raises(SkinlesionError, match=r"need a feature map \(B, C, h, w\)") as refusal:
        Classifier(Given(*shape), attention, None, classes=7)
    assert f"(B, {', '.join(map(str, shape))})" in str(refusal.value)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "nasnet_mobile"])
def test_one_training_step_gives_every_parameter_a_finite_gradient(config, image, name):
    torch.manual_seed(0)
    fields = config(name, input_size=64)
    network = build_classifier(
        fields, {"name": "paper"}, {"name": "paper"}, 7, HAM10000, 0.5
    ).train()
    F.cross_entropy(network(image, METADATA), torch.tensor([0, 6])).backward()
    for label, parameter in network.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
    for label in ("attention.gamma", "attention.conv.weight", "metadata.layers.0.weight"):
        assert network.get_parameter(label).grad.any(), label
    assert next(network.backbone.parameters()).grad.any()
