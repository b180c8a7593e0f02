"""objectives.py against closed forms and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.linear_gaussian import LinearGaussian
from vae import model as models
from vae.objectives import BOUNDS, OBJECTIVES, elbo, from_log_weights
from vae.settings import Hyperparameters, Settings

NO_NUMBERS = Hyperparameters()


def apply(objective, model, x, params=None, seed=0):
    params = {} if params is None else params
    call = jax.jit(lambda key, params, x: objective.apply(key, params, model, models.Batch(x), NO_NUMBERS, 0))
    return call(jax.random.key(seed), params, jnp.asarray(x))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", list(BOUNDS))
def test_with_the_exact_posterior_every_bound_is_log_p_from_one_sample(name):
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=20)
    _, bound, _ = apply(from_log_weights(BOUNDS[name], 1), oracle.model("exact"), x)
    np.testing.assert_allclose(bound, oracle.log_p(x), atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_expected_elbo_is_log_p_minus_the_kl_to_the_exact_posterior(name):
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=4)
    settings = Settings((6, 1, 1), objective=name, num_samples=20_000)
    _, bound, _ = apply(OBJECTIVES[name](settings), oracle.model("diagonal"), x)
    np.testing.assert_allclose(bound, oracle.log_p(x) - oracle.diagonal_gap, atol=0.08)


def test_analytic_and_sampled_elbo_differ_only_by_the_noise_of_the_kl():
    settings = Settings((3, 3, 1), hidden_sizes=(8,), latent_dim=4)
    model = models.build(settings)
    batch = models.Batch(jax.random.uniform(jax.random.key(0), (5, 3, 3, 1)))
    params = jax.jit(model.init)(jax.random.key(1), batch)
    _, analytic, a = apply(elbo(5000), model, batch.x, params)
    _, sampled, s = apply(from_log_weights(BOUNDS["elbo_mc"], 5000), model, batch.x, params)
    # The same key draws the same z, so the reconstructions agree exactly.
    np.testing.assert_allclose(a["reconstruction"], s["reconstruction"], rtol=1e-5)
    np.testing.assert_allclose(analytic, sampled, atol=0.05)
    np.testing.assert_allclose(analytic, a["reconstruction"] - a["kl"], rtol=1e-5)
    np.testing.assert_allclose(sampled, s["reconstruction"] - s["kl"], rtol=1e-5)


def test_elbo_mc_is_numpys_mean_of_the_log_weights():
    log_w = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_allclose(BOUNDS["elbo_mc"](jnp.asarray(log_w)), log_w.mean(0), rtol=1e-6)


def test_fault_pixels_are_averaged_and_latent_dimensions_left_unreduced():
    """A picture twice as large has twice the reconstruction term, and the KL is one number per example."""
    oracle = LinearGaussian.random(seed=0)
    twice = LinearGaussian(np.tile(oracle.weights, (2, 1)), np.tile(oracle.bias, 2), oracle.sigma)
    x = oracle.sample(seed=1, num_examples=3)
    wide = np.concatenate([x, x], axis=1)
    _, bound, metrics = apply(elbo(1), oracle.model("diagonal"), x)
    assert bound.shape == metrics["kl"].shape == metrics["reconstruction"].shape == (3,)
    model = oracle.model("diagonal")
    same_z = model._replace(likelihood=twice.model().likelihood, posterior=lambda params, batch: model.posterior(
        params, models.Batch(batch.x[:, :6])
    ))  # fmt: skip
    _, _, doubled = apply(elbo(1), same_z, wide)
    np.testing.assert_allclose(doubled["reconstruction"], 2 * metrics["reconstruction"], rtol=1e-5)


def test_fault_the_field_elbo_holds_its_negative():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=50)
    for name, make in OBJECTIVES.items():
        surrogate, bound, metrics = apply(make(Settings((6, 1, 1), objective=name)), oracle.model("diagonal"), x)
        assert bound.mean() < oracle.log_p(x).mean(), name
        assert surrogate == pytest.approx(float(bound.mean()), rel=1e-5)
        assert (metrics["kl"].mean()) > 0, name


def test_fault_evaluating_at_the_posterior_mean_is_called_the_elbo():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=4)
    first, second = (apply(elbo(1), oracle.model("diagonal"), x, seed=seed)[1] for seed in (0, 1))
    assert (first != second).all()


def test_an_analytic_kl_that_does_not_exist_is_refused_with_the_reason():
    oracle = LinearGaussian.random(seed=0)
    with pytest.raises(ValueError, match="closed form"):
        apply(elbo(1), oracle.model("exact"), oracle.sample(1, 2).astype(np.float32))


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_value_and_gradient_are_finite_at_extreme_parameters(name, likelihood):
    settings = Settings((3, 3, 1), hidden_sizes=(8,), latent_dim=4, objective=name, likelihood=likelihood)
    model, objective = models.build(settings), OBJECTIVES[name](settings)
    batch = models.Batch(jnp.round(jax.random.uniform(jax.random.key(0), (5, 3, 3, 1))))
    params = jax.tree.map(lambda p: 1e3 * p, jax.jit(model.init)(jax.random.key(1), batch))

    def surrogate(params):
        return objective.apply(jax.random.key(2), params, model, batch, NO_NUMBERS, 0)[0]

    value, gradient = jax.jit(jax.value_and_grad(surrogate))(params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
