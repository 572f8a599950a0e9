"""Keras' Adam against a few lines of numpy, and apart from PyTorch's where epsilon is large."""

import copy

import numpy as np
import pytest
import torch

from skinlesion.training.optimizer import KerasAdam

LR, BETAS, STEPS = 1e-3, (0.9, 0.999), 1500
START = np.array([1.0, -2.0, 0.5])
CURVATURE = np.array([0.02, 1.0, 10.0])


def gradient(w):
    """Of a bowl, steep in one direction and flat in another."""
    return CURVATURE * w


def curve_of_numpy(eps):
    """As the update stands in Keras' optimizers/adam.py."""
    w, m, v = START.copy(), np.zeros(3), np.zeros(3)
    curve = []
    for t in range(1, STEPS + 1):
        g = gradient(w)
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        w -= LR * np.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t) * m / (np.sqrt(v) + eps)
        curve.append(w.copy())
    return np.array(curve)


def curve_of(optimizer, w, steps=STEPS):
    curve = []
    for _ in range(steps):
        w.grad = torch.tensor(gradient(w.detach().numpy()))
        optimizer.step()
        curve.append(w.detach().numpy().copy())
    return np.array(curve)


def curve_of_torch(kind, eps, **options):
    w = torch.nn.Parameter(torch.tensor(START))
    return curve_of(kind([w], lr=LR, betas=BETAS, eps=eps, **options), w)


@pytest.mark.parametrize("eps", [0.1, 1e-7])
@pytest.mark.parametrize("foreach", [False, True])
def test_the_curve_is_keras(eps, foreach):
    ours = curve_of_torch(KerasAdam, eps, foreach=foreach)
    np.testing.assert_allclose(ours, curve_of_numpy(eps), rtol=0, atol=1e-9)


def test_at_the_papers_epsilon_pytorchs_curve_is_another():
    keras, pytorch = curve_of_numpy(0.1), curve_of_torch(torch.optim.Adam, 0.1)
    gone_keras, gone_pytorch = (np.abs(curve - START) for curve in (keras, pytorch))
    # The first step: epsilon counts as 0.1 / sqrt(0.001), 3.16, instead of 0.1.
    expected = (CURVATURE * np.abs(START) + 0.1) / (CURVATURE * np.abs(START) + 0.1 / 0.001**0.5)
    np.testing.assert_allclose(gone_keras[0] / gone_pytorch[0], expected, rtol=1e-3)
    # After a hundred steps Keras has gone a third of the way where gradients are small, …
    assert 0.2 < gone_keras[99, 0] / gone_pytorch[99, 0] < 0.5
    # … and is still behind after 1,500.
    assert gone_keras[-1, 0] / gone_pytorch[-1, 0] < 0.8


def test_at_kerass_own_epsilon_the_two_are_alike():
    keras, pytorch = curve_of_numpy(1e-7), curve_of_torch(torch.optim.Adam, 1e-7)
    np.testing.assert_allclose(keras, pytorch, atol=1e-4)


def test_a_resumed_optimizer_goes_on_where_it_was():
    w = torch.nn.Parameter(torch.tensor(START))
    optimizer = KerasAdam([w], lr=LR, eps=0.1)
    curve_of(optimizer, w, steps=5)
    other = torch.nn.Parameter(w.detach().clone())
    resumed = KerasAdam([other], lr=LR, eps=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert (curve_of(optimizer, w, steps=5) == curve_of(resumed, other, steps=5)).all()
