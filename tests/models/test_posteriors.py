"""posteriors.py beyond the diagonal normal, which test_model.py holds; two layers are in test_two_layers.py."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from tests.oracles.linear_gaussian import LinearGaussian
from vae.models import model as models
from vae.models.normals import DiagonalNormal, FullNormal, standard_normal
from vae.models.table import POSTERIORS
from vae.settings import Settings

pytestmark = pytest.mark.usefixtures("float64")

SMALL = {"hidden_sizes": (5,), "latent_dim": 2, "num_flows": 1, "flow_hidden_size": 6}
SETTINGS = {name: Settings((2, 2, 1), posterior=name, **SMALL) for name in POSTERIORS} | {
    "two layers": Settings((2, 2, 1), upper_latent_dim=3, upper_hidden_sizes=(4,), **SMALL)
}
SCORABLE = [name for name in SETTINGS if name != "planar"]


@cache
def initialized(name):
    """The model, three images, and parameters far from the initial ones."""
    model, generator = models.build(SETTINGS[name]), np.random.default_rng(0)
    batch = models.Batch(jnp.asarray(generator.uniform(size=(3, 2, 2, 1))))
    shapes = jax.eval_shape(model.init, jax.random.key(1), batch)
    return model, batch, jax.tree.map(lambda leaf: 0.7 * generator.normal(size=leaf.shape), shapes)


@pytest.mark.parametrize("name", SETTINGS)
def test_only_planar_flows_cannot_score_a_given_z(name):
    model, batch, params = initialized(name)

    @jax.eval_shape
    def _checked():
        assert (model.posterior(params, batch).log_prob is not None) == (name != "planar")
        return ()

    assert models.can_score(SETTINGS[name]) == (name != "planar")


@pytest.mark.parametrize("name", SCORABLE)
def test_the_held_posterior_has_no_gradient_in_any_parameter_and_one_in_z(name):
    """What sticking the landing and its successors rely on: `lax.stop_gradient(q)` holds q, and the path through z
    stays."""
    model, batch, params = initialized(name)

    @jax.jit
    def gradients(params):
        z, _ = model.posterior(params, batch).sample_and_log_prob(jax.random.key(0), 4)

        def held(params, z):
            return models.sum_layers(jax.lax.stop_gradient(model.posterior(params, batch)).log_prob(z)).sum()

        def free(params, z):
            return models.sum_layers(model.posterior(params, batch).log_prob(z)).sum()

        return jax.grad(held, (0, 1))(params, z), jax.grad(free, (0, 1))(params, z)

    (held, in_z), (free, free_in_z) = jax.device_get(gradients(params))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(held))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(free["encoder"]))
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(in_z))
    jax.tree.map(np.testing.assert_array_equal, in_z, free_in_z)


@pytest.mark.parametrize("name", SCORABLE)
def test_samples_are_scored_as_a_given_z_is_and_one_z_under_every_example(name):
    model, batch, params = initialized(name)

    @jax.jit
    def everything(params):
        q = model.posterior(params, batch)
        z, log_q = q.sample_and_log_prob(jax.random.key(0), 4)
        of_first = jax.tree.map(lambda leaf: leaf[:, :1], z)
        copies = jax.tree.map(lambda leaf: jnp.repeat(leaf, 3, axis=1), of_first)
        return [
            models.sum_layers(scores) for scores in (log_q, q.log_prob(z), q.log_prob(of_first), q.log_prob(copies))
        ]

    log_q, same, of_first, of_copies = everything(params)
    np.testing.assert_allclose(log_q, same, atol=1e-9)
    np.testing.assert_allclose(of_first, of_copies, atol=1e-9)
    assert log_q.shape == of_first.shape == (4, 3)


@pytest.mark.parametrize("name", [name for name in SCORABLE if name != "two layers"])
def test_q_integrates_to_one_for_each_image(name):
    model, batch, params = initialized(name)

    @jax.jit
    def posterior_and_samples(params):
        q = model.posterior(params, batch)
        return q, q.sample_and_log_prob(jax.random.key(0), 5000)[0]

    q, z = posterior_and_samples(params)
    low, high = np.min(z, (0, 1)) - 2, np.max(z, (0, 1)) + 2
    grid = [np.linspace(a, b, 200) for a, b in zip(low, high, strict=True)]
    nodes = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 1, 2)
    density = np.exp(jax.jit(lambda q, nodes: q.log_prob(nodes))(q, nodes)).reshape(200, 200, 3)
    totals = np.trapezoid(np.trapezoid(density, grid[1], axis=1), grid[0], axis=0)
    np.testing.assert_allclose(totals, 1, atol=2e-3)


def full_normal(batch=4, dim=3):
    generator = np.random.default_rng(0)
    loc, log_scale, raw = (generator.normal(size=shape) for shape in ((batch, dim), (batch, dim), (batch, dim, dim)))
    return FullNormal(loc, log_scale, np.tril(raw, -1) + np.eye(dim))


def test_the_full_normal_equals_numpyros():
    q = full_normal()

    @jax.jit
    def everything(q):
        z, log_q = q.sample_and_log_prob(jax.random.key(0), 5)
        assert q.log_prob_per_dimension(z) is None
        reference = dist.MultivariateNormal(q.loc, covariance_matrix=q.covariance)
        return log_q, q.log_prob(z), jnp.stack([reference.log_prob(z_k) for z_k in z]), q.covariance, q.scale_tril

    log_q, same, expected, covariance, scale_tril = map(np.asarray, everything(q))
    np.testing.assert_allclose(log_q, expected, rtol=1e-9)
    np.testing.assert_allclose(same, log_q, rtol=1e-10)
    np.testing.assert_allclose(covariance, scale_tril @ scale_tril.swapaxes(1, 2), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.slogdet(covariance)[1], 2 * q.log_scale.sum(-1), rtol=1e-9)


@jax.jit
def kl_of_full_normal(q, prior_scale):
    """By dimension, numpyro's of all, and by dimension of the normal without covariances; the prior is N(0.4, σ²)."""
    prior = DiagonalNormal(jnp.full((1, 3), 0.4), jnp.full((1, 3), jnp.log(prior_scale)))
    reference = dist.MultivariateNormal(jnp.full((4, 3), 0.4), covariance_matrix=prior_scale**2 * jnp.eye(3))
    expected = dist.kl_divergence(dist.MultivariateNormal(q.loc, covariance_matrix=q.covariance), reference)
    return q.kl_per_dimension(prior), expected, DiagonalNormal(q.loc, q.log_scale).kl_per_dimension(prior)


@pytest.mark.parametrize("prior_scale", [1.0, 1.7])
def test_the_kl_of_a_full_normal_is_that_of_numpyro_split_by_the_chain_rule(prior_scale):
    kl, expected, alone = map(np.asarray, kl_of_full_normal(full_normal(), prior_scale))
    assert kl.shape == (4, 3)
    np.testing.assert_allclose(kl.sum(-1), expected, rtol=1e-9)
    assert (kl > 0).all()
    # The first dimension depends on no other.
    np.testing.assert_allclose(kl[:, 0], alone[:, 0], rtol=1e-12)


def test_the_exact_posterior_of_a_linear_gaussian_model_is_a_full_normal():
    """Then each log-weight is log p(x), and so is the mean reconstruction minus the closed-form KL."""
    oracle = LinearGaussian.random(seed=0)
    x = jnp.asarray(oracle.sample(seed=1, num_examples=4))
    model, batch = oracle.model("exact"), models.Batch(x)
    scale_tril = np.linalg.cholesky(oracle.posterior_covariance)
    scale = np.diag(scale_tril)
    mean = jnp.asarray(oracle.posterior_mean(np.asarray(x)))
    unit = jnp.asarray(np.tile(scale_tril / scale[:, None], (4, 1, 1)))
    q = FullNormal(mean, jnp.asarray(np.tile(np.log(scale), (4, 1))), unit)

    @jax.jit
    def weighted_and_kl(q):
        return models.weigh(jax.random.key(0), {}, model, q, batch, 10_000), q.kl_per_dimension(standard_normal(3))

    weighted, kl = weighted_and_kl(q)
    np.testing.assert_allclose(weighted.log_w, np.tile(oracle.log_p(x), (10_000, 1)), atol=1e-9)
    reconstruction = np.mean(weighted.log_p_x_given_z, 0)
    np.testing.assert_allclose(reconstruction - np.sum(kl, -1), oracle.log_p(x), atol=0.08)


def test_samples_of_a_full_normal_have_its_mean_and_covariance():
    samples = jax.jit(lambda q: (q.sample_and_log_prob(jax.random.key(0), 200_000)[0], q.mean, q.covariance))
    z, mean, covariance = map(np.asarray, samples(full_normal(batch=1)))
    np.testing.assert_allclose(z[:, 0].mean(0), mean[0], atol=0.05)
    np.testing.assert_allclose(np.cov(z[:, 0].T), covariance[0], rtol=0.03, atol=0.03)


def test_the_encoder_reaches_every_entry_of_the_covariance():
    model, batch, params = initialized("full")
    covariance = np.asarray(jax.jit(lambda params: model.posterior(params, batch).covariance)(params))
    assert (np.abs(covariance) > 1e-3).all()
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert not np.allclose(covariance[0], covariance[1])


@pytest.mark.parametrize("name", SETTINGS)
def test_only_normals_have_a_kl_in_closed_form(name):
    model, batch, params = initialized(name)
    kl = jax.eval_shape(lambda params: model.posterior(params, batch).kl_per_dimension(model.prior(params)), params)
    assert (kl is not None) == (name in ("diagonal", "full"))
