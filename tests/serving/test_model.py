import doctest
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import skinlesion
import skinlesion.serving.model
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_temperature, scale
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.model import HEADER, LesionModel, load_run


def test_the_package_offers_load_run():
    assert skinlesion.load_run is load_run
    with pytest.raises(AttributeError, match="load_runs"):
        _ = skinlesion.load_runs


def test_an_image_is_predicted_from_path_bytes_picture_and_pixels_alike(model, photo):
    picture = Image.open(photo)
    sources: list[Any] = [photo, str(photo), photo.read_bytes(), picture, np.asarray(picture)]
    found = [model.predict(source, age=45, sex="male").raw for source in sources]
    assert all(other == found[0] for other in found[1:])
    assert list(found[0]) == list(model.classes)


def test_probabilities_are_the_raw_ones_scaled_by_the_temperature_of_validation(
    model, photo, trained
):
    val = read_predictions(trained / "predictions.csv").part("val")
    assert model.temperature == fit_temperature(val.y, val.probabilities)
    prediction = model.predict(photo)
    raw = np.array([*prediction.raw.values()])
    expected = scale(raw, model.temperature)
    np.testing.assert_allclose([*prediction.probabilities.values()], expected, rtol=1e-9)
    assert prediction.label == model.classes[int(raw.argmax())]


def test_metadata_matters_and_what_is_missing_is_said(model, photo):
    known = model.predict(photo, age="85", sex="Male ", localization="face")
    unknown = model.predict(photo)
    assert known.missing == ()
    assert unknown.missing == ("age", "sex", "localization")
    assert known.raw != unknown.raw
    assert model.predict(photo, age=None, sex="", localization="face").missing == ("age", "sex")
    assert model.predict(photo, age=float("nan"), sex="male").missing == ("age", "localization")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"age": 300}, r"age.*300.*0.*120"),
        ({"localization": "nose"}, r"localization.*nose.*abdomen"),
        ({"localisation": "back"}, r"localisation.*localization"),
    ],
)
def test_unknown_metadata_is_refused_with_what_would_do(model, photo, metadata, message):
    with pytest.raises(SkinlesionError, match=message):
        model.predict(photo, **metadata)


def test_what_is_no_trained_model_is_said(finished_run, tmp_path):
    def refused(path: Path, why: str, device: str = "cpu") -> None:
        with pytest.raises(SkinlesionError, match=why):
            load_run(path, device)

    path = finished_run.path
    refused(path, "device=gpu", device="gpu")
    refused(tmp_path / "nothing", "no such run or file")
    refused(tmp_path, r"no run directory.*Runs in it: .*seed0")
    whole = torch.load(finished_run.best, weights_only=True)
    torch.save(whole | {"code": Path("x")}, finished_run.best)
    refused(path, r"holds more than tensors and plain values\). Expected")
    finished_run.best.write_bytes(finished_run.best.read_bytes()[:1000])
    refused(path, "is damaged, of another kind or of another release")
    predictions = finished_run.predictions.rename(tmp_path / "predictions.csv")
    refused(path, "not trained to the end")
    shutil.copy(predictions, path)
    shutil.rmtree(finished_run.checkpoints)
    refused(path, "has no weights")
    save_file({"a": np.zeros(1)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "does not say how a model is built")
    refused(path / "DONE", "a file, but none that holds a whole model")


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    model.save(path)
    return path


def test_a_file_or_a_checkpoint_is_all_that_a_run_is(model, file, photo, trained):
    for path in (file, trained / "checkpoints/best.ckpt"):
        again = load_run(path)
        assert again.temperature == model.temperature
        assert again.predict(photo, age=45) == model.predict(photo, age=45)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("network.backbone.input_size", 20000, r"input_size=20000"),
        *(
            ("network.backbone.timm_model", name, "not of a hub or a folder")
            for name in ("hf-hub:some/model", "hf_hub:some/model", "local-dir:/etc", "../model")
        ),
        *(
            ("network.backbone.timm_kwargs", {name: "/etc/passwd"}, f"architecture, not {name}")
            for name in ("checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir")
        ),
        ("network.backbone.timm_kwargs", {"depth_multiplier": 1e6}, "at most 1,024 in depth_mult"),
        ("network.backbone.timm_kwargs", {"layers": [1, 10**6]}, "at most 1,024 in layers"),
        # A larger network than the weights are of: it is not even tried.
        ("network.backbone.timm_model", "vit_giant_patch14_dinov2", "no such node"),
        ("network.hidden", 8192, "Missing key"),
        ("network.backbone.std", [0.0, 1.0, 1.0], r"std\.0=0\.0"),
        ("network.hidden", 10**9, r"hidden=1000000000"),
        ("network.metadata.width", 10**9, r"metadata\.width"),
        ("network.classes", 3, "expected 3 classes"),
        ("network.properties", [1, 4, 15], "an encoder of"),
        ("classes", ["a"] * 7, "whose names differ"),
        ("encoder.properties.age.std", 0, r"std=0"),
        ("encoder.properties.sex.seen", ["both"], "among the values"),
        ("classes", ["a" * 10**6, *"bcdefg"], "at most 200 characters"),
        ("temperature", 0, "temperature=0"),
        ("temperature", 1e-300, "temperature=1e-300"),
        ("temperature", "1", "temperature=1: expected a valid number"),
        ("temperature", float("nan"), "temperature=nan"),
    ],
)
def test_what_a_file_says_of_itself_has_limits(file, tmp_path, place, value, message):
    with safe_open(file, "np") as opened:
        description = json.loads(opened.metadata()[HEADER])
    *groups, last = place.split(".")
    node = description
    for group in groups:
        node = node[group]
    node[last] = value
    save_file({"a": np.zeros(1)}, tmp_path / "it.safetensors", {HEADER: json.dumps(description)})
    with pytest.raises(SkinlesionError, match=rf"it\.safetensors cannot be loaded.*{message}"):
        load_run(tmp_path / "it.safetensors")


def test_weights_and_answers_that_are_not_finite_are_errors(model, photo):
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    state["dense.weight"].fill_(1e38)  # finite, but no longer once summed up
    with pytest.raises(SkinlesionError, match="answer is not finite"):
        LesionModel(model.description, state).predict(photo)
    state["dense.bias"][0] = float("nan")
    with pytest.raises(SkinlesionError, match=r"not finite: dense\.bias"):
        LesionModel(model.description, state)


def test_the_docstrings_example_works(file, photo, tmp_path, monkeypatch):
    shutil.copy(file, tmp_path)
    shutil.copy(photo, tmp_path / "lesion.jpg")
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(skinlesion.serving.model)
    assert found.attempted >= 6
    assert found.failed == 0
