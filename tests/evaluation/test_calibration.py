"""Temperature scaling, on labels drawn from known probabilities."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_sure, fit_temperature, scale
from skinlesion.evaluation.scaling import better_on, fit_vector, show_calibration
from skinlesion.runs.predictions import Predictions


def drawn(seed=0, n=20_000, classes=4, spread=2.0):
    """Logits, and a label for each drawn from their softmax: calibrated by construction."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, spread, size=(n, classes))
    probabilities = softmax(logits)
    # The largest of logits plus Gumbel noise is a draw from their softmax.
    return (logits + random.gumbel(size=logits.shape)).argmax(axis=1), probabilities, logits


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature):
    y, _, logits = drawn()
    # The network divides too little by T: what it says is softmax(T x true logits).
    assert fit_temperature(y, softmax(temperature * logits)) == pytest.approx(temperature, rel=0.03)


def test_scaling_is_a_softmax_of_divided_logits():
    _, probabilities, logits = drawn(n=50)
    np.testing.assert_allclose(scale(probabilities, 3.0), softmax(logits / 3), atol=1e-12)
    np.testing.assert_allclose(scale(probabilities, 1.0), probabilities, atol=1e-15)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
def test_scaling_keeps_the_sum_and_the_predicted_class(temperature):
    probabilities = np.array([[1, 0, 0], [0.2, 0.5, 0.3], [1e-40, 1e-30, 1], [0.3, 0.4, 0.3]])
    scaled = scale(probabilities, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-12)
    assert scaled.argmax(axis=1).tolist() == [0, 1, 2, 1]
    assert np.isfinite(scaled).all()


def test_two_classes_by_hand():
    # 3 of 4 are right at a probability of 0.9, so that each should have 0.75: the logit is
    # log 9 = 2 log 3 and should be log 3.
    y = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1]] * 4)
    assert fit_temperature(y, probabilities) == pytest.approx(2, rel=1e-4)
    np.testing.assert_allclose(scale(probabilities, 2.0), [[0.75, 0.25]] * 4, atol=1e-12)


def test_without_a_best_temperature_it_ends_at_a_bound():
    right, wrong = np.array([0, 1]), np.array([1, 0])
    probabilities = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert fit_temperature(right, probabilities) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(wrong, probabilities) == pytest.approx(20, rel=0.01)


def test_a_truth_of_probability_0_is_no_obstacle():
    y = np.array([0, 1, 1, 0])
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.9, 0.1]])
    assert 1 < fit_temperature(y, probabilities) <= 20


def test_a_temperature_that_is_none_is_refused():
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SkinlesionError, match="expected a finite number above 0"):
            scale(np.eye(3), temperature)


def test_sure_is_what_at_most_one_answer_in_twenty_is_wrong_with():
    surest = np.linspace(0.99, 0.6, 40)
    probabilities = np.stack([surest, 1 - surest], axis=1)
    y = np.zeros(40, int)
    assert fit_sure(y, probabilities) == pytest.approx(0.6)
    y[[30, 31, 32]] = 1  # 3 of 33 are too many, 2 of 40 were not
    assert fit_sure(y, probabilities) == pytest.approx(surest[30])
    assert fit_sure(1 - np.zeros(40, int), probabilities) == 1
    probabilities[:] = [0.7, 0.3]  # all alike: answered together or not at all
    assert fit_sure(y, probabilities) == 1


def frame(split, y, probabilities):
    ids = [f"{split}{i}" for i in range(len(y))]
    names = {"image_id": ids, "lesion_id": ids, "split": split, "label": np.array([*"abcd"])[y]}
    return pd.DataFrame(names).join(pd.DataFrame(probabilities, columns=[*"abcd"]))


def test_vector_scaling_takes_back_what_a_temperature_cannot():
    y, _, logits = drawn(n=4_000)
    tilted = softmax(2 * logits + [0, 0, 2, 0])
    factor, offset = fit_vector(y, tilted)
    assert factor == pytest.approx([0.5] * 4, abs=0.05)
    assert offset - offset[0] == pytest.approx([0, 0, -1, 0], abs=0.15)
    both = Predictions(
        pd.concat([frame("val", y, tilted), frame("test", y, tilted)], ignore_index=True),
        tuple("abcd"),
    )
    text = show_calibration([(both, both)])
    assert "better there, in 5 folds by lesion: temperature 0 of 1, vector 1 of 1" in text
    nll = {line.split()[0]: float(line.split()[-3]) for line in text.splitlines()[4:7]}
    assert nll["vector"] < nll["temperature"] - 0.05
    val = both.part("val")
    straight = Predictions(frame("val", y, softmax(logits)), tuple("abcd"))
    assert (better_on(val), better_on(straight)) == ("vector", "temperature")
    assert "not measured" in show_calibration([(val, val)])
