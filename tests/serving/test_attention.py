from copy import deepcopy

import numpy as np
import pytest
import torch

from skinlesion.cli import main
from skinlesion.errors import SkinlesionError
from skinlesion.models.classifier import build_classifier
from skinlesion.models.soft_attention import ReleasedSoftAttention
from skinlesion.serving.attention import explain, overlay


@pytest.fixture
def changed(model):
    """A copy of the model, for one test to change."""
    return deepcopy(model)


def test_the_maps_are_those_that_the_network_multiplies_by(changed, photo):
    found = explain(changed, photo, {"age": 45})
    assert found.maps is not None
    assert found.maps.shape[0] == 16
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2)), 1, atol=1e-5)
    seen: list[torch.Tensor] = []
    attention = changed.network.attention
    attention.register_forward_hook(lambda _, given, out: seen.extend([*given, out]))
    changed.predict(photo, age=45)
    t, attended = (tensor.numpy() for tensor in seen)
    expected = attention.gamma.item() * found.maps.sum(axis=0) * t
    np.testing.assert_allclose(attended, expected, atol=1e-6)


def test_grad_cam_is_the_features_weighted_by_their_mean_gradient(changed, photo):
    found = explain(changed, photo, {"sex": "male"}, target="mel")
    row = changed.encoder.encode_typed([{"sex": "male"}])
    features: list[torch.Tensor] = []
    changed.network.backbone.register_forward_hook(lambda *hooked: features.append(hooked[2]))
    logits = changed.network(changed.as_batch(found.image[None]), torch.from_numpy(row))
    (t,) = features
    (gradient,) = torch.autograd.grad(logits[0, changed.classes.index("mel")], t)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * t).sum(dim=1)[0].relu()
    expected = (cam / cam.max()).detach().numpy() if cam.max() > 0 else cam.detach().numpy()
    np.testing.assert_allclose(found.cam, expected, atol=1e-4)
    assert found.target == "mel"


def test_every_kind_of_attention_is_explained_and_none_leaves_grad_cam(changed, photo):
    torch.nn.init.zeros_(changed.network.attention.conv.weight)
    np.testing.assert_allclose(explain(changed, photo).attention, 1, atol=1e-6)
    channels = changed.network.attention.conv.in_channels
    changed.network.attention = ReleasedSoftAttention(channels)
    assert explain(changed, photo).maps.shape[0] == 16
    for name in ("none", "spectral"):
        network = changed.description["network"] | {"attention": {"name": name}}
        changed.network = build_classifier(**network).eval()
        without = explain(changed, photo)
        assert without.maps is without.attention is None
        assert without.cam.ndim == 2
    with pytest.raises(SkinlesionError, match=r"no class melanoma: expected akiec.*vasc"):
        explain(changed, photo, target="melanoma")


def test_an_overlay_is_brighter_where_the_values_are_higher():
    image = np.full((64, 64, 3), 100, np.uint8)
    over = overlay(image, np.array([[0.0, 1.0], [0.0, 1.0]]), high=1.0)
    assert over.shape == image.shape
    assert over[:, 60].mean() > over[:, 4].mean() + 20
    # What is above the scale is drawn as its end.
    np.testing.assert_array_equal(overlay(image, np.full((2, 2), 9.0), 1.0)[0, 0], over[0, 63])


def test_each_image_gives_a_figure_and_a_broken_one_a_line(photo, trained, tmp_path, capsys):
    broken, out = tmp_path / "broken.jpg", tmp_path / "maps"
    broken.write_text("no picture")
    words = [str(trained), str(broken), str(photo), "--age", "45", "--out", str(out)]
    assert main(["explain", *words]) == 1
    names = [f"{photo.stem}_attention.{ending}" for ending in ("pdf", "png")]
    assert sorted(path.name for path in out.iterdir()) == names
    printed, complained = capsys.readouterr()
    assert printed.splitlines() == [str(out / names[1])]
    assert f"error: {broken}: " in complained
    with pytest.raises(SystemExit, match=r"^error: .*broken\.jpg: File exists[^\n]+$"):
        main(["explain", str(trained), str(photo), "--out", str(broken)])
