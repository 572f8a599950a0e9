"""Whether explanations can be trusted: Kernel SHAP, randomised layers, and the command."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.cli import main
from skinlesion.data.pixels import read_image
from skinlesion.serving.explain_check import LAST, check_image, randomised, similarity
from skinlesion.serving.saliency import GRID, kernel_shap


def test_the_shares_of_a_probability_that_adds_up_are_found():
    """Each square that is shown adds what its place says: its Shapley value is just that."""
    adds = torch.linspace(-0.01, 0.01, GRID * GRID)

    class Adding(torch.nn.Module):
        def forward(self, image, metadata):
            black = (image[:, 0, ::2, ::2] == 0).flatten(1).float()  # (B, GRID²)
            p = 0.5 + black @ adds
            return torch.stack([1 - p, p], dim=1).log()

    image = torch.zeros(1, 3, 2 * GRID, 2 * GRID, dtype=torch.uint8)
    found = kernel_shap(Adding(), image, torch.zeros(1, 0), target=1, samples=400)
    np.testing.assert_allclose(found.ravel(), adds, atol=1e-3)


def test_maps_are_alike_as_their_structure_is():
    random = np.random.default_rng(0).random((7, 7))
    assert similarity(random, 3 * random + 2, 64) == pytest.approx(1, abs=1e-5)
    assert similarity(random, 1 - random, 64) < 0
    assert np.isfinite(similarity(random, np.zeros((7, 7)), 64))


def test_layers_are_randomised_from_the_last_one_on_and_the_model_stays(model):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    same = []
    for name, network in randomised(model.network):
        state = network.state_dict()
        same.append({key for key in before if torch.equal(before[key], state[key])})
        if name == LAST:
            assert {*before} - same[-1] <= {"dense.weight", "dense.bias"}
            np.testing.assert_allclose(
                np.sort(state["dense.weight"].flatten()),
                np.sort(before["dense.weight"].flatten()),
            )
    assert all(after < earlier for earlier, after in pairwise(same))
    assert all(
        torch.equal(before[name], value) for name, value in model.network.state_dict().items()
    )


def test_soft_attention_does_not_see_the_last_layer_and_grad_cam_does(model, photo):
    image = model.fitted(read_image(photo))
    found = check_image(model, [model], image, {}, ["soft-attention", "grad-cam"], "mel")
    like = {(method, check): value for method, check, value in found}
    assert like["soft-attention", LAST] == pytest.approx(1, abs=1e-6)
    assert like["soft-attention", "100% of layers"] < 0.999
    assert like["grad-cam", LAST] < 0.999
    assert like["grad-cam", "another seed"] == like["grad-cam", "the same again"] == 1


def test_the_command_writes_a_table_and_a_figure(trained, photo, tmp_path, capsys):
    words = ["explain", str(trained), str(photo), "--out", str(tmp_path)]
    assert main([*words, "--check", "--samples", "60"]) == 0
    out, err = capsys.readouterr()
    assert "no other seed of this run" in err
    frame = pd.read_csv(tmp_path / "explain_check.csv")
    assert frame.groupby("method").size().to_dict() == dict.fromkeys(
        ("soft-attention", "grad-cam", "kernel-shap"), 6
    )
    assert (tmp_path / "explain_check.png").exists()
    assert "kernel-shap" in out
    assert main([*words, "--method", "kernel-shap", "--samples", "60"]) == 0
    with pytest.raises(SystemExit, match="--method lime: expected some of soft-attention"):
        main([*words, "--method", "lime"])
