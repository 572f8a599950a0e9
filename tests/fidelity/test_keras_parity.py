"""Our backbones are Keras' models, number for number.

fixtures/keras_parity.npz holds a sample of what came out of Keras at every cut and at the end, for
weights and an image drawn from names alone; `make keras-parity` compares all of it, with Keras.
"""

import json
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from skinlesion.cli import main
from skinlesion.errors import SkinlesionError
from skinlesion.fidelity import parity
from skinlesion.fidelity.cases import END, TOLERANCE, Reference, cuts, numbers, picture, pins
from skinlesion.fidelity.keras_side import convert
from skinlesion.fidelity.keras_weights import BACKBONES, to_torch, write_weights
from skinlesion.fidelity.parity import build, compare, output, spec_of
from skinlesion.models.backbone import Backbone

GOLDENS = Path(__file__).parent / "fixtures/keras_parity.npz"
REFERENCE = Reference.read(GOLDENS)
LARGE, NASNET = BACKBONES
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)
FAR = 100 * TOLERANCE


@pytest.fixture(scope="module")
def drawn():
    return {backbone: numbers(backbone, shapes) for backbone, shapes in REFERENCE.weights.items()}


@pytest.fixture(scope="module")
def files(drawn, tmp_path_factory):
    """Weights files of the drawn numbers."""
    folder = tmp_path_factory.mktemp("weights")
    for backbone, named in drawn.items():
        write_weights(folder / f"{backbone}.safetensors", backbone, named, "drawn")
    return {backbone: folder / f"{backbone}.safetensors" for backbone in drawn}


@pytest.fixture(scope="module")
def table():
    return {(row[0], row[2]): error for row, error in compare(REFERENCE)}


@pytest.mark.parametrize(
    ("backbone", "key"), [(backbone, str(key)) for backbone in BACKBONES for key in cuts(backbone)]
)
def test_equals_keras(table, backbone, key):
    assert table[backbone, key] <= TOLERANCE


@each_backbone
def test_the_goldens_are_of_the_authors_layers(backbone):
    layers = REFERENCE.layers[backbone].items()
    found = {key: (layer.name, list(layer.shape)) for key, layer in layers if key != END}
    assert found == {pin["index"]: (pin["layer"], pin["shape"]) for pin in pins()[backbone]["cuts"]}


@pytest.mark.parametrize(
    ("backbone", "key", "cut"),
    [
        (LARGE, -44, "blocks.5.1.se.conv_expand"),
        (LARGE, -28, "blocks.5.2.bn2.before_act"),
        (LARGE, -23, "blocks.5.2.se.conv_expand"),
        (LARGE, -14, "blocks.6.0.bn1+3"),
        (LARGE, -8, "conv_head"),
        (NASNET, -23, "cell_11.comb_iter_4_left.bn_sep"),
    ],
)
def test_one_operation_earlier_or_later_is_far_off(files, backbone, key, cut):
    ours = output(build(replace(spec_of(backbone), cut=cut), files[backbone]))
    assert REFERENCE.layers[backbone][key].error(ours) > FAR


@each_backbone
def test_another_mean_or_epsilon_is_seen(files, backbone):
    spec = spec_of(backbone)
    (key,) = (key for key, cut in cuts(backbone).items() if cut == spec.cut)
    golden, network = REFERENCE.layers[backbone][key], build(spec, files[backbone])
    network.mean += 1  # of 255
    assert golden.error(output(network)) > TOLERANCE
    network.mean -= 1
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    assert golden.error(output(network)) > 10 * TOLERANCE


def test_symmetric_padding_is_far_off(files):
    network = Backbone(replace(spec_of(LARGE), timm_model="mobilenetv3_large_100")).eval()
    network.load(str(files[LARGE]))
    assert REFERENCE.layers[LARGE][-28].error(output(network)) > FAR


def test_another_shape_is_infinitely_far_off():
    assert REFERENCE.layers[NASNET][-23].error(np.zeros((176, 7, 8))) == float("inf")


def test_the_command_prints_every_cut_and_fails_where_one_is_too_far_off(monkeypatch, capsys):
    row = (NASNET, "activation_186", "-23", "some.cut", "176 x 7 x 7")
    monkeypatch.setattr(parity, "compare", lambda _: iter([(row, 1e-6)]))
    assert main(["parity", str(GOLDENS)]) == 0
    printed = capsys.readouterr().out
    assert f"tf_keras {REFERENCE.about['tf_keras']}" in printed
    assert "some.cut" in printed
    monkeypatch.setattr(parity, "compare", lambda _: iter([(row, 1e-6), (row, 2e-4)]))
    with pytest.raises(SystemExit, match="error: the largest relative error is above 1e-04"):
        main(["parity", str(GOLDENS)])
    with pytest.raises(SystemExit, match=r"error: elsewhere\.npz: no such file"):
        main(["parity", "elsewhere.npz"])


@pytest.mark.parametrize(("backbone", "parameters"), [(LARGE, 5_507_432), (NASNET, 5_326_716)])
def test_keras_weights_are_counted_as_keras_counts(backbone, parameters):
    assert sum(map(prod, REFERENCE.weights[backbone].values())) == parameters


@each_backbone
def test_fills_every_parameter_of_the_uncut_model(drawn, files, backbone):
    whole = Backbone(replace(spec_of(backbone), cut=cuts(backbone)[END]))
    whole.load(str(files[backbone]))
    assert whole.uninitialised == []
    state = to_torch(backbone, drawn[backbone])
    assert state.keys() == {n for n in whole._full_names if not n.endswith("num_batches_tracked")}
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


@each_backbone
def test_takes_weights_without_the_classifier(drawn, backbone):
    top = ("Conv_2", "Logits", "predictions")
    named = {name: v for name, v in drawn[backbone].items() if not name.startswith(top)}
    left_out = to_torch(backbone, drawn[backbone]).keys() - to_torch(backbone, named).keys()
    names = ("conv_head", "classifier") if backbone == LARGE else ("last_linear",)
    assert left_out == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


@each_backbone
@pytest.mark.parametrize("name", ["other/kernel", "Conv/gain", "expanded_conv_3/other/kernel"])
def test_refuses_what_are_not_keras_weights(tmp_path, backbone, name):
    with pytest.raises(SkinlesionError, match=f"not Keras' {backbone}, which has no {name}"):
        write_weights(tmp_path / "w.safetensors", backbone, {name: np.zeros(2)}, "test")
    assert list(tmp_path.iterdir()) == []


def test_a_convolution_is_keras_convolution(drawn):
    """By hand, for the corner of the first one: Keras' kernel is (height, width, in, out)."""
    patch = picture()[0, :3, :3] / 127.5 - 1  # (3, 3, in)
    by_hand = np.einsum("hwi,hwio->o", patch, drawn[NASNET]["stem_conv1/kernel"])
    weight = torch.from_numpy(to_torch(NASNET, drawn[NASNET])["conv0.conv.weight"]).double()
    image = torch.from_numpy(patch).permute(2, 0, 1)[None]
    ours = torch.nn.functional.conv2d(image, weight)[0, :, 0, 0]
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9)


@each_backbone
def test_the_file_says_how_to_build_and_feed(files, backbone):
    with safe_open(files[backbone], framework="np") as file:
        header = file.metadata()
    spec = spec_of(backbone)
    fed = {name: json.loads(header.pop(name)) for name in ("mean", "std", "timm_kwargs")}
    assert fed == {"mean": list(spec.mean), "std": list(spec.std), "timm_kwargs": {}}
    assert header == {"backbone": backbone, "timm_model": spec.timm_model, "source": "drawn"}


def test_no_weights_for_nothing(tmp_path):
    with pytest.raises(SkinlesionError, match=r"none\.h5: no such file"):
        convert(tmp_path / "none.h5", tmp_path / "w.safetensors", NASNET)
    with pytest.raises(SkinlesionError, match=r"must end in \.safetensors"):
        convert(tmp_path / "none.h5", tmp_path / "w.h5", NASNET)
    assert list(tmp_path.iterdir()) == []


def test_the_side_with_keras_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import skinlesion.fidelity.keras_side"
    subprocess.run([sys.executable, "-c", code], check=True)
