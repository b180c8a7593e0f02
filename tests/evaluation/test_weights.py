"""importance.py against the equations of the papers, written out in plain loops, and against scipy."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from vae.evaluation import weights

FULL = np.log(np.array([[0.5, 0.25, 0.25]]))


def zhang_and_stephens(excesses):
    """The estimate of Zhang & Stephens (2009) of a generalised Pareto's shape and scale, one loop a sum.

    With 30 + √n grid points and not their 20 + √n, as Vehtari et al. (2024) use it. Their shape is minus today's.
    """
    x = sorted(excesses)
    n = len(x)
    m = 30 + math.floor(math.sqrt(n))
    first_quartile = x[math.floor(n / 4 + 0.5) - 1]

    def shape(theta):
        return -sum(math.log(1 - theta * one) for one in x) / n

    def log_likelihood(theta):
        return n * (math.log(theta / shape(theta)) + shape(theta) - 1)

    grid = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * first_quartile) for j in range(1, m + 1)]
    likelihoods = [log_likelihood(theta) for theta in grid]
    weights = [1 / sum(math.exp(min(other - own, 700)) for other in likelihoods) for own in likelihoods]
    theta = sum(weight * theta for weight, theta in zip(weights, grid, strict=True))
    return -shape(theta), shape(theta) / theta


def smoothed(weights):
    """k̂ of one row of weights and the log of the mean of the smoothed ones, by Vehtari et al. (2024), algorithm 1.

    Their prior: as if ten more had the shape ½.
    """
    x = sorted(weights)
    tail = math.ceil(min(0.2 * len(x), 3 * math.sqrt(len(x))))
    cutoff = x[-tail - 1]
    shape, scale = zhang_and_stephens([one - cutoff for one in x[-tail:]])
    k = (tail * shape + 10 * 0.5) / (tail + 10)
    quantiles = scipy.stats.genpareto(k, cutoff, scale).ppf([(m - 0.5) / tail for m in range(1, tail + 1)])
    return k, math.log((sum(x[:-tail]) + sum(min(one, x[-1]) for one in quantiles)) / len(x))


@pytest.mark.parametrize("num_samples", [21, 24, 36, 100, 1001])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_pareto_smoothing_equals_the_equations_of_the_papers_in_plain_loops(num_samples, spread):
    log_w = np.random.default_rng(num_samples).normal(0, spread, (3, num_samples))
    k, log_mean = np.transpose([smoothed([math.exp(value) for value in row]) for row in log_w.tolist()])
    for shift in (0, -1000):
        found = weights.pareto_smoothed(log_w + shift)
        np.testing.assert_allclose(found.pareto_k, k, rtol=1e-6)
        np.testing.assert_allclose(found.log_likelihood - shift, log_mean, rtol=1e-9, atol=1e-9)


def test_pareto_smoothing_is_that_of_arviz():
    """arviz-stats 0.8.0: array_stats.psislw(−log_w), of which a weight outside the tail gives the sum of all.

    These numbers of samples have a whole number of weights in the tail, which ArviZ rounds down.
    """
    expected = {
        100: ((0.4260268738632496, 1.73164560474651), (0.7119868468014963, 2.0680946318487585)),
        900: ((0.6296090964705987, 1.9339776432200084), (0.9317339518946075, 1.988926505525126)),
        2500: ((0.5263951405855437, 2.01797996929787), (0.5199202964766666, 1.8009680771463268)),
    }
    for num_samples, rows in expected.items():
        found = weights.pareto_smoothed(np.random.default_rng(num_samples).normal(0, 2, (2, num_samples)))
        np.testing.assert_allclose(np.transpose(found), rows, rtol=1e-10)


def test_smoothed_weights_estimate_the_mean_of_lognormal_ones():
    """log E exp(N(0, s²)) = s²/2; the mean over repetitions within four standard errors and a bias of 0.005."""
    log_w = np.random.default_rng(0).normal(0, 1, (400, 900))
    found = weights.pareto_smoothed(log_w).log_likelihood
    assert found.mean() == pytest.approx(0.5, abs=4 * found.std() / 20 + 0.005)
    assert (found != weights.log_mean_exp(log_w)).all()


def test_what_cannot_be_smoothed_is_the_plain_mean():
    """Equal weights, no weight, and fewer possible samples than the fit needs."""
    few = np.where(np.arange(1000) < 60, np.arange(1000) / 10.0, -np.inf)
    log_w = np.stack([np.full(1000, -3.0), np.full(1000, -np.inf), few])
    found = weights.pareto_smoothed(log_w).log_likelihood
    np.testing.assert_array_equal(found, weights.log_mean_exp(log_w))
    assert np.isnan(weights.pareto_smoothed(log_w[:, :20]).log_likelihood).all()


@pytest.mark.parametrize("shape", [0.2, 0.5, 1.0])
def test_pareto_k_recovers_the_shape_of_a_generalised_pareto_tail(shape):
    drawn = scipy.stats.genpareto(shape).rvs((200, 5000), random_state=0)
    estimates = weights.pareto_smoothed(np.log(drawn)).pareto_k
    assert estimates.mean() == pytest.approx(shape, abs=0.06)


def test_pareto_k_says_what_it_cannot_say():
    assert np.isnan(weights.pareto_smoothed(np.zeros((2, 20))).pareto_k).all()
    assert np.isneginf(weights.pareto_smoothed(np.zeros((2, 1000))).pareto_k).all()
    without_weight = np.stack([np.full(1000, -np.inf), np.full(1000, np.nan), np.zeros(1000)])
    np.testing.assert_array_equal(weights.pareto_smoothed(without_weight).pareto_k, [np.nan, np.nan, -np.inf])


def test_pareto_k_is_large_where_a_few_of_many_samples_are_possible():
    log_w = np.full((1, 1000), -np.inf)
    log_w[0, :3] = [0.0, -1.0, -2.0]
    assert weights.pareto_smoothed(log_w).pareto_k[0] > 0.7


def test_the_threshold_of_pareto_k_grows_with_the_sample_to_seven_tenths():
    """Vehtari et al. (2024): min(1 − 1/log₁₀ S, 0.7)."""
    assert [weights.pareto_k_threshold(k) for k in (1, 20)] == [None, None]
    assert weights.pareto_k_threshold(21) == pytest.approx(1 - 1 / 1.3222192947, abs=1e-9)
    assert weights.pareto_k_threshold(100) == pytest.approx(0.5)
    assert weights.pareto_k_threshold(1000) == pytest.approx(2 / 3)
    assert [weights.pareto_k_threshold(k) for k in (2200, 5000, 10**6)] == [0.7] * 3


def test_the_tail_is_rounded_up_and_exact_where_it_is_whole():
    """35/5 = 7 although 0.2 · 35 > 7 in floating point; 3 √1001 = 94.9."""
    sizes = {20: 4, 21: 5, 25: 5, 26: 6, 35: 7, 100: 20, 225: 45, 226: 46, 1001: 95, 5000: 213}
    assert {k: weights.tail_size(k) for k in sizes} == sizes


def test_effective_sample_size_is_the_square_of_the_sum_over_the_sum_of_squares():
    """1 / Σ w̃²: 8/3 for ½, ¼, ¼, where one over the largest would be 2."""
    assert weights.effective_sample_size(FULL) == pytest.approx(8 / 3)
    log_w = np.random.default_rng(0).normal(-1000, 3, (5, 50))
    normalized = scipy.special.softmax(log_w, axis=1)
    np.testing.assert_allclose(weights.effective_sample_size(log_w), 1 / (normalized**2).sum(1))


def test_effective_sample_size_is_k_for_equal_weights_and_1_for_a_single_one():
    log_w = np.stack([np.zeros(200), np.where(np.arange(200) == 7, 0.0, -1e4), np.full(200, -np.inf)])
    np.testing.assert_allclose(weights.effective_sample_size(log_w), [200, 1, np.nan])


def test_log_mean_exp_equals_scipys_at_every_size_of_weight():
    log_w = np.array([[0.0, -np.inf], [-np.inf, -np.inf], [1e4, 1e4 - 1], [-1e4, -1e4 - 1], [np.inf, 0.0]])
    expected = scipy.special.logsumexp(log_w, axis=1) - np.log(2)
    np.testing.assert_allclose(weights.log_mean_exp(log_w), expected, rtol=1e-14)
    assert np.isnan(weights.log_mean_exp(np.array([[0.0, np.nan]]))).all()
