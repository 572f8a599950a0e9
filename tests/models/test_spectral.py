import math

import numpy as np
import pytest
import scipy.fft
import torch

from skinlesion.models.spectral import SpectralLayer

SHAPE = (3, 4, 5)
X = np.random.default_rng(0).normal(size=(2, *SHAPE))
SCALE = math.sqrt(3 / 4) * math.sqrt(3 / 5)


def test_dct_is_scipys_and_dft_numpys():
    # scipy's DCT-II is twice the sum along each of both axes.
    found = SpectralLayer(SHAPE).double()(torch.tensor(X))
    expected = SCALE * scipy.fft.dctn(X, type=2, axes=(2, 3)) / 4
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5)
    layer = SpectralLayer(SHAPE, "dft").double()
    expected = SCALE * np.fft.fft2(X)
    parts = np.concatenate([expected.real, expected.imag], axis=1)
    np.testing.assert_allclose(layer.spectrum(torch.tensor(X)).detach(), parts, atol=1e-5)
    assert layer(torch.tensor(X)).shape == X.shape


@pytest.mark.parametrize("trained", [True, False])
def test_random_matrices_have_the_same_range_and_may_stay_as_they_are(trained):
    torch.manual_seed(0)
    layer = SpectralLayer((1, 48, 48), "dft", "random", trained)
    assert 0.97 * 0.25 < layer.rows.abs().max() <= 0.25  # √(3/48)
    assert [n for n, p in layer.named_parameters() if p.requires_grad] == (
        [*(["rows", "columns"] if trained else []), "back.weight", "back.bias"]
    )
