"""Whether explanations can be trusted: Kernel SHAP, randomised layers, and the command."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.cli import main
from skinlesion.data.pixels import read_image
from skinlesion.runs.directory import RunDirectory
from skinlesion.serving.explain_check import (
    LAST,
    check_image,
    randomised,
    siblings,
    similarity,
    ssim,
)
from skinlesion.serving.saliency import GRID, METHODS, kernel_shap, superpixels


def test_the_shares_of_a_probability_that_adds_up_are_found():
    """Each square that is shown adds what its place says: its Shapley value is just that.

    Of one colour, superpixels are the squares of the grid.
    """
    adds = torch.linspace(-0.01, 0.01, GRID * GRID)

    class Adding(torch.nn.Module):
        def forward(self, image, metadata):
            black = (image[:, 0, 1::3, 1::3] == 0).flatten(1).float()  # (B, GRID²)
            p = 0.5 + black @ adds
            return torch.stack([1 - p, p], dim=1).log()

    image = torch.zeros(1, 3, 3 * GRID, 3 * GRID, dtype=torch.uint8)
    found = kernel_shap(Adding(), image, torch.zeros(1, 0), target=1, samples=400)
    np.testing.assert_allclose(found[1::3, 1::3].ravel(), adds, atol=1e-3)


def test_superpixels_follow_colour_and_place():
    image = np.full((60, 60, 3), 230, np.uint8)
    image[:, 27:] = (120, 60, 40)  # the edge lies within the grid's squares
    found = superpixels(image)
    assert {*found.ravel()} == {*range(GRID * GRID)}
    mixed = {*found[:, 20]} & {*found[:, 34]}
    assert not mixed
    spread = [np.ptp(np.argwhere(found == part), axis=0).max() for part in range(GRID * GRID)]
    assert max(spread) < 40


def test_only_finished_runs_of_other_seeds_are_compared_with(tmp_path):
    for seed, names in enumerate((["best", "said"], ["best", "said"], ["best"], ["said"])):
        run = RunDirectory(tmp_path / f"seed{seed}")
        run.checkpoints.mkdir(parents=True)
        for name in names:
            (run.best if name == "best" else run.predictions).touch()
    for path in (tmp_path / "seed0", tmp_path / "seed0" / "checkpoints" / "best.ckpt"):
        assert siblings(path) == [tmp_path / "seed1"]
    assert siblings(tmp_path / "model.safetensors") == []


def test_maps_are_alike_as_their_structure_is():
    random = np.random.default_rng(0).random((7, 7))
    assert similarity(random, 3 * random + 2, 64) == pytest.approx(1, abs=1e-5)
    assert similarity(random, 1 - random, 64) < 0
    assert np.isfinite(similarity(random, np.zeros((7, 7)), 64))
    assert np.isnan(similarity(np.zeros((7, 7)), np.zeros((7, 7)), 64))


def test_layers_are_randomised_from_the_last_one_on_and_the_model_stays(model):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    same = []
    for name, network in randomised(model.network, model.description["network"]):
        state = network.state_dict()
        same.append({key for key in before if torch.equal(before[key], state[key])})
        if name == LAST:
            assert "dense.weight" in {*before} - same[-1] <= {"dense.weight", "dense.bias"}
    kernels = {n for n, value in before.items() if value.ndim > 1} - {
        "backbone.mean",
        "backbone.std",
    }
    assert not kernels & same[-1]
    assert all(after < earlier for earlier, after in pairwise(same))
    assert all(
        torch.equal(before[name], value) for name, value in model.network.state_dict().items()
    )


def test_soft_attention_does_not_see_the_last_layer_and_grad_cam_does(model, photo):
    image = model.fitted(read_image(photo))
    found = check_image(model, [model], image, {}, [*METHODS], samples=60)
    like = {(method, check): value for method, check, value in found}
    assert like["soft-attention", LAST] == pytest.approx(1, abs=1e-6)
    assert like["soft-attention", "100% of layers"] < 0.999
    assert like["grad-cam", LAST] < 0.999
    assert like["grad-cam", "another seed"] == like["grad-cam", "the same again"]
    assert like["grad-cam", "the same again"] == pytest.approx(1, abs=1e-6)
    # The same network again is the most that another can reach: each is asked anew.
    assert like["kernel-shap", "another seed"] == like["kernel-shap", "the same again"] < 0.999
    # Nearly flat maps are one picture, whatever their pattern.
    flat = 1 + 0.01 * np.random.default_rng(0).random((2, 7, 7))
    assert ssim(*flat / 2, 64) > 0.99 > 0.5 > similarity(*flat, 64)


def test_the_command_writes_a_table_and_a_figure(trained, photo, tmp_path, capsys):
    words = ["explain", str(trained), str(photo), "--out", str(tmp_path)]
    assert main([*words, "--check", "--samples", "60"]) == 0
    out, err = capsys.readouterr()
    assert "no other seed of this run" in err
    frame = pd.read_csv(tmp_path / "explain_check.csv")
    assert frame.groupby("method").size().to_dict() == dict.fromkeys(
        ("soft-attention", "soft-attention, as drawn", "grad-cam", "kernel-shap"), 6
    )
    assert (tmp_path / "explain_check.png").exists()
    assert "kernel-shap" in out
    assert main([*words, "--method", "kernel-shap", "--samples", "60"]) == 0
    with pytest.raises(SystemExit, match="--method lime: expected some of soft-attention"):
        main([*words, "--method", "lime"])
