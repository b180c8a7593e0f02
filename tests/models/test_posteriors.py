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

SMALL = {"hidden_sizes": (5,), "latent_dim": 2, "num_flows": 2, "flow_hidden_size": 6}
SETTINGS = {name: Settings((2, 2, 1), posterior=name, **SMALL) for name in POSTERIORS} | {
    "two layers": Settings((2, 2, 1), upper_latent_dim=3, upper_hidden_sizes=(4,), **SMALL)
}
SCORABLE = [name for name in SETTINGS if name != "planar"]


@cache
def initialized(name):
    """The model, three images, and parameters far from the initial ones."""
    model = models.build(SETTINGS[name])
    batch = models.Batch(jax.random.uniform(jax.random.key(0), (3, 2, 2, 1)))
    shapes = jax.eval_shape(model.init, jax.random.key(1), batch)
    generator = np.random.default_rng(0)
    return model, batch, jax.tree.map(lambda leaf: jnp.asarray(0.7 * generator.normal(size=leaf.shape)), shapes)


def test_only_planar_flows_cannot_score_a_given_z():
    for name, settings in SETTINGS.items():
        model, batch, params = initialized(name)
        assert models.can_score(settings) == (model.posterior(params, batch).log_prob is not None) == (name != "planar")


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

    (held, in_z), (free, free_in_z) = gradients(params)
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
    q = jax.jit(model.posterior)(params, batch)
    z, _ = q.sample_and_log_prob(jax.random.key(0), 5000)
    low, high = np.asarray(z.min((0, 1))) - 2, np.asarray(z.max((0, 1))) + 2
    grid = [np.linspace(a, b, 200) for a, b in zip(low, high, strict=True)]
    nodes = jnp.asarray(np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 1, 2))
    density = np.exp(jax.jit(q.log_prob)(nodes)).reshape(200, 200, 3)
    totals = np.trapezoid(np.trapezoid(density, grid[1], axis=1), grid[0], axis=0)
    np.testing.assert_allclose(totals, 1, atol=2e-3)


def full_normal(batch=4, dim=3):
    generator = np.random.default_rng(0)
    loc, log_scale, raw = (generator.normal(size=shape) for shape in ((batch, dim), (batch, dim), (batch, dim, dim)))
    return FullNormal(*map(jnp.asarray, (loc, log_scale, np.tril(raw, -1) + np.eye(dim))))


def test_the_full_normal_equals_numpyros():
    q = full_normal()
    reference = dist.MultivariateNormal(q.loc, covariance_matrix=q.covariance)
    z, log_q = q.sample_and_log_prob(jax.random.key(0), 5)
    np.testing.assert_allclose(log_q, [reference.log_prob(z_k) for z_k in z], rtol=1e-9)
    np.testing.assert_allclose(q.log_prob(z), log_q, rtol=1e-10)
    np.testing.assert_allclose(q.covariance, q.scale_tril @ q.scale_tril.swapaxes(1, 2), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.slogdet(q.covariance)[1], 2 * q.log_scale.sum(-1), rtol=1e-9)
    assert q.log_prob_per_dimension(z) is None


@pytest.mark.parametrize("prior_scale", [1.0, 1.7])
def test_the_kl_of_a_full_normal_is_that_of_numpyro_split_by_the_chain_rule(prior_scale):
    q, log_scale = full_normal(), np.log(prior_scale)
    prior = DiagonalNormal(jnp.full((1, 3), 0.4), jnp.full((1, 3), log_scale))
    kl = q.kl_per_dimension(prior)
    reference = dist.MultivariateNormal(jnp.full((4, 3), 0.4), covariance_matrix=prior_scale**2 * jnp.eye(3))
    expected = dist.kl_divergence(dist.MultivariateNormal(q.loc, covariance_matrix=q.covariance), reference)
    assert kl is not None
    assert kl.shape == (4, 3)
    np.testing.assert_allclose(kl.sum(-1), expected, rtol=1e-9)
    assert (kl > 0).all()
    # The first dimension depends on no other.
    alone = DiagonalNormal(q.loc, q.log_scale).kl_per_dimension(prior)
    assert alone is not None
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
    weighted = jax.jit(lambda: models.weigh(jax.random.key(0), {}, model, q, batch, 10_000))()
    np.testing.assert_allclose(weighted.log_w, np.tile(oracle.log_p(x), (10_000, 1)), atol=1e-9)
    kl = q.kl_per_dimension(standard_normal(3))
    assert kl is not None
    np.testing.assert_allclose(weighted.log_p_x_given_z.mean(0) - kl.sum(-1), oracle.log_p(x), atol=0.08)


def test_samples_of_a_full_normal_have_its_mean_and_covariance():
    q = full_normal(batch=1)
    z, _ = q.sample_and_log_prob(jax.random.key(0), 200_000)
    np.testing.assert_allclose(z[:, 0].mean(0), q.mean[0], atol=0.05)
    np.testing.assert_allclose(np.cov(z[:, 0].T), q.covariance[0], rtol=0.03, atol=0.03)


def test_the_encoder_reaches_every_entry_of_the_covariance():
    model, batch, params = initialized("full")
    covariance = np.asarray(model.posterior(params, batch).covariance)
    assert (np.abs(covariance) > 1e-3).all()
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert not np.allclose(covariance[0], covariance[1])


def test_only_normals_have_a_kl_in_closed_form():
    for name in SETTINGS:
        model, batch, params = initialized(name)
        kl = model.posterior(params, batch).kl_per_dimension(model.prior(params))
        assert (kl is not None) == (name in ("diagonal", "full"))
    assert full_normal().kl_per_dimension(standard_normal(3)) is not None
