"""Files that Keras writes become weights files of ours.

`make keras-parity` runs this where Keras is; elsewhere it is skipped.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from skinlesion.fidelity import keras_side
from skinlesion.fidelity.cases import Reference, numbers
from skinlesion.fidelity.keras_weights import our_name, to_torch

keras = pytest.importorskip("keras", reason="Keras is only in .venv-keras")
tf_keras = pytest.importorskip("tf_keras", reason="Keras is only in .venv-keras")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

LARGE, NASNET = "mobilenet_v3_large", "nasnet_mobile"
SHAPES = Reference.read(Path(__file__).parent / "fixtures/keras_parity.npz").weights
# Which Keras wrote it, with or without the classifier, and how.
FILES = (
    *((NASNET, "2-top", file) for file in ("weights.h5", "whole.h5", "whole.keras")),
    *((NASNET, "2-notop", file) for file in ("weights.h5", "whole.keras")),
    *((NASNET, "3-top", file) for file in ("whole.h5", "whole.keras", "new.weights.h5")),
    (NASNET, "3-notop", "whole.keras"),
    *((LARGE, "2-top", file) for file in ("weights.h5", "whole.keras")),
    (LARGE, "2-notop", "weights.h5"),
    *((LARGE, "3-top", file) for file in ("whole.h5", "whole.keras")),
    (LARGE, "3-notop", "whole.keras"),
)


def drawn(backbone):
    return numbers(backbone, SHAPES[backbone])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of both Keras, of the drawn numbers."""
    folder = tmp_path_factory.mktemp("keras")
    for backbone, maker in dict.fromkeys((backbone, maker) for backbone, maker, _ in FILES):
        values = {our_name(backbone, name): value for name, value in drawn(backbone).items()}
        version, top = maker.split("-")
        model = keras_side.build(backbone, tf_keras if version == "2" else keras, top == "top")
        for name, variable in keras_side.variables(model).items():
            variable.assign(values[our_name(backbone, name)])
        model.compile("adam", "mse")
        parent = folder / backbone / maker
        parent.mkdir(parents=True)
        for file in (file for *made, file in FILES if made == [backbone, maker]):
            save = model.save if file.startswith("whole") else model.save_weights
            save(parent / file)
    other = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))])
    other.save(folder / "other.h5")
    other.save(folder / "other.keras")
    return folder


@pytest.mark.parametrize(("backbone", "maker", "file"), FILES)
def test_a_file_of_keras_is_converted(folder, tmp_path, backbone, maker, file):
    out = tmp_path / "w.safetensors"
    source = folder / backbone / maker / file
    keras_side.main(["convert", str(source), str(out), "--backbone", backbone])
    state, expected = load_file(out), to_torch(backbone, drawn(backbone))
    left_out = {LARGE: 4, NASNET: 2}[backbone] if maker.endswith("notop") else 0
    assert len(state) == len(expected) - left_out
    assert all(np.array_equal(value, expected[name]) for name, value in state.items())
    with safe_open(out, framework="np") as content:
        assert content.metadata()["source"] == file


@pytest.mark.parametrize(
    "name",
    [f"{NASNET}/2-top/whole.h5", f"{NASNET}/3-top/whole.keras", "other.h5", "other.keras"],
)
def test_another_architecture_is_refused(folder, tmp_path, name):
    refused(folder / name, tmp_path, "does not hold Keras' weights of " + LARGE)


@pytest.mark.parametrize("rest", [b"", b"other"], ids=["cut off", "changed"])
def test_a_damaged_file_is_refused(folder, tmp_path, rest):
    whole = (folder / LARGE / "3-top/whole.keras").read_bytes()
    half = whole[: len(whole) // 2]
    (folder / "damaged.keras").write_bytes(half + rest + whole[len(half + rest) :] * bool(rest))
    refused(folder / "damaged.keras", tmp_path, "damaged.keras cannot be read: it is damaged")


def test_what_is_no_file_of_keras_is_refused(folder, tmp_path):
    (folder / "text.h5").write_text("text")
    refused(folder / "text.h5", tmp_path, "text.h5 cannot be read")
    with zipfile.ZipFile(folder / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(folder / "empty.keras", tmp_path, "empty.keras cannot be read")


def test_a_weight_that_is_no_number_is_refused(folder, tmp_path):
    model = keras_side.build(LARGE, tf_keras)
    model.get_layer("Conv").set_weights([np.full((3, 3, 3, 16), np.nan, np.float32)])
    model.save_weights(folder / "nan.h5")
    refused(folder / "nan.h5", tmp_path, "missing or not finite: conv/kernel")


def refused(file, tmp_path, match):
    arguments = ["convert", str(file), str(tmp_path / "w.safetensors")]
    with pytest.raises(SystemExit, match=match) as refusal:
        keras_side.main([*arguments, "--backbone", LARGE])
    assert str(refusal.value).startswith("error: ")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []
