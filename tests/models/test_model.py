"""model.py, networks.py, likelihoods.py and posteriors.py."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vae.models import model as models
from vae.models.networks import ConvEncoder, MLPEncoder
from vae.models.normals import DiagonalNormal, diagonal_normal, standard_normal
from vae.settings import Settings

SMALL = Settings((5, 7, 2), hidden_sizes=(8, 6), latent_dim=3)
SETTINGS = {
    "mlp": SMALL,
    "conv": Settings((5, 7, 2), network="conv", channels=(3, 4), hidden_sizes=(6,), latent_dim=3, activation="relu"),
    "normal": Settings((5, 7, 2), hidden_sizes=(8,), latent_dim=3, likelihood="normal"),
    "normal with a fixed scale": Settings((5, 7, 2), hidden_sizes=(8,), latent_dim=3, likelihood="normal", scale=0.1),
    "bfloat16": Settings((5, 7, 2), hidden_sizes=(8,), latent_dim=3, precision="bfloat16"),
    "gated_mlp": Settings((5, 7, 2), network="gated_mlp", hidden_sizes=(8,), latent_dim=3),
    "gated_conv": Settings((5, 7, 2), network="gated_conv", channels=(3, 4), hidden_sizes=(6,), latent_dim=3),
    "conv, bfloat16": Settings(
        (5, 7, 2), network="conv", channels=(3,), hidden_sizes=(6,), latent_dim=3, precision="bfloat16"
    ),
}


def random_batch(settings, size=4):
    return models.Batch(jax.random.uniform(jax.random.key(0), (size, *settings.image_shape)))


@cache
def initialized(settings):
    """The model, a batch, and random parameters in the shapes of its own, which takes no program to compile."""
    model, batch, generator = models.build(settings), random_batch(settings), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(1), batch)
    return model, batch, jax.tree.map(lambda s: (0.3 * generator.normal(size=s.shape)).astype(s.dtype), shapes)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_model_keeps_the_contract_of_shapes(settings):
    model, batch, params = initialized(settings)
    assert set(params) == {"encoder", "decoder", "prior"}

    @jax.jit
    def everything(params):
        q = model.posterior(params, batch)
        z, log_q = q.sample_and_log_prob(jax.random.key(2), 6)
        log_p = model.prior(params).log_prob(z)
        kl = q.kl_per_dimension(model.prior(params))
        p = model.likelihood(params, z)
        images = p.mean, p.sample(jax.random.key(3))
        weighted = models.weigh(jax.random.key(2), params, model, q, batch, 6)
        return q, z, log_q, log_p, kl, p.log_prob(batch.x[None]), images, weighted

    q, z, log_q, log_p, kl, log_p_x, images, weighted = everything(params)
    assert q.mean.shape == kl.shape == (4, 3)
    assert z.shape == (6, 4, 3)
    assert log_q.shape == log_p.shape == log_p_x.shape == (6, 4)
    assert [image.shape for image in images] == [(6, 4, 5, 7, 2)] * 2
    np.testing.assert_allclose(weighted.log_w, log_p_x + log_p - log_q, rtol=1e-4)
    assert all(array.dtype == jnp.float32 for array in jax.tree.leaves((params, q, z, weighted)))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_parameter_changes_the_log_weights(settings):
    model, batch, params = initialized(settings)

    @jax.jit
    @jax.grad
    def gradient(params):
        q = model.posterior(params, batch)
        return models.weigh(jax.random.key(2), params, model, q, batch, 2).log_w.sum()

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(gradient(params))):
        assert np.isfinite(leaf).all(), path
        assert (leaf != 0).any(), path


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_untrained_decoder_outputs_the_mean_image_where_z_is_zero(likelihood):
    settings = Settings((5, 7, 2), hidden_sizes=(8,), latent_dim=3, likelihood=likelihood)
    model, batch = models.build(settings), random_batch(settings, size=1)
    untrained = jax.jit(lambda batch: model.likelihood(model.init(jax.random.key(1), batch), jnp.zeros((1, 3))).mean)
    np.testing.assert_allclose(untrained(batch), batch.x, atol=2e-3)


def test_bias_of_a_constant_pixel_is_clipped_to_a_finite_logit():
    model = models.build(SMALL)
    params = jax.jit(model.init)(jax.random.key(1), models.Batch(jnp.zeros((1, *SMALL.image_shape))))
    np.testing.assert_allclose(params["decoder"]["output"]["bias"], np.log(0.001 / 0.999), rtol=1e-4)


@pytest.mark.parametrize("name", ["bfloat16", "conv, bfloat16"])
def test_bfloat16_values_and_gradients_are_close_to_float32_but_not_equal(name):
    rounded = SETTINGS[name]
    settings = Settings(**{**rounded.to_dict(), "precision": "float32"})
    _, batch, params = initialized(settings)

    def value_and_gradient(settings):
        model = models.build(settings)

        def total(params):
            q = model.posterior(params, batch)
            return models.weigh(jax.random.key(2), params, model, q, batch, 2).log_w.mean()

        value, gradient = jax.device_get(jax.jit(jax.value_and_grad(total))(params))
        return value, np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    (value, gradient), (value_16, gradient_16) = value_and_gradient(settings), value_and_gradient(rounded)
    assert value_16 != value
    assert value_16 == pytest.approx(float(value), rel=0.01)
    assert np.linalg.norm(gradient_16 - gradient) < 0.03 * np.linalg.norm(gradient)
    assert gradient_16.dtype == np.float32


@pytest.mark.parametrize("channels", [(3,), (3, 4), (3, 4, 5)])
@pytest.mark.parametrize("image_shape", [(28, 28, 1), (8, 8, 1), (5, 7, 3)])
def test_conv_decoder_makes_images_of_any_size(image_shape, channels):
    settings = Settings(image_shape, network="conv", channels=channels, hidden_sizes=(), latent_dim=2)
    model = models.build(settings)
    params = jax.eval_shape(model.init, jax.random.key(0), random_batch(settings, 1))
    mean = jax.eval_shape(lambda params, z: model.likelihood(params, z).mean, params, jnp.zeros((3, 2)))
    assert mean.shape == (3, *image_shape)


@pytest.mark.usefixtures("float64")
def test_diagonal_normal_equals_numpyro():
    generator = np.random.default_rng(0)
    q = DiagonalNormal(*generator.normal(size=(2, 4, 3)))

    @jax.jit
    def everything(q):
        z, log_q = q.sample_and_log_prob(jax.random.key(0), 5)
        reference = dist.Normal(q.loc, jnp.exp(q.log_scale)).to_event(1)
        prior = dist.Normal(jnp.zeros((4, 3)), jnp.ones((4, 3))).to_event(1)
        expected = jnp.stack([reference.log_prob(z_k) for z_k in z]), dist.kl_divergence(reference, prior)
        scores = log_q, q.log_prob(z), q.log_prob_per_dimension(z).sum(-1)
        return expected, scores, q.kl_per_dimension(standard_normal(3)), q.covariance

    (expected, expected_kl), (log_q, same, sum_over_dimensions), kl, covariance = everything(q)
    np.testing.assert_allclose(log_q, expected, rtol=1e-10)
    np.testing.assert_allclose(same, log_q, rtol=1e-12)
    np.testing.assert_allclose(sum_over_dimensions, log_q, rtol=1e-12)
    np.testing.assert_allclose(np.sum(kl, -1), expected_kl, rtol=1e-10)
    np.testing.assert_allclose(covariance[1], np.diag(np.exp(2 * q.log_scale[1])), rtol=1e-12)


def test_samples_have_the_moments_of_the_posterior():
    q = DiagonalNormal(*np.float32([[[1.0, -2.0]], np.log([[0.5, 2.0]])]))
    z = np.asarray(jax.jit(lambda q: q.sample_and_log_prob(jax.random.key(0), 200_000)[0])(q), float)
    np.testing.assert_allclose(z.mean((0, 1)), [1, -2], atol=0.02)
    np.testing.assert_allclose(z.std((0, 1)), [0.5, 2.0], rtol=0.01)


def test_scale_of_the_posterior_is_bounded_at_any_output():
    q = jax.jit(diagonal_normal)(np.float32([[0.0, 0.0, -1e6, 1e6]]))
    np.testing.assert_allclose(q.log_scale, [[-10, 10]])


def test_a_gated_layer_is_a_linear_one_times_the_sigmoid_of_another():
    """Against numpy: the encoder of the VampPrior's network (Tomczak & Welling 2018)."""

    def layer(params, number, x):
        return x @ np.asarray(params[f"Dense_{number}"]["kernel"]) + np.asarray(params[f"Dense_{number}"]["bias"])

    settings = Settings((2, 2, 1), network="gated_mlp", hidden_sizes=(3, 4))
    x = np.random.default_rng(0).normal(size=(2, 2, 2, 1)).astype(np.float32)
    encoder: Any = MLPEncoder(settings, 5)
    params = encoder.init(jax.random.key(0), jnp.asarray(x))
    h = x.reshape(2, -1)
    for number in (0, 2):
        h = layer(params["params"], number, h) / (1 + np.exp(-layer(params["params"], number + 1, h)))
    np.testing.assert_allclose(encoder.apply(params, jnp.asarray(x)), layer(params["params"], 4, h), rtol=1e-5)
    convolutions: Any = ConvEncoder(dataclasses.replace(settings, network="gated_conv", channels=(3, 4)), 5)
    shapes = jax.eval_shape(convolutions.init, jax.random.key(0), jnp.asarray(x))["params"]
    assert {name for name in shapes if name.startswith("Conv")} == {f"Conv_{number}" for number in range(4)}
