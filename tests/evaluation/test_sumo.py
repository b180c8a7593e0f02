"""sumo.py: unbiased by summation over K, and on a model whose log p(x) is known; the same bits in any batch."""

import math
from functools import cache

import jax
import numpy as np
import pytest

from experiments.command import evaluation_table
from tests.oracles.linear_gaussian import LinearGaussian
from vae.evaluation import diagnostics, sumo
from vae.evaluation.diagnostics import Images
from vae.evaluation.weights import log_mean_exp
from vae.settings import Settings

ORACLE = LinearGaussian.random(seed=2, sigma=1.5)
IMAGES = ORACLE.sample(seed=3, num_examples=40).astype(np.float32)


@cache
def estimated(seed=0):
    """A diagonal q misses the posterior: the ELBO is a third of a nat too low."""
    assert ORACLE.diagonal_gap > 0.33
    return sumo.estimate(jax.random.key(seed), {}, IMAGES, model=model())


@cache
def model():
    return ORACLE.model("diagonal")


def tail(k):
    """P(K ≥ k) in Luo et al. (2020)."""
    return 1 / k if k < 80 else 0.9 ** (k - 80) / 80


def test_the_number_of_terms_has_the_distribution_of_the_paper():
    k = np.arange(1, 400)
    expected = np.array([tail(one) for one in k])
    np.testing.assert_allclose(sumo.survival(k), expected, rtol=1e-12)
    # K ≥ k exactly if u ≤ P(K ≥ k).
    np.testing.assert_array_equal(sumo.quantile(expected * (1 - 1e-9)), k)
    np.testing.assert_array_equal(sumo.quantile(expected[1:] * (1 + 1e-9)), k[:-1])
    assert sumo.quantile(np.array([1.0, 2.0**-64])).tolist() == [1, 80 + math.floor(math.log(80 * 2**-64, 0.9))]
    assert expected.sum() == pytest.approx(5.08, abs=0.01)  # the mean of K


def test_the_mean_over_the_number_of_terms_is_the_bound_of_all_samples():
    """Σ_K P(K) SUMO_K = L_S of any S given weights, if the last K stands for all that are larger."""
    log_w = np.random.default_rng(0).normal(-100, 3, 120)
    terms = np.arange(1, len(log_w))
    share = np.array([tail(k) - (tail(k + 1) if k < len(log_w) - 1 else 0) for k in terms])
    assert share.sum() == pytest.approx(1)
    values = sumo.sumo(np.tile(log_w, (len(terms), 1)), terms)
    assert values @ share == pytest.approx(log_mean_exp(log_w[None])[0], abs=1e-9)
    assert values.std() > 1


def test_an_estimate_is_the_series_of_the_paper_in_plain_loops():
    """Each takes the samples after those of the one before."""
    log_w, terms = np.random.default_rng(1).normal(0, 2, 20), [3, 1, 7]
    expected, rest = [], log_w.tolist()
    for K in terms:
        own, rest = rest[: K + 1], rest[K + 1 :]
        bound = [math.log(sum(map(math.exp, own[:k])) / k) for k in range(1, K + 2)]
        expected.append(bound[0] + sum((bound[k] - bound[k - 1]) / tail(k) for k in range(1, K + 1)))
    np.testing.assert_allclose(sumo.of_weights(log_w, np.array(terms)), expected, rtol=1e-10)


def test_it_is_unbiased_on_a_model_whose_log_likelihood_is_known():
    """A t-test over 4,000 estimates, whose standard error is a sixth of what the ELBO lacks."""
    found = estimated()
    error = found.estimates - ORACLE.log_p(IMAGES.astype(float))[:, None]
    assert error.size == 4000
    assert abs(error.mean()) < 3 * error.std() / math.sqrt(error.size)
    assert error.std() / math.sqrt(error.size) < ORACLE.diagonal_gap / 5
    assert found.num_samples.mean() == pytest.approx(6.08, abs=0.7)


def test_estimates_depend_on_the_example_and_on_nothing_else_that_is_estimated():
    whole, rows = estimated(), np.random.default_rng(0).permutation(len(IMAGES))
    other = sumo.estimate(jax.random.key(0), {}, IMAGES[rows], index=rows, model=model())
    jax.tree.map(np.testing.assert_array_equal, other, jax.tree.map(lambda a: a[rows], whole))
    elsewhere = sumo.estimate(jax.random.key(0), {}, IMAGES, index=np.arange(40) + 1, model=model())
    assert (elsewhere.estimates != whole.estimates).all()


def test_the_summary_has_the_variance_of_one_estimate_and_the_error_of_their_mean():
    rng = np.random.default_rng(0)
    centre, noise = rng.normal(-90, 5, (200, 1)), rng.normal(0, 2, (200, 50))
    found = sumo.Sumo(centre + noise, np.full((200, 50), 6))
    summary = sumo.summarize(found, centre[:, 0] - 0.5)
    assert summary["variance"] == pytest.approx(4, rel=0.05)
    assert summary["repetitions_se"] == pytest.approx(2 / 100, rel=0.05)
    assert summary["difference"] == pytest.approx(0.5, abs=4 * 0.02)
    assert summary["log_likelihood_se"] == pytest.approx(5 / math.sqrt(200), rel=0.2)
    assert (summary["num_examples"], summary["num_repetitions"], summary["most_samples"]) == (200, 50, 6)


def test_what_is_printed_says_that_a_value_is_no_bound():
    """As --also=sumo computes it."""
    found = estimated()
    images = Images(IMAGES, None, np.arange(40), ORACLE.log_p(IMAGES.astype(float)))
    computed = diagnostics.compute(
        jax.random.key(0), ["sumo"], {}, images, model=model(), settings=Settings((6, 1, 1)), num_examples=40,
        num_temperatures=1, num_chains=1, devices=jax.devices()[:1], training=None,
        progress=lambda name: lambda share: None,
    )  # fmt: skip
    assert computed == {"sumo": sumo.summarize(found, images.log_likelihood)}
    rows = {name.strip(): (value, note) for name, value, _, note in evaluation_table.diagnostic_rows(computed)}
    assert rows["log-likelihood, SUMO"][0] == pytest.approx(found.estimates.mean())
    assert rows["variance"][0] == pytest.approx(found.estimates.var(1, ddof=1).mean())
    assert "no bound" in rows["SUMO minus that"][1]


def test_an_image_that_some_sample_makes_impossible_has_no_estimate():
    log_w = np.array([[-np.inf, 0.0, 0.0], [0.0, -np.inf, 0.0]])
    found = sumo.sumo(log_w, np.array([2, 2]))
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(-math.log(2) + 2 * (math.log(2 / 3) - math.log(1 / 2)))
