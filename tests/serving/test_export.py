"""Exports: the files compute what the network does, and the folder is whole or as it was."""

import json
import os
import shutil

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from omegaconf import OmegaConf

from skinlesion.cli import Terminated, main
from skinlesion.errors import DISK, SkinlesionError
from skinlesion.evaluation.calibration import scale
from skinlesion.models.classifier import build_classifier
from skinlesion.runs.directory import RunDirectory
from skinlesion.serving import export
from skinlesion.serving.export.measure import Images, Outputs, latencies, parity, torch_runtime
from skinlesion.serving.export.onnx import onnx_runtime, quantize, write_onnx
from skinlesion.serving.model import LesionModel

SURE = {"akiec": 0.0, "bcc": 0.0, "bkl": 0.0, "df": 1.0, "mel": 0.0, "nv": 0.0, "vasc": 0.0}


def some_images(model, number):
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (number, 3, model.size, model.size), dtype=np.uint8)
    rows = [{"age": 10 * i, "sex": "male", "localization": "back"} for i in range(number)]
    return image, model.encoder.encode_typed(rows)


def test_the_folder_holds_every_file_and_nothing_half_written(exported):
    assert sorted(path.name for path in exported.iterdir()) == [
        *("README.md", "export.json", "model.int8.onnx", "model.onnx", "model.safetensors")
    ]
    assert not [*exported.parent.glob(".export*")]


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_onnx_file_computes_what_the_network_does_for_batches_of_any_size(
    exported, model, batch
):
    image, metadata = some_images(model, batch)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    logits, probabilities = session.run(None, {"image": image, "metadata": metadata})
    raw = model.probabilities(image.transpose(0, 2, 3, 1), metadata)
    np.testing.assert_allclose(probabilities, scale(raw, model.temperature), atol=1e-4)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), raw, atol=1e-4)


def test_the_onnx_file_says_what_it_is(exported, model):
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("image", ["batch", 3, model.size, model.size], "tensor(uint8)"),
        ("metadata", ["batch", 21], "tensor(float)"),
    ]
    header = json.loads(session.get_modelmeta().custom_metadata_map["skinlesion"])
    assert tuple(header["classes"]) == model.classes
    assert header["temperature"] == model.temperature


def test_a_network_without_metadata_takes_the_image_alone(model, tmp_path):
    network = model.description["network"] | {
        "metadata": {"name": "none"},
        "backbone": model.description["network"]["backbone"] | {"cut": "blocks.0.0"},
    }
    state = build_classifier(**network).state_dict()
    small = LesionModel(model.description | {"network": network}, state)
    write_onnx(small, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    assert [given.name for given in session.get_inputs()] == ["image"]
    image, metadata = some_images(small, 3)
    few = Images("abc", metadata, lambda name: image["abc".index(name)].transpose(1, 2, 0))
    found = parity("it", torch_runtime(small), onnx_runtime(tmp_path / "small.onnx"), few)
    assert found["probability"] < 1e-4
    assert found["batches"] == [1, 2]
    quantize(tmp_path / "small.onnx", tmp_path / "eight.onnx", few)
    assert onnx_runtime(tmp_path / "eight.onnx")(image, metadata).logits.shape == (3, 7)


def test_parity_and_quality_are_measured_on_the_held_out_images(record, trained):
    metrics = RunDirectory(trained).read_json("metrics.json")["parts"]["test"]
    assert 0 <= record["files"]["onnx"]["parity"]["probability"] <= 1e-4
    assert record["tested_on"] == "held-out images"
    for kind in ("safetensors", "onnx"):
        quality = record["files"][kind]["quality"]
        assert quality["n"] == metrics["n"]
        assert quality["accuracy"] == pytest.approx(metrics["accuracy"])
        assert quality["balanced_accuracy"] == pytest.approx(metrics["balanced_accuracy"])
    exact, rounded = record["files"]["onnx"], record["files"]["int8"]
    loss = rounded["against_float32"]
    for name in ("accuracy", "balanced_accuracy"):
        assert loss[name] == pytest.approx(rounded["quality"][name] - exact["quality"][name])
    assert 0 <= loss["same_answer"] <= 1
    assert rounded["mb"] < exact["mb"]


def test_eight_bits_are_for_the_backbone_and_not_for_its_first_convolutions(exported, record):
    graph = onnx.load(exported / "model.int8.onnx").graph
    eight = {initializer.name for initializer in graph.initializer if initializer.data_type == 3}
    dequantised = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in eight
    }
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    rounded = [node.input[1] in dequantised for node in convolutions]
    done = record["files"]["int8"]["quantisation"]
    assert done["convolutions_left_in_float32"] == 6
    assert rounded == [False] * 6 + [True] * done["convolutions"] + [False]  # soft attention
    dense = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert dense
    assert not any(node.input[1] in dequantised for node in dense)


def test_every_file_is_timed_in_turn(record):
    for about in record["files"].values():
        found = about["latency_ms"]
        assert found["repeats"] == 3
        assert 0 < found["q25"] <= found["median"] <= found["q75"]
    order = []
    latencies({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order[-4:] == ["a", "b", "a", "b"]


def test_the_table_is_printed_and_written_and_what_is_not_ours_stays(
    finished_run, tmp_path, capsys
):
    out = tmp_path / "out"
    folder = out / "mobilenet_v3_small-key-seed0"
    folder.mkdir(parents=True)
    for name in ("model.onnx", "notes.txt"):
        (folder / name).write_text("of an earlier time")
    words = ["--out", str(out), "--formats", "safetensors", "--repeats", "0"]
    main(["export", str(finished_run.path), *words])
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "export.json", "model.safetensors", "notes.txt")
    ]
    accuracy = finished_run.read_json("metrics.json")["parts"]["test"]["accuracy"]
    for text in ((out / "table.md").read_text(), capsys.readouterr().out):
        row = next(line for line in text.splitlines() if folder.name in line)
        assert f"{accuracy:.3f}" in row
        assert "not measured" in row  # the latency
        assert "images; 2 epochs" in row


def test_an_untrained_run_without_its_data_shows_no_accuracy_and_is_checked_on_noise(
    finished_run, exported, monkeypatch, capsys
):
    made = exported / "model.onnx"  # of the same network
    write = "skinlesion.serving.export.onnx.write_onnx"
    monkeypatch.setattr(write, lambda model, path: shutil.copy(made, path))
    finished_run.config.trainer.limit_train_batches = 1
    finished_run.config.machine.data = "/nowhere"
    OmegaConf.save(finished_run.config, finished_run.path / "config.yaml")
    words = ["--formats", "safetensors,int8", "--repeats", "0"]
    main(["export", str(finished_run.path), *words])
    out, err = capsys.readouterr()
    assert "the images are not at hand: machine.data=/nowhere: no such folder (--data" in err
    assert "no model.int8.onnx" in err
    assert "not trained" in out
    folder = finished_run.path / "export"
    assert (folder / "model.onnx").exists()  # of which int8 is made
    assert not (folder / "model.int8.onnx").exists()
    record = json.loads((folder / "export.json").read_text())
    assert record["tested_on"] == "noise"
    assert record["files"]["safetensors"]["quality"] is None
    card = (folder / "README.md").read_text()
    assert "its answers mean nothing" in card
    assert "model-index" not in card


def test_other_data_than_the_run_was_trained_on_is_refused(finished_run, archive, tmp_path):
    run, other = str(finished_run.path), tmp_path / "other"
    with pytest.raises(SystemExit, match="nowhere"):
        main(["export", run, "--data", "/nowhere"])
    shutil.copytree(archive, other)
    table = pd.read_csv(other / "HAM10000_metadata.csv")
    table["lesion_id"] = "HAM_" + table["lesion_id"]
    table.to_csv(other / "HAM10000_metadata.csv", index=False)
    with pytest.raises(SystemExit, match="holds other images or metadata"):
        main(["export", run, "--data", str(other)])
    answers = pd.read_csv(finished_run.predictions)  # the labels fit, the pictures do not
    answers[[*SURE]] = [*SURE.values()]
    answers.to_csv(finished_run.predictions, index=False)
    with pytest.raises(SystemExit, match="holds other images or metadata"):
        main(["export", run, "--data", str(archive)])
    assert not (finished_run.path / "export").exists()


def test_an_export_that_fails_or_is_stopped_leaves_everything_as_it_was(
    finished_run, exported, monkeypatch
):
    def wrong(model, path):
        graph = onnx.load(exported / "model.onnx")
        for initializer in graph.graph.initializer:
            if initializer.name.endswith("dense.bias"):
                bias = onnx.numpy_helper.to_array(initializer) + np.arange(7, dtype=np.float32)
                initializer.CopyFrom(onnx.numpy_helper.from_array(bias, initializer.name))
        onnx.save(graph, path)

    def raising(error):
        def write(model, path):
            path.write_text("begun")
            raise error

        return write

    folder = shutil.copytree(exported, finished_run.path / "export")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused = [OSError(number, os.strerror(number)) for number in DISK]
    cases = [
        (wrong, "model.onnx does not compute what the network does"),
        (raising(KeyboardInterrupt()), "130"),
        (raising(Terminated()), "143"),
        *((raising(error), f"^error: {error.strerror}[^\n]+$") for error in refused),
    ]
    for write, message in cases:
        monkeypatch.setattr("skinlesion.serving.export.onnx.write_onnx", write)
        with pytest.raises(SystemExit, match=message):
            main(["export", str(finished_run.path), "--formats", "onnx"])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert not [*finished_run.path.glob(".export*")]


def test_no_number_is_no_parity():
    def answering(value):
        return lambda image, metadata: Outputs(np.full((1, 7), value), np.full((1, 7), 1 / 7))

    one = Images(["a"], np.zeros((1, 21), np.float32), lambda _: np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SkinlesionError, match="does not compute"):
        parity("it", answering(0.0), answering(float("nan")), one)
    assert parity("it", answering(0.0), answering(5e-5), one)["logit"] == pytest.approx(5e-5)


def test_unknown_formats_missing_packages_and_what_is_no_run_are_one_error_before_any_work(
    exported, tmp_path, monkeypatch
):
    run = str(exported.parent)
    with pytest.raises(SystemExit, match=r"no tflite, expected some of safetensors, onnx"):
        main(["export", run, "--formats", "onnx,tflite"])
    with pytest.raises(SystemExit, match="no such run"):
        main(["export", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match="is a file: expected a run directory"):
        main(["export", str(exported / "model.safetensors")])
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"onnxruntime.*skinlesion\[export\]"):
        main(["export", run])
    with pytest.raises(SystemExit, match=r"executorch.*skinlesion\[phone\]"):
        main(["export", run, "--formats", "safetensors", "--phone"])
    assert export.choose("safetensors") == ("safetensors",)


def test_a_phones_program_computes_what_the_network_does(finished_run):
    pytest.importorskip("executorch", reason="pip install 'skinlesion[phone]'")
    main(["export", str(finished_run.path), "--formats", "phone", "--repeats", "1"])
    folder = finished_run.path / "export"
    found = json.loads((folder / "export.json").read_text())["files"]["phone"]["parity"]
    assert found["probability"] <= 1e-4
    assert (folder / "model.pte").is_file()
