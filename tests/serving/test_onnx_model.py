"""An exported model.onnx predicts like its run, and without torch."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from skinlesion.cli import main
from skinlesion.data.pixels import read_image, to_square
from skinlesion.errors import SkinlesionError
from skinlesion.serving.export.onnx import onnx_runtime
from skinlesion.serving.model import load_run
from skinlesion.serving.onnx_model import load_onnx, to_square_without_torch
from skinlesion.serving.predictor import HEADER

SLOW = {"torch", "pandas", "timm", "pytorch_lightning", "scipy", "omegaconf", "onnx", "matplotlib"}


def answered(capsys, *words):
    assert main(["predict", *map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_folder_with_its_table_is_answered_as_by_the_run(exported, trained, photos, capsys):
    words = (photos, "--csv", photos / "metadata.csv")
    for expected, found in zip(
        answered(capsys, trained, *words),
        answered(capsys, exported / "model.onnx", *words),
        strict=True,
    ):
        assert found["image"] == expected["image"]
        assert found["missing"] == expected["missing"]
        for kind in ("raw", "probabilities"):
            assert [*found[kind]] == [*expected[kind]]
            assert found[kind] == pytest.approx(expected[kind], abs=1e-5)


def test_eight_bits_answer_what_their_file_computes(exported, photo):
    path = exported / "model.int8.onnx"
    model = load_onnx(path)
    found = model.predict(photo, age=45, sex="male")
    image = model.fitted(read_image(photo)).transpose(2, 0, 1)[None]
    metadata = model.encoder.encode_typed([{"age": 45, "sex": "male"}])
    expected = onnx_runtime(path)(np.ascontiguousarray(image), metadata).probabilities[0]
    np.testing.assert_allclose([*found.probabilities.values()], expected, atol=1e-5)


def test_neither_torch_nor_pandas_is_imported(exported, photos):
    command = [sys.executable, "-X", "importtime", "-m", "skinlesion", "predict"]
    command += [exported / "model.onnx", photos, "--csv", photos / "metadata.csv"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert {"onnxruntime", "PIL.Image"} <= imported
    assert not imported & SLOW


@pytest.mark.parametrize(
    "words",
    [
        *(("--age", "300"), ("--age", "old"), ("--localization", "nose"), ("--set", "weight=80")),
        *(("--set", "age"), ("--csv", "nothing.csv")),
    ],
)
def test_wrong_input_has_the_messages_of_a_run(exported, trained, photo, words):
    said = []
    for path in (trained, exported / "model.onnx"):
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(path), str(photo), *words])
        said.append(stop.value.code)
    assert said[0] == said[1]


def test_a_broken_image_has_the_message_of_a_run(exported, trained, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    said = []
    for path in (trained, exported / "model.onnx"):
        assert main(["predict", str(path), str(tmp_path / "broken.jpg"), "--json"]) == 1
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_what_is_no_exported_file_is_one_line(exported, tmp_path):
    path = tmp_path / "model.onnx"

    def refused(why):
        with pytest.raises(
            SkinlesionError, match=rf"model\.onnx cannot be loaded.*{why}"
        ) as caught:
            load_onnx(path)
        assert "\n" not in str(caught.value)

    refused("no such run or file")
    whole = (exported / "model.onnx").read_bytes()
    for damaged in (b"", b"<html>", whole[:1000], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        refused("damaged, of another kind or of another release|does not say")
    known = onnx.load(exported / "model.onnx")
    about = {prop.key: prop for prop in known.metadata_props}[HEADER]
    description = json.loads(about.value)

    def says(text):
        about.value = text
        onnx.save(known, path)

    says("{")
    refused("damaged, of another kind")
    says(json.dumps(description | {"temperature": 0}))
    refused("temperature=0")
    backbone = description["network"]["backbone"] | {"input_size": 96}
    says(json.dumps(description | {"network": description["network"] | {"backbone": backbone}}))
    refused("not the one that it describes")
    del known.metadata_props[:]
    onnx.save(known, path)
    refused("does not say what its inputs and outputs mean")


@pytest.mark.parametrize("command", ["explain", "app", "export"])
def test_what_needs_torch_says_so(exported, photo, command):
    words = [command, str(exported / "model.onnx"), *([str(photo)] if command == "explain" else [])]
    with pytest.raises(SystemExit, match=f"{command} needs the network in PyTorch"):
        main(words)


def test_an_onnx_file_runs_on_the_cpu_and_is_no_model_of_torch(exported, photo):
    with pytest.raises(SystemExit, match=r"--device cuda: an \.onnx file is run on the CPU"):
        main(["predict", str(exported / "model.onnx"), str(photo), "--device", "cuda"])
    with pytest.raises(SkinlesionError, match="none that holds a whole model"):
        load_run(exported / "model.onnx")


def test_without_torch_few_values_differ_and_by_one_at_most():
    random = np.random.default_rng(0)
    for height, width, size in ((150, 200, 96), (450, 600, 224), (61, 40, 224), (7, 7, 7)):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        expected, found = to_square(image, size), to_square_without_torch(image, size)
        apart = np.abs(expected.astype(int) - found)
        assert apart.max() <= 1
        assert apart.mean() < 1e-4
