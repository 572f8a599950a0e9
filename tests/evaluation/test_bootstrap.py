"""The bootstrap over lesions: its draws, and its metrics against evaluate() on repeated rows."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation import bootstrap
from skinlesion.evaluation.metrics import AVERAGED, OVERALL, Sample
from skinlesion.runs.predictions import Predictions
from tests.evaluation.draws import lesion_weights

CLASSES = ("akiec", "mel", "nv")
ADDRESSES = [
    *OVERALL,
    *(f"{over}.{name}" for over in ("macro", "weighted", "sd") for name in AVERAGED),
    *(f"per_class.{label}.{name}" for label in CLASSES for name in ("support", *AVERAGED)),
]


def part_of(lesions, labels, probabilities, classes=CLASSES):
    """A part with these lesions, class indices and probabilities, a row per image."""
    frame = pd.DataFrame(
        {
            "image_id": [f"image{i:03d}" for i in range(len(lesions))],
            "lesion_id": [str(lesion) for lesion in lesions],
            "split": "test",
            "label": np.array(classes)[labels],
        }
    )
    columns = pd.DataFrame(np.asarray(probabilities, dtype=float), columns=list(classes))
    return Predictions(pd.concat([frame, columns], axis=1), classes)


def random_part(seed, lesions=9, images=20):
    """Probabilities of one digit, so that many tie; images of a lesion may differ in label."""
    random = np.random.default_rng(seed)
    tenths = random.multinomial(10, [1 / 3] * 3, size=images)
    return part_of(
        random.integers(lesions, size=images), random.integers(3, size=images), tenths / 10
    )


def values_on(part, rows):
    """Every metric of these rows, which may repeat."""
    sample = Sample(part.y[rows], part.probabilities[rows], part.classes)
    return [sample.value(address)[0] for address in ADDRESSES]


def stacked(samples):
    return np.column_stack([samples[address] for address in ADDRESSES])


def test_all_images_of_a_lesion_are_drawn_together():
    weights = lesion_weights(["b", "a", "b", "c", "a"], draws=200, seed=0)
    assert weights.shape == (200, 5)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert set(weights[:, [0, 1, 3]].sum(axis=1)) == {3}  # as many lesions as there are


def test_every_lesion_is_drawn_as_often_as_any_other():
    weights = lesion_weights(range(10), draws=4000, seed=0)
    # A multiplicity is Binomial(10, 1/10): mean 1, variance 9/10; its mean over 4000 draws has a
    # standard error of sqrt(.9 / 4000) = .015
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(weights.var(axis=0), 0.9, atol=0.1)
    # Two multiplicities have covariance -1/10
    assert np.cov(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-0.1, abs=0.05)


def test_draws_follow_from_the_lesions_and_the_seed_alone():
    lesions = np.array(["b", "a", "c", "b", "d"])
    weights = lesion_weights(lesions, draws=50, seed=3)
    order = [4, 2, 3, 0, 1]
    again = lesion_weights(lesions[order], draws=50, seed=3)
    np.testing.assert_array_equal(again, weights[:, order])
    assert (weights != lesion_weights(lesions, draws=50, seed=4)).any()


def test_many_lesions_and_draws_come_in_blocks(monkeypatch):
    monkeypatch.setattr(bootstrap, "BLOCK", 35)
    bootstrap.multiplicities.cache_clear()
    weights = lesion_weights(range(10), draws=8, seed=0)  # blocks of 3, 3 and 2
    assert weights.sum(axis=1).tolist() == [10] * 8
    assert len(np.unique(weights, axis=0)) == 8


@pytest.mark.parametrize("seed", range(6))
def test_metrics_of_a_draw_are_those_of_its_rows_repeated(seed):
    part = random_part(seed)
    weights = lesion_weights(part.frame["lesion_id"], draws=40, seed=seed)
    expected = [values_on(part, np.repeat(np.arange(20), times)) for times in weights]
    samples = bootstrap.mean_over_runs([part], ADDRESSES, draws=40, seed=seed)
    np.testing.assert_allclose(stacked(samples), expected, rtol=0, atol=1e-12)


def test_a_class_absent_from_a_draw_is_not_measured_and_not_averaged():
    # Lesion p is akiec and right, q mel and half right, r nv and wrong.
    part = part_of(
        "pqqr", [0, 1, 1, 2], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.3, 0.5, 0.2]]
    )
    weights = lesion_weights(part.frame["lesion_id"], draws=300, seed=0)
    metrics = ["macro.recall", "sd.recall", "per_class.nv.recall", "per_class.mel.auc"]
    samples = bootstrap.mean_over_runs([part], metrics, draws=300, seed=0)
    without_r = (weights[:, [0, 1, 3]] == [2, 1, 0]).all(axis=1)
    assert without_r.any()
    assert np.isnan(samples["per_class.nv.recall"][without_r]).all()
    assert samples["macro.recall"][without_r] == pytest.approx((1 + 1 / 2) / 2)
    assert samples["sd.recall"][without_r] == pytest.approx(1 / 4)
    # .8 and .2 against .1 and .1
    assert samples["per_class.mel.auc"][without_r] == pytest.approx(1)
    all_q = (weights[:, [0, 1, 3]] == [0, 3, 0]).all(axis=1)
    assert all_q.any()
    assert samples["macro.recall"][all_q] == pytest.approx(1 / 2)
    assert np.isnan(samples["per_class.mel.auc"][all_q]).all()


def test_the_order_of_rows_does_not_matter():
    part = random_part(1)
    shuffled = Predictions(part.frame.sample(frac=1, random_state=0), part.classes)
    one, other = (bootstrap.mean_over_runs([p], ADDRESSES, draws=20) for p in (part, shuffled))
    np.testing.assert_array_equal(stacked(one), stacked(other))


@pytest.mark.parametrize(
    "address",
    [
        *("", "f1", "accuracy.f1", "macro", "macro.kappa", "confusion", "per_class"),
        *("per_class.mel", "per_class.bcc.f1", "per_class.nv.auc.x", "per_class.nv.f1.auc"),
    ],
)
def test_an_unknown_address_is_named(address):
    part = random_part(0)
    message = f"no metric '{address}'; expected n, accuracy, .* the classes are akiec, mel, nv"
    with pytest.raises(SkinlesionError, match=message):
        bootstrap.mean_over_runs([part], [address], draws=2)


def test_interval_takes_percentiles_of_what_was_measured():
    samples = np.append(np.arange(101.0), [np.nan, np.nan])
    assert bootstrap.interval(samples) == pytest.approx((2.5, 97.5))
    assert np.isnan(bootstrap.interval(np.array([np.nan]))).all()


def test_runs_share_the_draws_of_the_lesions_they_share():
    first, second = random_part(0, lesions=6), random_part(1, lesions=9)
    union = sorted({*first.frame["lesion_id"], *second.frame["lesion_id"]})
    weights = lesion_weights(union, draws=30, seed=5)
    expected = np.zeros((30, len(ADDRESSES)))
    for part in (first, second):
        times = weights[:, [union.index(lesion) for lesion in part.frame["lesion_id"]]]
        rows = [np.repeat(np.arange(20), draw) for draw in times]
        expected += np.array([values_on(part, draw) for draw in rows]) / 2
    samples = bootstrap.mean_over_runs([first, second], ADDRESSES, draws=30, seed=5)
    np.testing.assert_allclose(stacked(samples), expected, rtol=0, atol=1e-12)


def test_a_draw_without_any_lesion_of_a_run_has_no_mean():
    one = part_of(["a"], [0], [[1, 0, 0]])
    other = part_of(["b"], [0], [[1, 0, 0]])
    samples = bootstrap.mean_over_runs([one, other], ["accuracy", "ece", "macro.f1"], draws=200)
    weights = lesion_weights(["a", "b"], draws=200, seed=0)
    for values in samples.values():
        np.testing.assert_array_equal(np.isnan(values), (weights == 0).any(axis=1))


def test_lesions_and_not_images_make_an_accuracy_sure():
    # 100 lesions of 4 images, all four right or all four wrong: n images say as much as n/4. The
    # standard error is sqrt(p (1 - p) / 100), by image it would seem half of that.
    random = np.random.default_rng(0)
    right = np.repeat(random.random(100) < 0.8, 4)
    by_lesion = part_of(np.repeat(range(100), 4), np.where(right, 0, 1), np.eye(3)[[0] * 400])
    by_image = Predictions(by_lesion.frame.assign(lesion_id=range(400)), CLASSES)
    p = right.mean()
    samples = bootstrap.mean_over_runs([by_lesion], ["accuracy"])["accuracy"]
    assert samples.std() == pytest.approx(np.sqrt(p * (1 - p) / 100), rel=0.08)
    low, high = bootstrap.interval(samples)
    naive_low, naive_high = bootstrap.interval(
        bootstrap.mean_over_runs([by_image], ["accuracy"])["accuracy"]
    )
    assert (high - low) / (naive_high - naive_low) == pytest.approx(2, abs=0.2)


def test_a_95_percent_interval_covers_the_truth_about_95_times_of_100():
    # As above, with 60 lesions of 1 to 4 images: 200 such samples of a classifier that is right on
    # 70 % of lesions. Binomial(200, .95) lies in [181, 198] with a probability of 0.997.
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        lesion = np.repeat(range(60), random.integers(1, 5, size=60))
        right = (random.random(60) < 0.7)[lesion]
        part = part_of(lesion, np.where(right, 0, 1), np.eye(3)[[0] * len(lesion)])
        samples = bootstrap.mean_over_runs([part], ["accuracy"], draws=300, seed=seed)
        low, high = bootstrap.interval(samples["accuracy"])
        covered += low <= 0.7 <= high
    assert 181 <= covered <= 198


def test_an_interval_over_seeds_holds_what_differs_between_them():
    random = np.random.default_rng(0)
    missed = {"seeds": 0, "lesions": 0}
    for seed in range(300):  # training noise as large as that of the lesions
        training, lesions = random.normal(0, 1, (2, 3, 1))
        differences = training + lesions + random.normal(0, 1, (3, 300))
        over_seeds = bootstrap.over_seeds(differences, seed)
        for name, draws in (("seeds", over_seeds), ("lesions", differences.mean(axis=0))):
            low, high = bootstrap.interval(draws)
            missed[name] += not low <= 0 <= high
    assert missed["seeds"] <= 15 < missed["lesions"]  # at most 5 %


def test_one_seed_says_nothing_of_others():
    differences = np.linspace(-1, 1, 50)[None]
    np.testing.assert_allclose(bootstrap.over_seeds(differences), differences[0])
