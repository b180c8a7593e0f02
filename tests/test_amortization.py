"""amortization.py on the linear-Gaussian model, where the best diagonal q and its gap are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.linear_gaussian import FullNormal, LinearGaussian
from vae import amortization
from vae.posteriors import DiagonalNormal

ORACLE = LinearGaussian.random(seed=2)
MODEL = ORACLE.model("diagonal")
X = ORACLE.sample(seed=3, num_examples=20).astype(np.float32)


def wrong_posterior(params, batch):
    """Off by half a unit of each mean, and twice too wide."""
    q = MODEL.posterior(params, batch)
    return DiagonalNormal(q.loc + 0.5, q.log_scale + jnp.log(2.0))


WRONG = MODEL._replace(posterior=wrong_posterior)


def fit(model, x=X, **options):
    return amortization.fit(jax.random.key(0), {}, x, model=model, **options)


@pytest.fixture(scope="module")
def fitted():
    return fit(WRONG)


def test_fitted_elbo_of_a_wrong_encoder_misses_log_p_by_the_gap_of_the_best_diagonal_posterior(fitted):
    gap = ORACLE.log_p(X.astype(float)) - fitted.optimized
    assert gap.mean() == pytest.approx(ORACLE.diagonal_gap, abs=4 * gap.std() / np.sqrt(len(X)))
    assert gap.std() < 0.2
    assert (fitted.optimized > fitted.encoder + 0.5).all()


def test_elbo_of_the_encoder_is_that_of_its_q_and_not_of_the_fitted_one(fitted):
    # ELBO = log p − KL(q ‖ N(m, Σ)), in closed form.
    covariance = ORACLE.posterior_covariance
    scale = 2 / np.sqrt(np.diag(np.linalg.inv(covariance)))
    shift = np.full(3, 0.5)
    precision = np.linalg.inv(covariance)
    kl = 0.5 * (
        np.trace(precision * scale**2)
        + shift @ precision @ shift
        - 3
        + np.linalg.slogdet(covariance)[1]
        - 2 * np.log(scale).sum()
    )
    gap = ORACLE.log_p(X.astype(float)) - fitted.encoder
    assert gap.mean() == pytest.approx(kl, abs=4 * gap.std() / np.sqrt(len(X)))


def test_the_best_diagonal_encoder_leaves_no_amortization_gap():
    fitted = fit(MODEL)
    summary = amortization.summarize(fitted, ORACLE.log_p(X.astype(float)))
    assert summary["amortization_gap"] == pytest.approx(0, abs=0.01)
    assert summary["inference_gap"] == pytest.approx(summary["amortization_gap"] + summary["approximation_gap"])
    assert summary["approximation_gap"] == pytest.approx(ORACLE.diagonal_gap, abs=4 * summary["approximation_gap_se"])


def test_a_posterior_that_is_not_diagonal_is_replaced_by_a_diagonal_one_and_loses_by_it():
    fitted = fit(ORACLE.model("exact"))
    log_p = ORACLE.log_p(X.astype(float))
    np.testing.assert_allclose(fitted.encoder, log_p, atol=1e-4)
    gap = log_p - fitted.optimized
    assert gap.mean() == pytest.approx(ORACLE.diagonal_gap, abs=4 * gap.std() / np.sqrt(len(X)))


def test_noise_depends_on_the_position_of_an_image_alone(fitted):
    index = np.array([2, 5, 19])
    part = fit(WRONG, X[index], index=index)
    np.testing.assert_allclose(part.optimized, fitted.optimized[index], atol=1e-3)
    np.testing.assert_allclose(part.encoder, fitted.encoder[index], rtol=1e-5)


def test_fault_both_elbos_come_from_different_noise():
    fitted = fit(MODEL, X[:2], num_steps=1, num_evaluated=3)
    assert np.abs(fitted.optimized - fitted.encoder).max() < 0.2
    assert fitted.encoder[0] != fitted.encoder[1]


def test_a_layered_posterior_is_refused():
    class Two(FullNormal):
        def sample_and_log_prob(self, key, num_samples):
            z, log_q = super().sample_and_log_prob(key, num_samples)
            return (z, z), (log_q, log_q)

    def posterior(params, batch):
        return Two(*ORACLE.model("exact").posterior(params, batch))

    with pytest.raises(ValueError, match="z has several stochastic layers"):
        fit(MODEL._replace(posterior=posterior))
