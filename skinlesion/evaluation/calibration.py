"""Temperature scaling: one number that makes probabilities as sure as they are right.

Guo et al. 2017, arXiv:1706.04599, section 4.2: logits are divided by a temperature T, fitted on
held-out images. Probabilities give back the logits up to a constant of each row, which the softmax
drops again, so that a predictions file is enough: softmax(logits / T) = softmax(log p / T). T above
1 takes from the confidence of a network, T below 1 adds to it; the predicted class, and so
accuracy, stay as they are.
"""

import numpy as np
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0
# Softmax is computed in float32, where what is smaller may be 0: no computed probability is moved.
SMALLEST = float(np.finfo(np.float32).tiny)


def fit_temperature(y: Ints, probabilities: Floats) -> float:
    """Return the temperature in [0.05, 20] with the least negative log likelihood.

    The likelihood has one peak in 1/T (it is concave there), so that a bounded search finds it. If
    there is none inside, as when every image is told rightly, it ends at a bound.

    Args:
        y: (n,) true classes, as indices in [0, C).
        probabilities: (n, C), each row sums to 1.

    Raises:
        SkinlesionError: if there is no image, shapes do not fit or a label is no class.
    """
    from scipy.optimize import minimize_scalar

    if probabilities.ndim != 2 or probabilities.shape[0] != len(y) or len(y) == 0:
        raise SkinlesionError(
            f"labels {y.shape} and probabilities {probabilities.shape} cannot give a temperature; "
            "expected (n,) and (n, C), n at least 1: fit it on the predictions of a held-out part"
        )
    n_classes = probabilities.shape[1]
    if y.min() < 0 or y.max() >= n_classes:
        raise SkinlesionError(
            f"labels run from {y.min()} to {y.max()}; expected class indices below {n_classes}"
        )
    logits = _logits(probabilities)
    of_truth = np.take_along_axis(logits, y[:, None], axis=1)[:, 0]  # (n,)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(_log_sum(logits * inverse) - of_truth * inverse))

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Return softmax(log p / T) of each row, (..., C) to (..., C).

    Args:
        probabilities: (..., C), each row sums to 1.
        temperature: T, above 0; 1 changes nothing.

    Raises:
        SkinlesionError: if the temperature is not a finite number above 0.
    """
    if not 0 < temperature < np.inf:
        raise SkinlesionError(f"temperature={temperature}; expected a finite number above 0")
    powers = np.exp(_logits(probabilities) / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def _logits(probabilities: Floats) -> Floats:
    """Return log p, moved so that the largest of each row is 0."""
    logits = np.log(np.maximum(probabilities, SMALLEST))
    return logits - logits.max(axis=-1, keepdims=True)


def _log_sum(logits: Floats) -> Floats:
    """Return log sum exp of each row (n, C), whose largest is 0."""
    return np.log(np.exp(logits).sum(axis=1))
