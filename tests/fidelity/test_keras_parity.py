"""Our backbones are Keras' models, number for number.

fixtures/keras_parity.npz holds a sample of what came out of Keras at every cut and at the end, for
weights and an image drawn from names alone; `make keras-parity` compares all of it, with Keras.
"""

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import nn

from skinlesion.errors import SkinlesionError
from skinlesion.fidelity import parity
from skinlesion.fidelity.cases import END, TOLERANCE, cuts, numbers, picture, read
from skinlesion.fidelity.keras_side import convert
from skinlesion.fidelity.keras_weights import BACKBONES, to_torch, weights_of, write_weights
from skinlesion.fidelity.parity import build, compare, output, spec_of
from skinlesion.fidelity.pins import pins
from skinlesion.models import Backbone

GOLDENS = Path(__file__).parent / "fixtures/keras_parity.npz"
LAYERS, ABOUT = read(GOLDENS)
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)
FAR = 100 * TOLERANCE


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def drawn():
    return {backbone: numbers(backbone) for backbone in BACKBONES}


@pytest.fixture(scope="module")
def files(drawn, tmp_path_factory):
    """Weights files of the drawn numbers."""
    folder = tmp_path_factory.mktemp("weights")
    for backbone, named in drawn.items():
        write_weights(folder / f"{backbone}.safetensors", backbone, named, "drawn")
    return {backbone: folder / f"{backbone}.safetensors" for backbone in drawn}


@pytest.fixture(scope="module")
def table():
    return {(row[0], row[2]): error for row, error in compare(GOLDENS)}


@pytest.mark.parametrize(
    ("backbone", "key"), [(backbone, str(key)) for backbone in BACKBONES for key in cuts(backbone)]
)
def test_equals_keras(table, backbone, key):
    assert table[backbone, key] <= TOLERANCE


@each_backbone
def test_the_goldens_are_of_the_authors_layers(backbone):
    found = {key: (g.name, list(g.shape)) for key, g in LAYERS[backbone].items() if key != END}
    assert found == {pin["index"]: (pin["layer"], pin["shape"]) for pin in pins()[backbone]["cuts"]}


def test_every_row_of_table_9_is_there():
    rows = {layer.index + 1 for key, layer in LAYERS["mobilenet_v3_large"].items() if key != END}
    assert rows == {230, 240, 241, 246, 251, 260, 266, 270}


def test_the_goldens_say_what_they_were_made_with():
    assert ABOUT.keys() == {"tensorflow", "tf_keras", "numpy", "python"}


def golden_of(spec):
    """What came out of Keras at the cut that conf/backbone has."""
    (key,) = (key for key, cut in cuts(spec.name).items() if cut == spec.cut)
    return LAYERS[spec.name][key]


@pytest.mark.parametrize(
    ("backbone", "key", "cut"),
    [
        ("mobilenet_v3_large", -44, "blocks.5.1.se.conv_expand"),
        ("mobilenet_v3_large", -34, "blocks.5.2.bn1.before_act"),
        ("mobilenet_v3_large", -28, "blocks.5.2.bn2.before_act"),
        ("mobilenet_v3_large", -23, "blocks.5.2.se.conv_expand"),
        ("mobilenet_v3_large", -14, "blocks.6.0.bn1+3"),
        ("mobilenet_v3_large", -14, "blocks.6.0.bn1.before_act"),
        ("mobilenet_v3_large", -8, "conv_head"),
        ("mobilenet_v3_large", -4, "conv_head"),
        ("nasnet_mobile", -23, "cell_11.comb_iter_4_left.bn_sep"),
    ],
)
def test_one_operation_earlier_or_later_is_far_off(files, backbone, key, cut):
    ours = output(build(replace(spec_of(backbone), cut=cut), files[backbone]))
    assert LAYERS[backbone][key].error(ours) > FAR


@each_backbone
def test_another_mean_or_epsilon_is_seen(files, backbone):
    spec = spec_of(backbone)
    golden = golden_of(spec)
    network = build(spec, files[backbone])
    network.mean += 1  # of 255
    assert golden.error(output(network)) > TOLERANCE
    network.mean -= 1
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    assert golden.error(output(network)) > 10 * TOLERANCE


def test_symmetric_padding_is_far_off(files):
    spec = replace(spec_of("mobilenet_v3_large"), timm_model="mobilenetv3_large_100")
    network = Backbone(spec).eval()
    network.load(str(files["mobilenet_v3_large"]))
    assert LAYERS["mobilenet_v3_large"][-28].error(output(network)) > FAR


def test_another_shape_is_infinitely_far_off():
    assert LAYERS["nasnet_mobile"][-23].error(np.zeros((176, 7, 8))) == float("inf")


def test_says_which_is_too_far(monkeypatch, capsys):
    row = ("nasnet_mobile", "activation_186", "-23", "some.cut", "176 x 7 x 7")
    monkeypatch.setattr(parity, "compare", lambda _: iter([(row, 1e-6), (row, 2e-4)]))
    with pytest.raises(SkinlesionError, match="above 1e-04"):
        parity.main([str(GOLDENS)])
    printed = capsys.readouterr().out
    assert f"tf_keras {ABOUT['tf_keras']}" in printed
    assert "some.cut" in printed
    assert "2.0e-04" in printed
    monkeypatch.setattr(parity, "compare", lambda _: iter([(row, 1e-6)]))
    parity.main([str(GOLDENS)])
    with pytest.raises(SkinlesionError, match="no such file"):
        parity.main(["elsewhere.npz"])


@pytest.mark.parametrize(
    ("backbone", "parameters"), [("mobilenet_v3_large", 5_507_432), ("nasnet_mobile", 5_326_716)]
)
def test_the_lists_count_as_keras(backbone, parameters):
    assert sum(prod(weight.shape) for weight in weights_of(backbone)) == parameters


@each_backbone
def test_fills_every_parameter_of_the_uncut_model(drawn, backbone):
    with torch.device("meta"):
        model = timm.create_model(spec_of(backbone).timm_model)
    expected = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state = to_torch(backbone, drawn[backbone])
    assert {name: value.shape for name, value in state.items()} == expected
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


@each_backbone
def test_takes_weights_without_the_classifier(drawn, backbone):
    whole = to_torch(backbone, {f"{name}:0": value for name, value in drawn[backbone].items()})
    top = ("Conv_2", "Logits", "predictions")
    named = {name: v for name, v in drawn[backbone].items() if not name.startswith(top)}
    rest = to_torch(backbone, named)
    left_out = whole.keys() - rest.keys()
    assert left_out == {
        *("conv_head.weight", "conv_head.bias", "classifier.weight", "classifier.bias"),
        *("last_linear.weight", "last_linear.bias"),
    } & set(whole)
    assert all(np.array_equal(rest[name], whole[name]) for name in rest)


@each_backbone
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            lambda named, first: named.update({"other/kernel": named[first]}),
            "unknown: other/kernel",
        ),
        (lambda named, first: named.pop(first), "missing: .*/kernel"),
        (lambda named, first: named.update({first: named[first][:2]}), r"is \(2, 3, 3, .*expected"),
        (lambda named, first: named.pop([*named][-1]), "missing: .*/bias"),  # half a classifier
    ],
    ids=["unknown", "missing", "misshapen", "half a classifier"],
)
def test_refuses_what_are_not_keras_weights(drawn, tmp_path, backbone, spoil, match):
    named = dict(drawn[backbone])
    spoil(named, next(iter(named)))
    with pytest.raises(SkinlesionError, match=match) as refusal:
        write_weights(tmp_path / "w.safetensors", backbone, named, "test")
    assert backbone in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_knows_two_backbones():
    with pytest.raises(SkinlesionError, match=r"resnet50: no list .* mobilenet_v3_large, nasnet"):
        to_torch("resnet50", {})


def test_a_convolution_is_keras_convolution(drawn):
    """By hand, for the corner of the first one: Keras' kernel is (height, width, in, out)."""
    named = drawn["nasnet_mobile"]
    patch = picture()[0, :3, :3] / 127.5 - 1  # (3, 3, in)
    by_hand = np.einsum("hwi,hwio->o", patch, named["stem_conv1/kernel"])
    weight = torch.from_numpy(to_torch("nasnet_mobile", named)["conv0.conv.weight"]).double()
    image = torch.from_numpy(patch).permute(2, 0, 1)[None]
    ours = torch.nn.functional.conv2d(image, weight)[0, :, 0, 0]
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9)


@each_backbone
def test_the_file_says_how_to_build_and_feed(files, drawn, backbone):
    with safe_open(files[backbone], framework="np") as file:
        header = file.metadata()
    spec = spec_of(backbone)
    assert header["backbone"] == backbone
    assert header["timm_model"] == spec.timm_model
    assert json.loads(header["mean"]) == list(spec.mean)
    assert json.loads(header["std"]) == list(spec.std)
    assert json.loads(header["timm_kwargs"]) == {}
    assert header["source"] == "drawn"
    assert load_file(files[backbone]).keys() == to_torch(backbone, drawn[backbone]).keys()


def test_no_weights_for_nothing(tmp_path):
    with pytest.raises(SkinlesionError, match=r"none\.h5: no such file"):
        convert(tmp_path / "none.h5", tmp_path / "w.safetensors", "nasnet_mobile")
    with pytest.raises(SkinlesionError, match=r"must end in \.safetensors"):
        convert(tmp_path / "none.h5", tmp_path / "w.h5", "nasnet_mobile")
    assert list(tmp_path.iterdir()) == []
