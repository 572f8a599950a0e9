import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from skinlesion.data.demo import write_demo
from skinlesion.data.encoding import Category, MetadataEncoder, Number
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.bootstrap import interval, resample
from skinlesion.evaluation.calibration import scale
from skinlesion.runs.predictions import read_predictions
from skinlesion.export import main
from skinlesion.models.classifier import build_classifier
from skinlesion.serving.export import bundle, formats
from skinlesion.serving.export.card_use import contract
from skinlesion.serving.export.measure import latencies
from skinlesion.serving.export.onnx import write_onnx
from skinlesion.serving.export.runtimes import Outputs, check_parity, onnx_runtime, torch_runtime
from skinlesion.serving.model import LesionModel, load_run
from skinlesion.runs.directory import RunDirectory


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported run. Not to be changed."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("export") / "run" / "key" / "seed0")
    main([str(run), "--repeats", "3"])
    return run / "export"


@pytest.fixture(scope="module")
def record(exported: Path) -> dict[str, Any]:
    return json.loads((exported / "export.json").read_text())


@pytest.fixture(scope="module")
def card(exported: Path) -> str:
    return (exported / "README.md").read_text()


@pytest.fixture(scope="module")
def model(trained: Path) -> LesionModel:
    return load_run(trained)


def some_images(model: LesionModel, number: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (number, 3, model.size, model.size), dtype=np.uint8)
    rows = [{"age": 10 * i, "sex": "male", "localization": "back"} for i in range(number)]
    return image, model.encoder.encode(model.encoder.frame(rows))


def test_the_folder_holds_every_file_and_nothing_half_written(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        *("README.md", "export.json", "model.int8.onnx", "model.onnx", "model.safetensors")
    ]
    assert not [path for path in exported.parent.iterdir() if path.name.startswith(".export")]


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_onnx_file_computes_what_the_network_does_for_batches_of_any_size(
    exported: Path, model: LesionModel, batch: int
) -> None:
    image, metadata = some_images(model, batch)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    logits, probabilities = session.run(None, {"image": image, "metadata": metadata})
    raw = model.probabilities(image.transpose(0, 2, 3, 1), metadata)
    np.testing.assert_allclose(probabilities, scale(raw, model.temperature), atol=1e-4)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), raw, atol=1e-4)


def test_the_onnx_file_says_what_it_is(exported: Path, model: LesionModel) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    size = model.size
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("image", ["batch", 3, size, size], "tensor(uint8)"),
        ("metadata", ["batch", 21], "tensor(float)"),
    ]
    said = json.loads(session.get_modelmeta().custom_metadata_map["skinlesion"])
    assert tuple(said["classes"]) == model.classes
    assert said["temperature"] == model.temperature


def test_a_network_without_metadata_takes_the_image_alone(
    model: LesionModel, tmp_path: Path
) -> None:
    network = model.description["network"]
    description = model.description | {
        "network": network
        | {"metadata": {"name": "none"}, "backbone": network["backbone"] | {"cut": "blocks.0.0"}}
    }
    small = LesionModel(description, build_classifier(**description["network"]).state_dict(), 2.0)
    write_onnx(small, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    assert [given.name for given in session.get_inputs()] == ["image"]
    few = some_images(small, 3)
    found = onnx_runtime(tmp_path / "small.onnx")
    assert check_parity("it", torch_runtime(small), found, *few).probability < 1e-4


def test_parity_and_quality_are_measured_on_the_held_out_images(
    record: dict[str, Any], trained: Path
) -> None:
    metrics = RunDirectory(trained).read_json("metrics.json")["parts"]["test"]
    parity = record["files"]["onnx"]["parity"]
    assert 0 <= parity["probability"] <= 1e-4
    assert record["tried_on"] == "held-out images"
    for kind in ("safetensors", "onnx"):
        quality = record["files"][kind]["quality"]
        assert quality["n"] == metrics["n"]
        assert quality["accuracy"] == pytest.approx(metrics["accuracy"])
        assert quality["balanced_accuracy"] == pytest.approx(metrics["balanced_accuracy"])


def test_what_eight_bits_cost_is_measured_and_written_down(
    record: dict[str, Any], card: str
) -> None:
    exact, rounded = record["files"]["onnx"]["quality"], record["files"]["int8"]["quality"]
    loss = record["files"]["int8"]["against_float32"]
    for name in ("accuracy", "balanced_accuracy"):
        assert loss[name] == pytest.approx(rounded[name] - exact[name])
    assert 0 <= loss["same_answer"] <= 1
    assert f"({100 * loss['balanced_accuracy']:+.1f} points)" in card
    assert record["files"]["int8"]["mb"] < record["files"]["onnx"]["mb"]


def test_eight_bits_are_for_the_backbone_and_not_for_its_first_convolutions(
    exported: Path, record: dict[str, Any]
) -> None:
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
    assert done["convolutions_left_in_float32"] == 12
    assert rounded == [False] * 12 + [True] * done["convolutions"] + [False]  # soft attention
    dense = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert dense
    assert not any(node.input[1] in dequantised for node in dense)


def test_the_weights_file_gives_the_same_predictions(exported: Path, model: LesionModel) -> None:
    again = load_run(exported / "model.safetensors")
    image, metadata = some_images(model, 2)
    pixels = image.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(
        again.probabilities(pixels, metadata), model.probabilities(pixels, metadata)
    )
    assert again.temperature == model.temperature


def test_the_cards_numbers_are_those_of_the_run(card: str, trained: Path) -> None:
    metrics = RunDirectory(trained).read_json("metrics.json")["parts"]["test"]
    part = read_predictions(trained / "predictions.csv").part("test")
    low, high = interval(resample(part, ["balanced_accuracy"])["balanced_accuracy"])
    assert f"{metrics['balanced_accuracy']:.3f} ({low:.3f}-{high:.3f})" in card
    melanoma = next(line for line in card.splitlines() if line.startswith("| melanoma (mel)"))
    assert f"| {metrics['per_class']['mel']['recall']:.3f} (" in melanoma
    assert f"| {metrics['per_class']['mel']['support']} |" in melanoma
    assert "No lesion of the test part was trained on." in card
    assert "HAM10000 is licensed CC BY-NC 4.0" in card
    assert str(trained) not in card


def test_the_hub_understands_the_card(card: str, record: dict[str, Any]) -> None:
    data = ModelCard(card).data
    assert data.license == "cc-by-nc-4.0"
    assert data.model_name == record["run"]
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    quality = record["files"]["safetensors"]["quality"]
    assert values["accuracy"] == pytest.approx(quality["accuracy"], abs=1e-4)


def test_the_card_says_which_column_is_which_value(card: str, model: LesionModel) -> None:
    row = next(line for line in card.splitlines() if "| sex, one of them 1" in line)
    named = dict(
        reversed(word.strip(" |").split(" ", 1)) for word in row.split(": ")[1].split(",")[1:]
    )
    assert {"female", "male"} <= set(named)
    for value, column in named.items():
        encoded = model.encoder.encode(model.encoder.frame([{"sex": value}]))[0]
        assert encoded[int(column)] == 1


def test_properties_of_other_data_are_described_too() -> None:
    encoder = MetadataEncoder(
        {"Size": Number(0, 9, 3.0, 2.0), "site": Category(("a", "b", "unknown"), ("a",))}, "zero"
    )
    said = contract(
        SimpleNamespace(
            size=8,
            classes=("x", "y"),
            temperature=1.0,
            properties=("Size", "site"),
            encoder=encoder,
        )
    )
    assert "| 0 | (Size - 3) / 2; 0 if unknown |" in said
    assert "1 any other value (b, unknown), 2 a; all 0 if unknown or any other value |" in said


def test_every_file_is_timed(record: dict[str, Any]) -> None:
    for about in record["files"].values():
        found = about["latency_ms"]
        assert found["repeats"] == 3
        assert 0 < found["q25"] <= found["median"] <= found["q75"]


def test_timed_calls_take_turns() -> None:
    order: list[str] = []
    latencies({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order[-4:] == ["a", "b", "a", "b"]


def test_the_table_is_printed_and_written(
    finished_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "out", str(finished_run.path)
    main([run, "--out", str(out), "--formats", "safetensors", "--repeats", "0"])
    name = "mobilenet_v3_small-key-seed0"
    assert (out / name / "model.safetensors").is_file()
    table = (out / "table.md").read_text()
    accuracy = finished_run.read_json("metrics.json")["parts"]["test"]["accuracy"]
    printed = capsys.readouterr().out
    for text in (table, printed):
        row = next(line for line in text.splitlines() if name in line)
        assert f"{accuracy:.3f}" in row
        assert "not measured" in row  # the latency
        assert "images; 2 epochs" in row


def test_drawn_pictures_are_told_from_real_ones(
    finished_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.config.data.demo = {"images": 80, "seed": 0}
    OmegaConf.save(finished_run.config, finished_run.path / "config.yaml")
    main([str(finished_run.path), "--formats", "safetensors", "--repeats", "0"])
    assert "drawn images" in capsys.readouterr().out
    card = (finished_run.path / "export" / "README.md").read_text()
    assert ModelCard(card).data.license == "unknown"
    assert "say nothing about skin" in card
    assert "Austria" not in card


def test_a_run_of_a_few_batches_shows_no_accuracy(
    finished_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.config.trainer.limit_train_batches = 1
    OmegaConf.save(finished_run.config, finished_run.path / "config.yaml")
    main([str(finished_run.path), "--formats", "safetensors", "--repeats", "0"])
    printed = capsys.readouterr().out
    assert "not trained" in printed
    assert (
        f"{finished_run.read_json('metrics.json')['parts']['test']['accuracy']:.3f}" not in printed
    )
    folder = finished_run.path / "export"
    record = json.loads((folder / "export.json").read_text())
    assert record["files"]["safetensors"]["quality"] is None
    card = (folder / "README.md").read_text()
    assert "its answers mean nothing" in card
    assert "model-index" not in card


def test_without_the_data_there_is_no_int8_and_parity_is_checked_on_noise(
    finished_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.config.machine.data = "/nowhere"
    OmegaConf.save(finished_run.config, finished_run.path / "config.yaml")
    main([str(finished_run.path), "--formats", "safetensors,int8", "--repeats", "0"])
    said = capsys.readouterr().err
    assert "the images are not at hand" in said
    assert "no model.int8.onnx" in said
    folder = finished_run.path / "export"
    assert not (folder / "model.int8.onnx").exists()
    assert json.loads((folder / "export.json").read_text())["tried_on"] == "noise"


def test_other_data_than_the_run_was_trained_on_is_refused(
    finished_run: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(SkinlesionError, match=r"nowhere"):
        main([str(finished_run.path), "--data", "/nowhere"])
    other = write_demo(tmp_path / "other", images=80, size=(96, 72), seed=5, progress=False)
    with pytest.raises(SkinlesionError, match=r"other images or metadata"):
        main([str(finished_run.path), "--data", str(other)])
    assert not (finished_run.path / "export").exists()


def test_an_export_that_computes_something_else_leaves_everything_as_it_was(
    finished_run: RunDirectory, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: LesionModel, path: Path) -> None:
        graph = onnx.load(exported / "model.onnx")
        for initializer in graph.graph.initializer:
            if initializer.name.endswith("dense.bias"):
                bias = onnx.numpy_helper.to_array(initializer) + np.arange(7, dtype=np.float32)
                initializer.CopyFrom(onnx.numpy_helper.from_array(bias, initializer.name))
        onnx.save(graph, path)

    main([str(finished_run.path), "--formats", "safetensors", "--repeats", "0"])
    folder = finished_run.path / "export"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("skinlesion.serving.export.onnx.write_onnx", wrong)
    with pytest.raises(SkinlesionError, match=r"model.onnx does not compute what the network does"):
        main([str(finished_run.path), "--formats", "onnx"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in finished_run.path.glob(".export*")] == []


def test_no_number_is_no_parity() -> None:
    def says(value: float) -> Any:
        return lambda image, metadata: Outputs(np.full((1, 7), value), np.full((1, 7), 1 / 7))

    few = np.zeros((1, 3, 8, 8), np.uint8), np.zeros((1, 21), np.float32)
    with pytest.raises(SkinlesionError, match="does not compute"):
        check_parity("it", says(0.0), says(float("nan")), *few)
    assert check_parity("it", says(0.0), says(5e-5), *few).logit == pytest.approx(5e-5)


def test_the_folder_holds_what_was_asked_for_last(finished_run: RunDirectory) -> None:
    folder = finished_run.path / "export"
    folder.mkdir()
    for name in ("model.onnx", "notes.txt"):
        (folder / name).write_text("of an earlier time")
    main([str(finished_run.path), "--formats", "safetensors", "--repeats", "0"])
    assert not (folder / "model.onnx").exists()
    assert (folder / "notes.txt").exists()  # not ours


def test_unknown_formats_and_missing_packages_are_one_error_before_any_work(
    finished_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(finished_run.path)
    with pytest.raises(SkinlesionError, match=r"no tflite, expected some of safetensors, onnx"):
        main([run, "--formats", "onnx,tflite"])
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    monkeypatch.setattr(bundle, "load_run", lambda path: pytest.fail("work was begun"))
    with pytest.raises(SkinlesionError, match=r"onnxruntime.*skinlesion\[export\]"):
        main([run])
    with pytest.raises(SkinlesionError, match=r"executorch.*skinlesion\[phone\]"):
        main([run, "--formats", "safetensors", "--phone"])
    assert formats.choose("safetensors") == ("safetensors",)


def test_what_is_no_run_is_said(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(SkinlesionError, match="no such run"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(SkinlesionError, match="is a file: expected a run directory"):
        main([str(exported / "model.safetensors")])


def test_a_phones_program_computes_what_the_network_does(finished_run: RunDirectory) -> None:
    pytest.importorskip("executorch", reason="pip install 'skinlesion[phone]'")
    main([str(finished_run.path), "--formats", "phone", "--repeats", "1"])
    folder = finished_run.path / "export"
    parity = json.loads((folder / "export.json").read_text())["files"]["phone"]["parity"]
    assert parity["probability"] <= 1e-4
    assert (folder / "model.pte").is_file()
