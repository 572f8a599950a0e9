"""The model card: the run's numbers, what the hub reads, and texts of a run that stay text."""

from copy import copy

import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from skinlesion.data.encoding import Category, MetadataEncoder, Number
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.export.card import model_card


@pytest.fixture(scope="module")
def card(exported):
    return (exported / "README.md").read_text()


@pytest.fixture(scope="module")
def part(trained):
    return Measured.reported(read_predictions(trained / "predictions.csv"))


def test_its_numbers_are_those_of_the_run(card, record, part, trained):
    low, high = part.interval("balanced_accuracy")
    assert f"{part.metrics['balanced_accuracy']:.3f} ({low:.3f}-{high:.3f})" in card
    melanoma = next(line for line in card.splitlines() if line.startswith("| melanoma (mel)"))
    of_melanoma = part.metrics["per_class"]["mel"]
    assert f"| {of_melanoma['support']} | {of_melanoma['recall']:.3f} (" in melanoma
    loss = record["files"]["int8"]["against_float32"]
    assert f"({100 * loss['balanced_accuracy']:+.1f} points)" in card
    assert "No lesion of the test part was trained on." in card
    assert "HAM10000 is licensed CC BY-NC 4.0" in card
    assert str(trained) not in card


def test_the_hub_understands_it(card, record):
    data = ModelCard(card).data
    assert data.license == "cc-by-nc-4.0"
    assert data.model_name == record["run"]
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    quality = record["files"]["safetensors"]["quality"]
    assert values["accuracy"] == pytest.approx(quality["accuracy"], abs=1e-4)


def test_it_says_which_column_is_which_value(card, model):
    row = next(line for line in card.splitlines() if "| sex, one of them 1" in line)
    columns = dict(
        reversed(word.strip(" |").split(" ", 1)) for word in row.split(": ")[1].split(",")[1:]
    )
    assert {"female", "male"} <= set(columns)
    for value, column in columns.items():
        encoded = model.encoder.encode_typed([{"sex": value}])[0]
        assert encoded[int(column)] == 1


def test_the_parts_of_the_code_fit_together(card, model):
    first, second = (block.split("```")[0] for block in card.split("```python\n")[1:])
    for code in (first, second):
        compile(code, "card", "exec")
    assert 'model.predict("lesion.jpg", age=45, sex="male", localization="back")' in first
    assert f"to_square(pixels, {model.size})" in second
    assert '{"image": image, "metadata": metadata}' in second


def test_a_run_of_other_data_says_what_is_known_and_its_texts_stay_text(
    finished_run, model, record
):
    finished_run.config.data.tables = ["t|a*<b>"]
    finished_run.config.weights = "none"
    OmegaConf.save(finished_run.config, finished_run.path / "config.yaml")
    metrics = finished_run.read_json("metrics.json")
    metrics["leak"] = {"val": {"leaked": 1, "images": 9, "share": 1 / 9}}
    finished_run.write_json("metrics.json", metrics)
    other = copy(model)
    other.encoder = MetadataEncoder(
        {"Size": Number(0, 9, 3.0, 2.0), "site": Category(("a", "b|c", "unknown"), ("a",))}, "zero"
    )
    part = Measured(read_predictions(finished_run.predictions).part("val"))
    changed = record | {"data": "own", "part": "val", "files": {}, "run": "<script>x</script>"}
    card = model_card(RunDirectory(finished_run.path), other, part, changed)
    for text in (
        r"# \<script\>x\</script\>",
        r"Images with the table t\|a\*\<b\>.",
        "| 0 | (Size - 3) / 2; 0 if unknown |",
        r"1 any other value (b\|c, unknown), 2 a; all 0 if unknown or any other value |",
        "**Leak: 1 of the 9 images of the validation part (11 %)",
        "Metrics are those of the validation part, which also selected the checkpoint.",
        "The images it is measured on also selected the checkpoint.",
        "| weights to begin with | none, from scratch |",
        "ask whoever holds them. Training began from scratch.",
    ):
        assert text in card, text
    assert ModelCard(card).data.license == "unknown"
    assert "Austria" not in card


def test_drawn_pictures_are_told_from_real_ones(trained, model, part, record):
    card = model_card(RunDirectory(trained), model, part, record | {"data": "drawn"})
    assert ModelCard(card).data.license == "unknown"
    assert "say nothing about skin" in card
    assert "Austria" not in card
