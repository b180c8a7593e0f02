"""evaluation.py against closed forms (science of the linear-Gaussian model), scipy, and itself in other chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.oracles.linear_gaussian import LinearGaussian
from vae import evaluation
from vae import model as models
from vae.settings import Settings

KEY_SEED = 0


def evaluate(model, images, num_samples, params=None, **options):
    return evaluation.evaluate(
        jax.random.key(KEY_SEED), {} if params is None else params, images, model=model, num_samples=num_samples, **options
    )


@pytest.fixture(scope="module")
def mlp():
    """A small Bernoulli model and 23 binary images, too few to fill the last batch."""
    settings = Settings((4, 5, 1), hidden_sizes=(16,), latent_dim=3)
    model = models.build(settings)
    images = np.random.default_rng(0).integers(0, 2, (23, 4, 5, 1)).astype(np.uint8) * 255
    params = model.init(jax.random.key(1), models.Batch(jnp.full((1, 4, 5, 1), 0.4)))
    return model, params, images


@pytest.mark.usefixtures("float64")
def test_exact_posterior_gives_the_exact_log_likelihood_from_one_sample():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=50)
    result = evaluate(oracle.model("exact"), x, num_samples=1)
    np.testing.assert_allclose(result.log_likelihood[1], oracle.log_p(x), atol=1e-10)
    np.testing.assert_allclose(result.elbo, oracle.log_p(x), atol=1e-10)


def test_exact_posterior_in_float32_is_right_to_1e_4():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=50).astype(np.float32)
    result = evaluate(oracle.model("exact"), x, num_samples=1)
    np.testing.assert_allclose(result.log_likelihood[1], oracle.log_p(x.astype(float)), atol=1e-4)


def test_diagonal_posterior_converges_to_the_log_likelihood_at_5000_samples_and_its_elbo_misses_by_the_known_gap():
    oracle = LinearGaussian.random(seed=2)
    x = oracle.sample(seed=3, num_examples=200).astype(np.float32)
    result = evaluate(oracle.model("diagonal"), x, num_samples=5000)
    error = result.log_likelihood[5000] - oracle.log_p(x.astype(float))
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(x)) + 1e-3
    assert np.abs(error).max() < 0.2
    gap = oracle.log_p(x.astype(float)) - result.elbo
    assert gap.mean() == pytest.approx(oracle.diagonal_gap, abs=4 * gap.std() / np.sqrt(len(x)))
    assert oracle.diagonal_gap > 0.1
