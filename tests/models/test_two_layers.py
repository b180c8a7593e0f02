"""Two stochastic layers: against closed forms of a linear-Gaussian chain, numpyro, and the gradients of each other."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from vae import objectives
from vae.evaluation import importance as evaluation
from vae.models import model as models
from vae.settings import Hyperparameters, Settings

pytestmark = pytest.mark.usefixtures("float64")

# z2 ~ N(0, 1), z1 ~ N(a·z2 + c, s²), x ~ N(w·z1 + b, σ²): networks without hidden layers are linear.
A, C, S, W, B, SIGMA = 0.9, 0.3, 0.6, 1.4, -0.2, 0.5
CHAIN = Settings(
    (1, 1, 1),
    hidden_sizes=(),
    latent_dim=1,
    upper_latent_dim=1,
    upper_hidden_sizes=(),
    likelihood="normal",
    scale=SIGMA,
)
X = np.array([-0.7, 0.4, 1.5])


def linear(slope, intercept, scale):
    """The parameters of a linear network whose outputs are a mean and a constant, unbounded log-scale."""
    raw_log_scale = 10 * np.arctanh(np.log(scale) / 10)
    return {"kernel": jnp.asarray([[slope, 0.0]]), "bias": jnp.asarray([intercept, raw_log_scale])}


def exact_params():
    """The chain, with its exact posterior q(z1|x) q(z2|z1)."""
    variance_1 = 1 / (1 / (A**2 + S**2) + W**2 / SIGMA**2)
    variance_2 = 1 / (1 + A**2 / S**2)
    slope_1, slope_2 = variance_1 * W / SIGMA**2, variance_2 * A / S**2
    return {
        "encoder": {
            "Dense_0": linear(slope_1, variance_1 * C / (A**2 + S**2) - slope_1 * B, variance_1**0.5),
            "upper": {"Dense_0": linear(slope_2, -slope_2 * C, variance_2**0.5)},
        },
        "decoder": {
            "network": {"Dense_0": {"kernel": jnp.asarray([[W]])}},
            "output": {"bias": jnp.full((1, 1, 1), B)},
        },
        "prior": {"lower": {"Dense_0": linear(A, C, S)}},
    }


def log_p(x):
    return scipy.stats.norm(B + W * C, np.sqrt(W**2 * (A**2 + S**2) + SIGMA**2)).logpdf(x)


def batch_of(x):
    return models.Batch(jnp.asarray(x)[:, None, None, None])


def test_with_the_exact_posterior_every_weight_is_the_likelihood():
    model, params, batch = models.build(CHAIN), exact_params(), batch_of(X)
    assert jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0), batch)) == jax.tree.structure(params)

    @jax.jit
    def log_weights(params):
        return models.weigh(jax.random.key(0), params, model, model.posterior(params, batch), batch, 5).log_w

    np.testing.assert_allclose(log_weights(params), np.tile(log_p(X), (5, 1)), atol=1e-10)


def test_the_evaluation_of_a_model_with_two_layers_is_its_likelihood():
    result = evaluation.evaluate(
        jax.random.key(0), exact_params(), X[:, None, None, None], model=models.build(CHAIN), num_samples=30
    )
    np.testing.assert_allclose(result.log_likelihood[30], log_p(X), atol=1e-10)
    variance_1 = 1 / (1 / (A**2 + S**2) + W**2 / SIGMA**2)
    expected = variance_1 * (C / (A**2 + S**2) + W * (X - B) / SIGMA**2)
    np.testing.assert_allclose(result.posterior_means[0][:, :, 0], np.stack([expected, expected], 1), atol=1e-10)
    assert result.kl_per_dimension is None


def test_free_bits_and_the_balance_of_a_warmup_weigh_the_layers_by_their_own_kls():
    """λ lies between them. At the end of the warm-up no layer is weighed."""
    model, params, batch, key = models.build(CHAIN), exact_params(), batch_of(X), jax.random.key(0)
    params["encoder"] = jax.tree.map(lambda leaf: leaf + 0.2, params["encoder"])
    free_bits = objectives.build(Settings((1, 1, 1), objective="free_bits", free_bits_group_size=0, num_samples=4))
    warmup = objectives.build(Settings((1, 1, 1), objective="warmup", warmup_balance=True, num_samples=4))

    @jax.jit
    def found(key, free_nats, step):
        weighted = models.weigh(jax.random.clone(key), params, model, model.posterior(params, batch), batch, 4)
        numbers = Hyperparameters(free_nats=free_nats, warmup_steps=8.0)
        bounds = (one.apply(jax.random.clone(key), params, model, batch, numbers, step) for one in (free_bits, warmup))
        return weighted.log_p_x_given_z, weighted.log_q_over_p, [(bound, metrics) for _, bound, metrics in bounds]

    log_p_x_given_z, log_q_over_p, _ = found(key, 0.0, 0)
    reconstruction, kl = log_p_x_given_z.mean(0), np.stack([log_ratio.mean(0) for log_ratio in log_q_over_p])
    free_nats = kl.mean(1).mean()
    gamma = np.abs(kl).mean(1, keepdims=True) + 0.01
    for step, weights in ((2, 0.25 * gamma / gamma.mean()), (8, 1.0)):
        _, _, [(bits, of_bits), (balanced, of_balance)] = found(key, free_nats, step)
        free = np.maximum(kl.mean(1), free_nats).sum()
        np.testing.assert_allclose(bits, reconstruction - free, rtol=1e-10)
        np.testing.assert_allclose(balanced, reconstruction - (weights * kl).sum(0), rtol=1e-10)
        np.testing.assert_allclose([of_balance["kl_1"], of_balance["kl_2"]], kl, rtol=1e-10)
        for metrics in (of_bits, of_balance):
            np.testing.assert_allclose(metrics["kl"], kl.sum(0), rtol=1e-10)


@cache
def gradients_of_both(name, estimator, shift, num_draws):
    """The gradients in each parameter of q's and of p's two layers, of each of `num_draws` estimates with K = 4."""
    model, params = models.build(CHAIN), exact_params()
    params["encoder"] = jax.tree.map(lambda leaf: leaf + shift, params["encoder"])
    settings = dataclasses.replace(CHAIN, objective=name, estimator=estimator, num_samples=4)
    objective, layers = objectives.build(settings), {group: params[group] for group in ("encoder", "prior")}

    def gradient(key):
        def surrogate(layers):
            return objective.apply(key, params | layers, model, batch_of(X[:1]), Hyperparameters(), 0)[0]

        found = jax.grad(surrogate)(layers)
        return [jax.flatten_util.ravel_pytree(found[group])[0] for group in layers]

    return jax.device_get(jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(0), num_draws)))


def gradients(*about):
    """Of q."""
    return gradients_of_both(*about)[0]


# A bound sees log-weights alone, however many layers there are.
OF_BOUNDS = pytest.mark.parametrize("name", ["iwae", pytest.param("elbo_mc", marks=pytest.mark.soak)])


@OF_BOUNDS
@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_both_encoders_gradients_are_exactly_zero_where_q_is_the_posterior(name, estimator):
    np.testing.assert_allclose(gradients(name, estimator, 0.0, 100), 0, atol=1e-10)


@OF_BOUNDS
@pytest.mark.parametrize("estimator", ["dreg", "score"])
def test_all_encoder_gradients_of_two_layers_have_the_same_mean(name, estimator):
    plain, other = gradients(name, "reparameterized", 0.4, 50_000), gradients(name, estimator, 0.4, 50_000)
    error = np.sqrt(plain.var(0) / len(plain) + other.var(0) / len(other))
    z_scores = np.abs(plain.mean(0) - other.mean(0)) / error
    assert z_scores.shape == (8,)
    assert (z_scores < 4.5).all(), z_scores


def test_the_doubly_reparameterized_gradients_of_two_layers_are_several_times_less_noisy():
    plain, doubly = gradients("iwae", "reparameterized", 0.4, 50_000), gradients("iwae", "dreg", 0.4, 50_000)
    ratio = plain.std(0) / doubly.std(0)
    assert (ratio > 4).all(), ratio


def test_dreg_of_two_layers_is_that_of_bauer_and_mnih():
    """Σ_k w̃_k² ∂log w_k/∂(z1, z2) · ∂(z1, z2)/∂φ, draw by draw in numpy.

    In log w all of q's parameters are held. What z1 does to z2 and to log q(z2|z1) is not.
    """
    shift, x, noise = 0.4, X[0], []
    for key in jax.random.split(jax.random.key(0), 20):
        noise.append([jax.random.normal(layer, (4, 1, 1))[:, 0, 0] for layer in jax.random.split(key)])
    noise_1, noise_2 = np.moveaxis(np.asarray(noise), 1, 0)
    lower, upper = exact_params()["encoder"]["Dense_0"], exact_params()["encoder"]["upper"]["Dense_0"]
    (slope_1, slope_2), (raw_1, raw_2) = zip(*(one["kernel"][0] + shift for one in (lower, upper)), strict=True)
    (bias_1, bias_2), (bias_raw_1, bias_raw_2) = zip(*(one["bias"] + shift for one in (lower, upper)), strict=True)
    scale_1 = np.exp(10 * np.tanh((raw_1 * x + bias_raw_1) / 10))
    z1 = slope_1 * x + bias_1 + scale_1 * noise_1
    angle = np.tanh((raw_2 * z1 + bias_raw_2) / 10)
    scale_2 = np.exp(10 * angle)
    z2 = slope_2 * z1 + bias_2 + scale_2 * noise_2
    log_w = scipy.stats.norm(W * z1 + B, SIGMA).logpdf(x) + scipy.stats.norm(A * z2 + C, S).logpdf(z1)
    log_w += (
        scipy.stats.norm.logpdf(z2) + noise_1**2 / 2 + noise_2**2 / 2 + np.log(scale_1 * scale_2) + np.log(2 * np.pi)
    )
    by_scale = raw_2 * (1 - angle**2)  # ∂log σ2/∂z1
    of_q = by_scale - noise_2 * slope_2 / scale_2 - noise_2**2 * by_scale  # −∂log q(z2|z1)/∂z1 at a fixed z2
    slope_of_1 = W * (x - B - W * z1) / SIGMA**2 - (z1 - A * z2 - C) / S**2 + noise_1 / scale_1 + of_q
    slope_of_2 = -z2 + A * (z1 - A * z2 - C) / S**2 + noise_2 / scale_2
    moved_2 = slope_2 + scale_2 * by_scale * noise_2  # ∂z2/∂z1
    w = np.exp(log_w - log_w.max(1, keepdims=True))
    squared = (w / w.sum(1, keepdims=True)) ** 2
    through_both = slope_of_1 + slope_of_2 * moved_2
    # Leaves are in the order of their names: of the lower and then of the upper network, bias and kernel.
    expected = {0: through_both, 2: through_both * x, 4: slope_of_2, 6: slope_of_2 * z1}
    found = gradients("iwae", "dreg", shift, 20)
    for column, slope in expected.items():
        np.testing.assert_allclose(found[:, column], (squared * slope).sum(1), rtol=1e-8)


def test_the_gradient_of_the_prior_through_its_samples_is_unbiased_and_that_of_q_is_dregs():
    """GDReG (Bauer & Mnih 2021), of p(z1|z2)."""
    (q, plain), (same_q, through) = (
        gradients_of_both("iwae", estimator, 0.4, 50_000) for estimator in ("dreg", "gdreg")
    )
    np.testing.assert_allclose(same_q, q, rtol=1e-9)
    difference = plain - through
    assert difference.shape == (50_000, 4)
    assert (difference.std(0) > 0.1).all()
    assert (np.abs(difference.mean(0)) < 4.5 * difference.std(0) / np.sqrt(len(difference))).all()


def test_gdreg_is_refused_where_the_prior_has_no_samples_that_move():
    with pytest.raises(objectives.ObjectiveError, match="which prior mixture cannot; use dreg, `prior=flow`, or two"):
        objectives.build(Settings((1, 1, 1), objective="iwae", estimator="gdreg", prior="mixture"))


def mlp(params, z):
    """Two tanh layers, then a linear one, by numpy: means and log-scales."""
    for layer in ("Dense_0", "Dense_1"):
        z = np.tanh(np.asarray(z) @ np.asarray(params[layer]["kernel"]) + np.asarray(params[layer]["bias"]))
    loc, raw = np.split(z @ np.asarray(params["Dense_2"]["kernel"]) + np.asarray(params["Dense_2"]["bias"]), 2, -1)
    return loc, np.exp(10 * np.tanh(raw / 10))


def test_the_densities_of_both_layers_equal_numpyros():
    settings = Settings((2, 3, 1), hidden_sizes=(5, 4), latent_dim=3, upper_latent_dim=2, upper_hidden_sizes=(6, 7))
    model, batch = models.build(settings), models.Batch(jax.random.uniform(jax.random.key(0), (4, 2, 3, 1)))
    params = jax.tree.map(
        lambda leaf: leaf + np.float32(0.1 * np.cos(np.arange(leaf.size)).reshape(leaf.shape)),
        jax.device_get(jax.jit(model.init)(jax.random.key(1), batch)),
    )

    @jax.jit
    def sample_and_score(params):
        z, log_q = model.posterior(params, batch).sample_and_log_prob(jax.random.key(2), 6)
        return z, log_q, model.prior(params).log_prob(z)

    (z1, z2), log_q, log_p = sample_and_score(params)
    assert (z1.shape, z2.shape) == ((6, 4, 3), (6, 4, 2))
    pairs = {
        "q(z1|x)": (mlp(params["encoder"], np.asarray(batch.x).reshape(4, 6)), z1, log_q[0]),
        "q(z2|z1)": (mlp(params["encoder"]["upper"], z1), z2, log_q[1]),
        "p(z1|z2)": (mlp(params["prior"]["lower"], z2), z1, log_p[0]),
        "p(z2)": ((np.zeros(2), np.ones(2)), z2, log_p[1]),
    }
    for name, (normal, z, found) in pairs.items():
        with jax.numpy_rank_promotion("allow"):
            expected = jax.jit(lambda normal, z: dist.Normal(*normal).to_event(1).log_prob(z))(normal, z)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
    assert params["encoder"]["upper"]["Dense_0"]["kernel"].shape == (3, 6)
    assert params["prior"]["lower"]["Dense_0"]["kernel"].shape == (2, 7)


def test_the_prior_is_sampled_from_the_top():
    """z1 = a·z2 + c + s·ε: its moments and its covariance with z2 are known."""
    p = models.build(CHAIN).prior(exact_params())
    (z1, z2), log_p = jax.jit(lambda: p.sample_and_log_prob(jax.random.key(0), 100_000))()
    assert z1.shape == z2.shape == (100_000, 1, 1)
    assert [layer.shape for layer in log_p] == [(100_000, 1)] * 2
    found = np.cov(z1[:, 0, 0], z2[:, 0, 0])
    np.testing.assert_allclose(found, [[A**2 + S**2, A], [A, 1]], atol=0.02)
    assert float(z1.mean()) == pytest.approx(C, abs=0.02)


def test_only_the_first_layer_reaches_x_and_it_may_be_given_alone():
    model, params = models.build(CHAIN), exact_params()
    z1, z2 = jnp.ones((2, 3, 1)), jnp.zeros((2, 3, 1))
    mean = jax.jit(lambda z: model.likelihood(params, z).mean)
    np.testing.assert_array_equal(mean((z1, z2)), mean(z1))
