from pathlib import Path

import numpy as np
import pytest
import torch

from skinlesion.data.archive import ImageArchive
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions
from skinlesion.models.classifier import build_classifier
from skinlesion.models.soft_attention import ReleasedSoftAttention
from skinlesion.serving.attention import explain, overlay
from skinlesion.serving.model import LesionModel, load_run


@pytest.fixture
def model(trained: Path) -> LesionModel:
    return load_run(trained)


@pytest.fixture(scope="module")
def jpeg(archive: Path, trained: Path) -> bytes:
    held_out = read_predictions(trained / "predictions.csv").frame["image_id"]
    return ImageArchive(archive).read(held_out[0])


def test_the_maps_are_those_that_the_network_multiplies_by(model: LesionModel, jpeg: bytes) -> None:
    found = explain(model, jpeg, {"age": 45})
    assert found.maps is not None
    assert found.maps.shape[0] == 16
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2)), 1, atol=1e-5)
    seen: list[torch.Tensor] = []
    model.network.attention.register_forward_hook(lambda _, given, out: seen.extend([*given, out]))
    model.predict(jpeg, age=45)
    t, attended = (tensor.numpy() for tensor in seen)
    expected = model.network.attention.gamma.item() * found.maps.sum(axis=0) * t
    np.testing.assert_allclose(attended, expected, atol=1e-6)


def test_attention_that_looks_everywhere_alike_is_one_everywhere(
    model: LesionModel, jpeg: bytes
) -> None:
    torch.nn.init.zeros_(model.network.attention.conv.weight)
    attention = explain(model, jpeg).attention
    np.testing.assert_allclose(attention, 1, atol=1e-6)


def test_the_released_attention_has_maps_too(model: LesionModel, jpeg: bytes) -> None:
    channels = model.network.attention.conv.in_channels
    model.network.attention = ReleasedSoftAttention(channels)
    found = explain(model, jpeg)
    assert found.maps is not None
    assert found.maps.shape[0] == 16


def test_grad_cam_is_the_features_weighted_by_their_mean_gradient(
    model: LesionModel, jpeg: bytes
) -> None:
    found = explain(model, jpeg, {"sex": "male"}, target="mel")
    row = model.encoder.encode(model.encoder.frame([{"sex": "male"}]))
    features: list[torch.Tensor] = []
    model.network.backbone.register_forward_hook(lambda *hooked: features.append(hooked[2]))
    logits = model.network(model.as_batch(found.image[None]), torch.from_numpy(row))
    (t,) = features
    (gradient,) = torch.autograd.grad(logits[0, model.classes.index("mel")], t)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * t).sum(dim=1)[0].relu()
    expected = (cam / cam.max()).detach().numpy() if cam.max() > 0 else cam.detach().numpy()
    np.testing.assert_allclose(found.cam, expected, atol=1e-4)
    assert found.target == "mel"


def test_the_class_explained_is_the_predicted_one_unless_named(
    model: LesionModel, jpeg: bytes
) -> None:
    found = explain(model, jpeg)
    assert found.target == found.prediction.label
    with pytest.raises(SkinlesionError, match=r"no class melanoma: expected akiec.*vasc"):
        explain(model, jpeg, target="melanoma")


def test_a_network_without_attention_has_grad_cam_alone(model: LesionModel, jpeg: bytes) -> None:
    described = model.description["network"] | {"attention": {"name": "none"}}
    model.network = build_classifier(**described).eval()
    found = explain(model, jpeg)
    assert found.maps is None
    assert found.attention is None
    assert found.cam.ndim == 2


def test_an_overlay_is_brighter_where_the_values_are_higher() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    over = overlay(image, np.array([[0.0, 1.0], [0.0, 1.0]]), high=1.0)
    assert over.shape == image.shape
    assert over[:, 60].mean() > over[:, 4].mean() + 20
    # What is above the scale is drawn as its end.
    np.testing.assert_array_equal(overlay(image, np.full((2, 2), 9.0), 1.0)[0, 0], over[0, 63])
