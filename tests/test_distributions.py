"""distributions.py against scipy and numpyro, and at the edges of its domain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from jax.test_util import check_grads

from vae.distributions import Bernoulli, Independent, Normal, bernoulli_log_prob, bounded, normal_kl_divergence

pytestmark = pytest.mark.usefixtures("float64")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_normal_log_prob_equals_scipy():
    x, loc, log_scale = random(5, seed=1), random(5, seed=2), random(5, seed=3)
    expected = scipy.stats.norm(loc, np.exp(log_scale)).logpdf(x)
    np.testing.assert_allclose(Normal(loc, log_scale).log_prob(x), expected, rtol=1e-12)


def test_fault_a_standard_deviation_is_taken_for_a_variance():
    samples = Normal(jnp.full(200_000, 1.0), jnp.log(jnp.asarray(3.0))).sample(jax.random.key(0))
    assert samples.std() == pytest.approx(3.0, rel=0.01)
    assert samples.mean() == pytest.approx(1.0, abs=0.03)


def test_bernoulli_log_prob_equals_numpyro_on_binary_and_grey_values():
    logits, x = random(100, seed=1) * 5, jnp.asarray(np.random.default_rng(0).uniform(size=100))
    np.testing.assert_allclose(
        Bernoulli(logits).log_prob(jnp.round(x)), dist.Bernoulli(logits=logits).log_prob(jnp.round(x)), rtol=1e-10
    )
    p = scipy.special.expit(logits)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), x * np.log(p) + (1 - x) * np.log1p(-p), rtol=1e-9)


def test_bernoulli_sums_to_one_over_all_images():
    pixels = Bernoulli(random(2, 3, 1) * 3)
    images = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=6))).reshape(-1, 2, 3, 1)
    repeated = Bernoulli(jnp.broadcast_to(pixels.logits, images.shape))
    assert jnp.exp(Independent(repeated).log_prob(images)).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("logit", [-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_fault_bernoulli_is_not_a_number_at_a_large_logit(logit, x):
    logit = jnp.asarray(logit, jnp.float32)
    value, gradient = jax.value_and_grad(bernoulli_log_prob)(logit, jnp.asarray(x, jnp.float32))
    expected = x * -np.logaddexp(0, -float(logit)) + (1 - x) * -np.logaddexp(0, float(logit))
    assert value == pytest.approx(expected, rel=1e-6)
    assert gradient == pytest.approx(x - scipy.special.expit(float(logit)), abs=1e-6)


def test_bernoulli_derivatives_equal_finite_differences_in_both_arguments():
    def log_prob(logits, x):
        return bernoulli_log_prob(jnp.asarray(logits), jnp.asarray(x))

    check_grads(log_prob, (random(4), jnp.asarray([0.0, 0.2, 0.9, 1.0])), order=2)


def test_fault_a_probability_is_softplus_of_the_logit():
    logits = jnp.asarray([-2.0, 0.0, 2.0])
    samples = Bernoulli(jnp.broadcast_to(logits, (100_000, 3))).sample(jax.random.key(0))
    np.testing.assert_allclose(samples.mean(0), scipy.special.expit(logits), atol=0.01)
    np.testing.assert_allclose(Bernoulli(logits).mean, scipy.special.expit(logits), rtol=1e-12)


def test_normal_kl_equals_numpyro():
    q, p = Normal(random(6, seed=1), random(6, seed=2)), Normal(random(6, seed=3), random(6, seed=4))
    expected = dist.kl_divergence(dist.Normal(q.loc, jnp.exp(q.log_scale)), dist.Normal(p.loc, jnp.exp(p.log_scale)))
    np.testing.assert_allclose(normal_kl_divergence(q, p), expected, rtol=1e-10)


def test_fault_kl_added_with_the_wrong_sign():
    q, p = Normal(random(50, seed=1), random(50, seed=2)), Normal(jnp.zeros(50), jnp.zeros(50))
    assert (normal_kl_divergence(q, p) > 0).all()
    assert (normal_kl_divergence(p, p) == 0).all()


def test_independent_sums_over_height_width_and_channels_and_nothing_else():
    pixels = Normal(random(7, 4, 2, 3, 2), random(7, 4, 2, 3, 2, seed=1))
    x = random(7, 4, 2, 3, 2, seed=2)
    np.testing.assert_allclose(Independent(pixels).log_prob(x), pixels.log_prob(x).sum((-3, -2, -1)), rtol=1e-12)
    shared_scale = Normal(pixels.loc, jnp.asarray(0.3))
    expected = scipy.stats.norm(pixels.loc, np.exp(0.3)).logpdf(x).sum((-3, -2, -1))
    np.testing.assert_allclose(Independent(shared_scale).log_prob(x), expected, rtol=1e-12)


def test_bounded_is_the_identity_near_zero_and_never_leaves_its_bound():
    np.testing.assert_allclose(bounded(jnp.asarray([-0.1, 0.0, 0.1])), [-0.1, 0.0, 0.1], rtol=1e-4)
    np.testing.assert_allclose(bounded(jnp.asarray([-1e6, 1e6])), [-10, 10])
    assert jax.grad(bounded)(jnp.asarray(30.0)) > 0
