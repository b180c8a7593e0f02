"""Reweighted wake-sleep: its phases, and the doubly reparameterised wake phase of q."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.objectives.test_estimators import FEW, gradients, noise_of, z_scores
from tests.oracles.linear_gaussian import LinearGaussian
from vae import objectives
from vae.models.model import Batch
from vae.models.normals import DiagonalNormal
from vae.objectives import ObjectiveError
from vae.settings import Hyperparameters, Settings

pytestmark = pytest.mark.usefixtures("float64")


def test_wake_sleep_trains_q_on_weighted_samples_that_are_held_and_p_as_iwae_does():
    """Bornschein & Bengio (2015), against numpy: Σ_k w̃_k ∂log q(z_k)/∂φ, with z_k and w̃_k held."""
    loc, scale = 0.2, 1.1
    g = gradients("rws", "reparameterized", 4, loc, scale)
    z = loc + scale * noise_of(4)
    log_w = -0.5 * z**2 + 0.5 * ((z - loc) / scale) ** 2
    w = np.exp(log_w) / np.exp(log_w).sum(1, keepdims=True)
    standardized = (z - loc) / scale
    np.testing.assert_allclose(g[:, 0], (w * standardized / scale).sum(1), rtol=1e-9)
    np.testing.assert_allclose(g[:, 1], (w * (standardized**2 - 1)).sum(1), rtol=1e-9)
    np.testing.assert_allclose(g[:, 2], gradients("iwae", "reparameterized", 4, loc, scale)[:, 2], rtol=1e-9)


def test_doubly_reparameterized_wake_sleep_is_as_its_authors_write_it_and_has_the_mean_of_the_wake_phase():
    """Tucker et al. (2018): Σ_k (w̃_k − w̃_k²) ∂log w_k/∂z_k ∂z_k/∂φ; and nothing else for p."""
    loc, scale = 1.5, 0.7
    plain, doubly = (gradients("rws", estimator, 4, loc, scale) for estimator in ("reparameterized", "dreg"))
    z, noise = loc + scale * noise_of(4), noise_of(4)
    w = scipy.special.softmax(-0.5 * z**2 + 0.5 * noise**2, axis=1)
    path = w * (1 - w) * (-z + noise / scale)
    expected = np.stack([path.sum(1), (path * scale * noise).sum(1), (w * z).sum(1)], axis=1)
    np.testing.assert_allclose(doubly, expected, atol=1e-10)
    assert (z_scores(plain[:20_000], doubly[20_000:]) < 4.5).all()
    assert (doubly[:, :2].std(0) < 0.5 * plain[:, :2].std(0)).all()


def test_at_the_posterior_doubly_reparameterized_wake_sleep_has_no_noise():
    assert np.abs(gradients("rws", "dreg", 4, 0.0, 1.0, num_draws=FEW)[:, :2]).max() < 1e-12


ORACLE = LinearGaussian.random(seed=0, num_pixels=3, latent_dim=2)


def model_of_encoder():
    """p of the oracle, and q(z|x) = N(Vx + c, exp(log_scale)²) of any V."""

    def posterior(params, batch):
        loc = batch.x.reshape(len(batch.x), -1) @ params["V"].T
        return DiagonalNormal(loc + params["c"][None], jnp.broadcast_to(params["log_scale"][None], loc.shape))

    return ORACLE.model()._replace(posterior=posterior)


PARAMS = {
    "V": np.asarray([[0.3, -0.2, 0.1], [0.0, 0.4, 0.2]]),
    "c": np.asarray([0.5, -0.3]),
    "log_scale": np.log([0.6, 1.3]),
}
X = ORACLE.sample(seed=1, num_examples=500)


def gradient_of_phase(phase, estimator="reparameterized"):
    """As a function of the key."""
    settings = Settings((3, 1, 1), objective="rws", estimator=estimator, rws_phase=phase, num_samples=3, latent_dim=2)
    objective, model = objectives.build(settings), model_of_encoder()

    def surrogate(params, key):
        return objective.apply(key, params, model, Batch(jnp.asarray(X)), Hyperparameters(), 0)[0]

    return lambda key: jax.grad(surrogate)(jax.tree.map(jnp.asarray, PARAMS), key)


def test_the_sleep_phase_is_the_gradient_of_the_mean_log_q_of_what_the_model_draws():
    """In closed form: with r = z − Vx − c, ∂E log q is E r xᵀ/s² in V, E r/s² in c and E r²/s² − 1 in log s."""
    v, c, s = PARAMS["V"], PARAMS["c"], np.exp(PARAMS["log_scale"])[:, None]
    of_x = ORACLE.weights @ ORACLE.weights.T + ORACLE.sigma**2 * np.eye(3)
    mean = -v @ ORACLE.bias - c
    of_r = np.eye(2) - v @ ORACLE.weights - (v @ ORACLE.weights).T + v @ of_x @ v.T
    exact = {
        "V": (ORACLE.weights.T - v @ of_x + np.outer(mean, ORACLE.bias)) / s**2,
        "c": mean / s[:, 0] ** 2,
        "log_scale": (np.diag(of_r) + mean**2) / s[:, 0] ** 2 - 1,
    }
    found = jax.jit(jax.vmap(gradient_of_phase("sleep_q")))(jax.random.split(jax.random.key(0), 200))
    for name, draws in found.items():
        error = np.std(draws, axis=0) / np.sqrt(len(draws))
        assert (np.abs(draws.mean(0) - exact[name]) < 4.5 * error).all(), name
        assert (error < 0.01 * np.abs(exact[name]).max()).all(), name  # one per cent would be seen


@pytest.mark.parametrize("estimator", ["reparameterized", "dreg"])
def test_both_phases_are_the_mean_of_the_two(estimator):
    @jax.jit
    def gradients():
        key, same = jax.random.key(3), jax.random.clone
        wake = gradient_of_phase("wake_q", estimator)(jax.random.split(same(key))[0])
        return wake, gradient_of_phase("sleep_q")(same(key)), gradient_of_phase("both", estimator)(key)

    for wake, sleep, both in zip(*map(jax.tree.leaves, gradients()), strict=True):
        np.testing.assert_allclose(both, (wake + sleep) / 2, rtol=1e-9)


def test_a_sleep_phase_without_images_and_one_that_leaves_dreg_nothing_are_refused():
    with pytest.raises(ObjectiveError, match="`rws_phase=both` draws images of p"):
        objectives.build(Settings((1, 1, 1), objective="rws", rws_phase="both", likelihood="normal", scale="optimal"))
    with pytest.raises(ObjectiveError, match="use reparameterized"):
        objectives.build(Settings((1, 1, 1), objective="rws", rws_phase="sleep_q", estimator="dreg"))
