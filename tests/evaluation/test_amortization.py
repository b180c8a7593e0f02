"""amortization.py on linear-Gaussian models, where the best q of a family and its gap are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.tree_util import Partial

from tests.marks import soaked
from tests.oracles.linear_gaussian import LinearGaussian
from vae.evaluation import amortization
from vae.models import memory
from vae.models.distributions import Independent, Normal
from vae.models.model import Model
from vae.models.normals import DiagonalNormal, FullNormal, standard_normal
from vae.models.posteriors import TwoLayers
from vae.models.priors import TwoLayersPrior
from vae.models.table import POSTERIORS
from vae.settings import Settings

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


def full_normal(params, batch):
    """The exact posterior, in the parameters of vae.models.normals.FullNormal."""
    scale_tril = np.linalg.cholesky(ORACLE.posterior_covariance)
    scales = np.diag(scale_tril)
    loc = MODEL.posterior(params, batch).loc
    log_scale = jnp.broadcast_to(jnp.asarray(np.log(scales), jnp.float32), loc.shape)
    unit = jnp.asarray(scale_tril / scales[:, None], jnp.float32)
    return FullNormal(loc, log_scale, jnp.broadcast_to(unit, (len(loc), 3, 3)))


def wrong_full_normal(params, batch):
    """As `wrong_posterior`, with a full covariance that starts at a diagonal one."""
    q = wrong_posterior(params, batch)
    return FullNormal(*q, jnp.broadcast_to(jnp.eye(3), (len(q.loc), 3, 3)))


def exact_of_the_oracle(params, batch):
    return ORACLE.model("exact").posterior(params, batch)


@pytest.mark.parametrize("posterior", [full_normal, exact_of_the_oracle])
def test_an_exact_posterior_that_is_not_diagonal_leaves_no_gap_at_all(posterior):
    fitted = fit(MODEL._replace(posterior=posterior))
    summary = amortization.summarize(fitted, ORACLE.log_p(X.astype(float)))
    np.testing.assert_allclose(fitted.encoder, ORACLE.log_p(X.astype(float)), atol=1e-4)
    for gap in ("amortization_gap", "approximation_gap", "inference_gap"):
        assert summary[gap] == pytest.approx(0, abs=1e-3)


def test_what_a_wrong_encoder_with_a_full_covariance_loses_is_all_amortization():
    fitted = fit(MODEL._replace(posterior=wrong_full_normal))
    summary = amortization.summarize(fitted, ORACLE.log_p(X.astype(float)))
    assert summary["approximation_gap"] == pytest.approx(0, abs=0.01)
    assert summary["amortization_gap"] > ORACLE.diagonal_gap


def test_numbers_of_a_full_normal_outside_the_strict_lower_triangle_are_another_name_of_the_same_q():
    q = jax.jit(lambda x: full_normal({}, amortization.Batch(x)))(X)
    other = q._replace(unit=np.asarray(q.unit) + np.triu(np.ones((3, 3), np.float32)))

    @jax.jit
    def samples_and_scores(q, z):
        return q.sample_and_log_prob(jax.random.key(0), 4), q.log_prob(z)

    z = np.random.default_rng(0).normal(size=(4, 20, 3)).astype(np.float32)
    jax.tree.map(np.testing.assert_array_equal, samples_and_scores(other, z), samples_and_scores(q, z))


# "planar" has parameters of each image alone, the others networks too, of which each image has the context.
@pytest.mark.parametrize("name", soaked([name for name in POSTERIORS if name not in ("diagonal", "full")], "realnvp"))
def test_a_flow_is_fitted_as_a_flow_and_comes_nearer_than_the_best_diagonal_normal(name):
    """Networks and all: a linear flow would suffice for a posterior that is normal."""
    settings = Settings((6, 1, 1), latent_dim=3, posterior=name, num_flows=2, flow_hidden_size=8)
    family = POSTERIORS[name].function(settings)
    networks = jax.jit(family.init)(jax.random.key(1))

    def posterior(params, batch):
        q = wrong_posterior(params, batch)
        others = jnp.full((len(q.loc), family.num_outputs - 6), 0.1)
        return family.distribution(networks, jnp.concatenate([*q, others], axis=1))

    x = X[:4]
    fitted = fit(MODEL._replace(posterior=posterior), x)
    gap = ORACLE.log_p(x.astype(float)) - fitted.optimized
    assert -0.02 < gap.mean() < 0.5 * ORACLE.diagonal_gap
    assert (fitted.optimized > fitted.encoder).all()


def test_noise_depends_on_the_position_of_an_image_alone(fitted):
    index = np.resize([2, 5, 19], len(X))  # as many as the whole, for which there is a program
    part = fit(WRONG, X[index], index=index)
    np.testing.assert_allclose(part.optimized, fitted.optimized[index], atol=1e-3)
    np.testing.assert_allclose(part.encoder, fitted.encoder[index], rtol=1e-5)


def test_fault_both_elbos_come_from_different_noise():
    fitted = fit(MODEL, X[:2], num_steps=1, num_evaluated=3)
    assert np.abs(fitted.optimized - fitted.encoder).max() < 0.2
    assert fitted.encoder[0] != fitted.encoder[1]


def test_two_layers_are_fitted_together_with_the_network_between_them():
    """z2 ~ N(0, 1), z1 ~ N(a z2, s²), x ~ N(w z1, σ²I): q(z1|x) q(z2|z1) can be exact, and starts elsewhere."""
    a, s, sigma, w = 1.5, 0.6, 0.7, np.array([1.0, -0.5, 2.0])

    def affine(weights, z):
        return jnp.concatenate([weights[0] * z, jnp.broadcast_to(weights[1], z.shape)], axis=-1)

    def posterior(params, batch):
        lower = DiagonalNormal(0.4 * batch.x[:, 2, :, 0], jnp.zeros((len(batch.x), 1)))
        return TwoLayers(lower, Partial(affine, jnp.asarray([0.3, -0.3])))

    def likelihood(params, z, y=None):
        loc = z[0] * jnp.asarray(w, jnp.float32).reshape(*[1] * (z[0].ndim - 1), 3)
        return Independent(Normal(loc[..., None, None], jnp.log(jnp.float32(sigma))))

    model = Model(
        init=lambda key, batch: {},
        posterior=posterior,
        prior=lambda params, y=None: TwoLayersPrior(
            standard_normal(1), Partial(affine, jnp.asarray([a, np.log(s)], jnp.float32))
        ),
        likelihood=likelihood,
    )
    oracle = scipy.stats.multivariate_normal(np.zeros(3), (a**2 + s**2) * np.outer(w, w) + sigma**2 * np.eye(3))
    x = oracle.rvs(6, random_state=0)
    fitted = fit(model, x.astype(np.float32)[:, :, None, None])
    summary = amortization.summarize(fitted, oracle.logpdf(x))
    assert summary["amortization_gap"] > 1
    assert summary["approximation_gap"] == pytest.approx(0, abs=0.02)


def test_of_large_images_fewer_samples_are_decoded_at_once_and_the_result_is_the_same(monkeypatch):
    counts = {"num_steps": 2, "num_samples": 4, "num_evaluated": 40}
    whole, called = fit(WRONG, X[:4], **counts), []
    original = amortization.program
    monkeypatch.setattr(
        amortization, "program", lambda *args, **kw: called.append(kw["counts"]) or original(*args, **kw)
    )
    fitting = 9  # samples with a gradient: those of two images in a step, and four of the forty of each
    large = WRONG._replace(sample_bytes=memory.AT_ONCE * memory.FORWARD // (memory.WITH_GRADIENT * fitting))
    found = fit(large, X[:4], **counts)
    np.testing.assert_allclose(found.encoder, whole.encoder, rtol=1e-5)
    np.testing.assert_allclose(found.optimized, whole.optimized, rtol=1e-5)
    assert called == [(2, 4, 40, 4)]
