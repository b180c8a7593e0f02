"""priors.py against numpyro, the aggregate posterior, and each prior's own samples."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

from vae.models import model as models
from vae.models.normals import DiagonalNormal
from vae.models.priors import MixturePrior
from vae.models.table import PRIORS
from vae.settings import Settings

pytestmark = pytest.mark.usefixtures("float64")

SMALL = {"hidden_sizes": (5,), "latent_dim": 2, "num_flows": 2, "flow_hidden_size": 6, "prior_components": 4}
SETTINGS = {name: Settings((2, 2, 1), prior=name, **SMALL) for name in PRIORS} | {
    "vamp of full": Settings((2, 2, 1), prior="vamp", posterior="full", **SMALL),
    "vamp of iaf": Settings((2, 2, 1), prior="vamp", posterior="iaf", **SMALL),
}


@cache
def initialized(name):
    """The model, three images, and parameters far from the initial ones."""
    model, generator = models.build(SETTINGS[name]), np.random.default_rng(0)
    batch = models.Batch(jnp.asarray(generator.uniform(size=(3, 2, 2, 1))))
    shapes = jax.eval_shape(model.init, jax.random.key(1), batch)
    return model, batch, jax.tree.map(lambda leaf: 0.7 * generator.normal(size=leaf.shape), shapes)


@pytest.mark.parametrize("name", SETTINGS)
def test_samples_have_the_density_that_log_prob_says(name):
    """The mean of r(z)/p(z) over z from p is one for any density r whose support p covers."""
    model, _, params = initialized(name)

    @jax.jit
    def sample(params):
        p = model.prior(params)
        z, log_p = p.sample_and_log_prob(jax.random.key(2), 20_000)
        return z, log_p, p.log_prob(z)

    z, log_p, same = sample(params)
    assert (z.shape, log_p.shape) == ((20_000, 1, 2), (20_000, 1))
    np.testing.assert_allclose(log_p, same, atol=1e-9)
    rows, log_p = np.asarray(z)[:, 0], np.asarray(log_p)[:, 0]
    # Narrow, and where p is highest: its tail is under that of p.
    log_r = scipy.stats.multivariate_normal(rows[log_p.argmax()], 0.02 * np.cov(rows.T)).logpdf(rows)
    ratio = np.exp(log_r - log_p)
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.1
    assert ratio.mean() == pytest.approx(1, abs=4 * error)


@pytest.mark.parametrize("name", ["standard", "mixture", "flow"])
def test_p_integrates_to_one(name):
    model, _, params = initialized(name)
    nodes = np.linspace(-25, 25, 500)
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 1, 2)
    density = np.exp(jax.jit(lambda params, z: model.prior(params).log_prob(z))(params, grid)).reshape(500, 500)
    assert np.trapezoid(np.trapezoid(density, nodes, axis=1), nodes) == pytest.approx(1, abs=5e-3)


def test_the_mixture_equals_numpyros():
    generator = np.random.default_rng(0)
    loc, log_scale = generator.normal(size=(2, 6, 3))
    z = generator.normal(size=(5, 4, 3))

    @jax.jit
    def numpyros(loc, log_scale, z):
        components = dist.Normal(loc, jnp.exp(log_scale)).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(jnp.full(6, 1 / 6)), components).log_prob(z)

    with jax.numpy_rank_promotion("allow"):
        expected = numpyros(loc, log_scale, z)
    found = jax.jit(lambda p, z: MixturePrior(p).log_prob(z))(DiagonalNormal(loc, log_scale), z)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_mixture_begins_near_the_standard_normal():
    settings = Settings((1, 1, 1), hidden_sizes=(), latent_dim=3, prior="mixture", prior_components=2000)
    model = models.build(settings)
    z = np.random.default_rng(0).normal(size=(2000, 1, 3))

    @jax.jit
    def log_prob(z):
        params = model.init(jax.random.key(0), models.Batch(jnp.full((1, 1, 1, 1), 0.5)))
        return model.prior(params).log_prob(z)

    expected = scipy.stats.norm.logpdf(z).sum(-1)
    assert (expected - log_prob(z)).mean() == pytest.approx(0, abs=0.05)


def encode(params, x):
    """The encoder of one tanh layer by numpy: means and scales [N, D]."""
    (kernel, bias), (last_kernel, last_bias) = (
        (np.asarray(params[layer]["kernel"]), np.asarray(params[layer]["bias"])) for layer in ("Dense_0", "Dense_1")
    )
    hidden = np.tanh(x.reshape(len(x), -1) @ kernel + bias)
    loc, raw = np.split(hidden @ last_kernel + last_bias, 2, -1)
    return loc, np.exp(10 * np.tanh(raw / 10))


def test_with_every_training_image_as_pseudo_input_the_vamp_prior_is_the_aggregate_posterior():
    model, _, params = initialized("vamp")
    x = np.random.default_rng(1).uniform(0.05, 0.95, (9, 2, 2, 1))
    params = params | {"prior": {"pseudo_inputs": scipy.special.logit(x)}}
    z = np.random.default_rng(2).normal(size=(5, 3, 2))
    loc, scale = encode(params["encoder"], x)
    log_q = scipy.stats.norm(loc, scale).logpdf(z[:, :, None]).sum(-1)
    expected = scipy.special.logsumexp(log_q, axis=-1) - np.log(9)
    found = jax.jit(lambda params, z: model.prior(params).log_prob(z))(params, z)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_vamp_prior_trains_the_encoder_and_its_pseudo_inputs():
    model, _, params = initialized("vamp")
    z = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3, 2)))
    gradient = jax.device_get(jax.jit(jax.grad(lambda params: model.prior(params).log_prob(z).sum()))(params))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves((gradient["encoder"], gradient["prior"])))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["decoder"]))


def test_pseudo_inputs_begin_around_the_mean_image_each_somewhere_else():
    model = models.build(Settings((2, 2, 1), hidden_sizes=(), latent_dim=2, prior="vamp", prior_components=500))
    mean_image = jnp.asarray([0.0, 0.1, 0.5, 1.0]).reshape(1, 2, 2, 1)
    logits = np.asarray(jax.jit(model.init)(jax.random.key(0), models.Batch(mean_image))["prior"]["pseudo_inputs"])
    expected = scipy.special.logit(np.array([0.001, 0.1, 0.5, 0.999])).reshape(2, 2, 1)
    np.testing.assert_allclose(logits.mean(0), expected, atol=0.2)
    np.testing.assert_allclose(logits.std(0), 1, atol=0.1)


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_redraws_a_sample_if_its_row_says_so_and_moves_it_as_it_moves_its_own(name):
    """What is redrawn is z; with the parameters it moves as the sample that z is."""
    model, _, params = initialized(name)
    params, found = jax.tree.map(jnp.asarray, params), []

    @jax.jit
    def both(prior):
        def sample(prior):
            return model.prior(params | {"prior": prior}).sample_and_log_prob(jax.random.key(3), 4)[0]

        def redrawn(prior):
            p = model.prior(params | {"prior": prior})
            found.append(hasattr(p, "redrawn"))
            return p.redrawn(z) if found[0] else z

        z, pull = jax.vjp(sample, prior)
        again, pull_again = jax.vjp(redrawn, prior)
        weights = jnp.cos(jnp.arange(z.size, dtype=z.dtype)).reshape(z.shape)
        return (z, pull(weights)), (again, pull_again(weights))

    expected, moved = both(params["prior"])
    assert found == [PRIORS[name].redraws]
    if PRIORS[name].redraws:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), moved, expected)
