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
TOLERATED = 0.05  # of the answers may be wrong
# Softmax is computed in float32, where what is smaller may be 0: no computed probability is moved.
SMALLEST = float(np.finfo(np.float32).tiny)


def fit_temperature(y: Ints, probabilities: Floats) -> float:
    """Return the temperature in [0.05, 20] with the least negative log likelihood.

    The likelihood has one peak in 1/T (it is concave there), so that a bounded search finds it. If
    there is none inside, as when every image is classified correctly, it ends at a bound.

    Args:
        y: (n,) true classes, as indices in [0, C).
        probabilities: (n, C), each row sums to 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = np.log(np.maximum(probabilities, SMALLEST))

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        of_truth = scaled[np.arange(len(y)), y]  # (n,)
        return float(np.mean(logsumexp(scaled, axis=1) - of_truth))

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
    return softmax(np.log(np.maximum(probabilities, SMALLEST)) / temperature)


def softmax(logits: Floats) -> Floats:
    """Return exp(logits) of each row, divided by their sum, (..., C) to (..., C)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_sure(y: Ints, probabilities: Floats) -> float:
    """Return the least largest probability from which on at most 5 % of the answers are wrong.

    1 where there is none.

    Args:
        y: (n,) true classes, as indices in [0, C).
        probabilities: (n, C), calibrated.
    """
    surest = probabilities.max(axis=1)
    order = np.argsort(-surest, kind="stable")
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != y[order])
    ends = np.append(np.diff(surest[order]) != 0, True)  # equal ones are answered alike
    tolerated = ends & (wrong <= TOLERATED * np.arange(1, len(y) + 1))
    return float(surest[order][tolerated][-1]) if tolerated.any() else 1.0
