"""A network from plain values: what is built, what is refused, and that it can be built again."""

import dataclasses
import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from skinlesion.errors import SkinlesionError
from skinlesion.models.build import build_classifier
from skinlesion.models.weights import BackboneSpec, resolve_spec


def build(backbone, attention=None, metadata=None, classes=7, properties=(1, 4, 16), **options):
    return build_classifier(
        backbone,
        attention or {"name": "paper"},
        metadata or {"name": "paper"},
        classes,
        properties,
        **options,
    )


def test_arguments_reach_the_parts(config):
    network = build(
        config(),
        attention={"name": "paper", "maps": 3, "gamma": 0.5},
        metadata={"name": "paper", "width": 11},
        classes=4,
        properties=[1, 4],
        dropout=0.25,
    )
    assert network.attention.conv.out_channels == 3
    assert network.attention.gamma.item() == 0.5
    assert network.metadata.layers[0].weight.shape == (11, 5)
    assert network.dense.out_features == 4
    assert network.dropout.p == 0.25


def test_none_means_none(config):
    network = build(config(), attention={"name": "none"}, metadata={"name": "none"})
    assert network.attention is None
    assert network.metadata is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention": {"name": "all"}},
            r"attention\.name=all: expected one of paper, released",
        ),
        ({"attention": {"maps": 3}}, r"^attention\.name=None: expected one of"),
        (
            {"metadata": {"name": "mlp"}},
            r"^metadata\.name=mlp: expected one of paper, gessert",
        ),
        ({"attention": {"name": "paper", "map": 3}}, r"unexpected keyword argument 'map'"),
        ({"metadata": {"name": "paper", "with": 3}}, r"unexpected keyword argument 'with'"),
        ({"attention": {"name": "none", "maps": 3}}, r"none takes no arguments, found maps"),
        ({"metadata": {"name": "none", "width": 3}}, r"none takes no arguments, found width"),
        ({"attention": {"name": "paper", "maps": 0}}, r"attention\.maps=0: expected at least 1"),
        ({"attention": {"name": "paper", "gamma": "much"}}, r"cannot be built: .*'much'"),
        ({"metadata": {"name": "paper", "width": -1}}, r"metadata\.width=-1: expected at least 1"),
        ({"attention": {"name": "released", "maps": 0}}, r"attention\.maps=0: expected at least 1"),
        ({"attention": {"name": "released", "gamma": 1}}, r"unexpected keyword argument 'gamma'"),
        ({"metadata": {"name": "gessert", "width": 0}}, r"metadata\.width=0: expected at least 1"),
        ({"metadata": {"name": "gessert", "missing": 1}}, r"metadata\.missing=1: expected a prob"),
        ({"pooling": "min"}, r"pooling=min: expected one of max, average"),
        ({"initialiser": "zeros"}, r"initialiser=zeros: expected one of keras, torch"),
        ({"dropout": 1.5}, r"cannot be built: dropout .* between 0 and 1, but got 1\.5"),
        ({"classes": -1}, r"cannot be built: .*negative dimension"),
    ],
)
def test_a_wrong_name_or_argument_is_refused_in_one_message(config, changes, message):
    with pytest.raises(SkinlesionError, match=message) as refusal:
        build(config(), **changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["paper", "gessert"])
def test_a_branch_without_metadata_is_refused_and_none_is_not(config, name):
    with pytest.raises(SkinlesionError, match=rf"metadata\.name={name}, but .* metadata=none"):
        build(config(), metadata={"name": name}, properties=[])
    assert build(config(), metadata={"name": "none"}, properties=[]).metadata is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputsize": 64}, r"conf/backbone: .*unexpected keyword argument 'inputsize'"),
        ({"mean": [0.5, 0.5]}, r"backbone\.mean: expected three numbers, found \[0\.5, 0\.5\]"),
        ({"cut": "flatten"}, r"need a feature map .* or attention=none"),
    ],
)
def test_a_wrong_backbone_is_refused_in_one_message(config, change, message):
    with pytest.raises(SkinlesionError, match=message) as refusal:
        build(config(**change))
    assert "\n" not in str(refusal.value)


def test_the_callers_values_are_left_alone(config):
    attention, metadata = {"name": "paper", "maps": 2}, {"name": "paper", "width": 8}
    backbone = config()
    build(backbone, attention, metadata)
    assert attention == {"name": "paper", "maps": 2}
    assert metadata == {"name": "paper", "width": 8}
    assert backbone == config()


def test_a_network_is_built_again_from_plain_values_and_its_state(config, image, tmp_path):
    # The weights file says other things than the config; the values kept must be the file's.
    header = {
        "timm_model": "mobilenetv3_small_100",
        "timm_kwargs": '{"bn_eps": 0.01}',
        "mean": "[0.4, 0.5, 0.6]",
        "std": "[0.1, 0.2, 0.3]",
    }
    state = timm.create_model("mobilenetv3_small_100").state_dict()
    save_file(state, tmp_path / "w.safetensors", metadata=header)
    parts = {
        "attention": {"name": "paper", "maps": 4, "gamma": 0.1},
        "metadata": {"name": "paper", "width": 8},
        "classes": 7,
        "properties": [1, 4, 16],
        "dropout": 0.5,
    }
    path = str(tmp_path / "w.safetensors")
    spec = dataclasses.asdict(resolve_spec(BackboneSpec.from_config(config()), path))
    network = build(spec, **parts).eval()
    network.backbone.load(path)
    values = json.loads(json.dumps({"backbone": spec, **parts}))

    again = build(**values).eval()
    again.load_state_dict(network.state_dict())
    metadata = torch.randn(2, 21)
    with torch.no_grad():
        assert torch.equal(again(image, metadata), network(image, metadata))
    assert again.backbone.spec == network.backbone.spec


def test_a_state_of_another_cut_is_refused(config):
    state = build(config()).state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key|size mismatch|Unexpected key"):
        build(config(cut="blocks.3")).load_state_dict(state)
