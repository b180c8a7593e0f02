"""estimators.py: which gradients are unbiased, which are exact, and how their noise changes with K."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.marks import soaked
from vae import objectives
from vae.models.model import Batch, Model
from vae.models.normals import DiagonalNormal
from vae.objectives.estimators import diagonal_of_hessian
from vae.objectives.table import BOUNDS, OBJECTIVES
from vae.settings import Hyperparameters, Settings

pytestmark = pytest.mark.usefixtures("float64")

SMOOTH = [name for name in BOUNDS if name not in ("vr_max", "piwae")]


class Constant:
    """A likelihood that says nothing, so that log w = log p(z) − log q(z)."""

    def __init__(self, z):
        self.z = z

    def log_prob(self, x):
        del x
        return jnp.zeros(self.z.shape[:-1])


def pair(prior_loc=0.0, prior_scale=1.0):
    """q = N(loc, exp(log_scale)²) and p(z) = N(prior_loc + shift, prior_scale²), one-dimensional; log p(x) = 0.

    With parameters for each example, [B, 1], the examples of a batch are independent estimates.
    """

    def prior(params, y=None):
        del y
        loc = jnp.full((1, 1), prior_loc) + params["decoder"]["shift"]
        return DiagonalNormal(loc, jnp.full((1, 1), jnp.log(prior_scale)))

    def posterior(params, batch):
        return DiagonalNormal(
            *(jnp.broadcast_to(params["encoder"][n], (len(batch.x), 1)) for n in ("loc", "log_scale"))
        )

    return Model(lambda key, batch: {}, posterior, prior, lambda params, z, y=None: Constant(z))


def params_at(loc, scale, shape=()):
    loc, log_scale, shift = (jnp.full(shape, value) for value in (loc, jnp.log(scale), 0.0))
    return {"encoder": {"loc": loc, "log_scale": log_scale}, "decoder": {"shift": shift}}


@cache
def compiled(name, estimator, num_samples, num_draws, model, options):
    """The gradients as a function of the key and of all that is the same for each estimate."""
    groups = 2 if OBJECTIVES[name].grouped else 1
    about = {"objective": name, "estimator": estimator, "num_samples": num_samples, "num_groups": groups}
    numbers = {option: value for option, value in options if option in Hyperparameters._fields}
    settings = Settings((1, 1, 1), **about, **{option: value for option, value in options if option not in numbers})
    objective, batch = objectives.build(settings), Batch(jnp.zeros((num_draws, 1, 1, 1)))
    hyperparameters = Hyperparameters(**numbers)

    @jax.jit
    def found(key, loc, scale, prior_loc, prior_scale):
        def surrogate(params):
            value, *_ = objective.apply(key, params, model(prior_loc, prior_scale), batch, hyperparameters, 0)
            return num_draws * value  # a mean over the batch

        g = jax.grad(surrogate)(params_at(loc, scale, (num_draws, 1)))
        return jnp.concatenate([g["encoder"]["loc"], g["encoder"]["log_scale"], g["decoder"]["shift"]], axis=1)

    return found


NUM_DRAWS = 40_000
FEW = 1_000  # for what holds of each draw


def gradients(
    name, estimator, num_samples, loc=0.2, scale=1.1, num_draws=NUM_DRAWS, seed=0, prior=(0.0, 1.0), model=pair,
    **options,
):  # fmt: skip
    """The gradient in (loc, log_scale, shift) of each of `num_draws` independent estimates: [N, 3]."""
    found = compiled(name, estimator, num_samples, num_draws, model, tuple(options.items()))
    return np.asarray(found(jax.random.key(seed), loc, scale, *prior))


@cache
def noise_of(num_samples):
    """ε of the samples z = loc + scale·ε of `gradients` with the seed 0: [N, K]."""
    return np.asarray(jax.random.normal(jax.random.key(0), (num_samples, NUM_DRAWS, 1)))[:, :, 0].T


@cache
def reference(name):
    return gradients(name, "reparameterized", 4, seed=1)


def z_scores(a, b):
    """Of the difference of two means, column by column."""
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    return np.abs(a.mean(0) - b.mean(0)) / np.maximum(error, 1e-12)


# With IWAE, ovis is in test_control_variates.py.
@pytest.mark.parametrize("estimator", soaked(["dreg", "score", "ovis"], "ovis"))
@pytest.mark.parametrize(
    "name",
    # Jackknives take their derivatives as the others do, and longer; their gradients are in test_bounds.py. CIWAE is a
    # weighted sum of two that are here.
    soaked(SMOOTH, "jackknife_1", "jackknife_2", "ciwae"),
)
def test_unbiased_estimators_have_the_mean_of_the_reparameterized_gradient_for_every_smooth_bound(name, estimator):
    assert (z_scores(gradients(name, estimator, 4), reference(name)) < 4.5).all()


def test_dreg_of_one_sample_is_sticking_the_landing():
    stl, dreg = (gradients("iwae", estimator, 1, num_draws=FEW) for estimator in ("stl", "dreg"))
    np.testing.assert_allclose(stl, dreg, atol=1e-12)


def test_dreg_of_a_linear_bound_is_sticking_the_landing():
    stl, dreg = (gradients("elbo_mc", estimator, 4) for estimator in ("stl", "dreg"))
    np.testing.assert_allclose(stl, dreg, atol=1e-12)


@pytest.mark.parametrize("name", ["elbo_mc", "iwae", "renyi", "miwae"])
@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_the_encoders_gradient_is_exactly_zero_where_q_is_the_posterior(name, estimator):
    g = gradients(name, estimator, 4, loc=0.0, scale=1.0)
    np.testing.assert_allclose(g[:, :2], 0, atol=1e-12)
    assert np.abs(gradients(name, "reparameterized", 4, loc=0.0, scale=1.0)[:, 0]).max() > 0.1


def test_sticking_the_landing_is_biased_for_more_than_one_sample():
    """q = N(−3, 1), p = N(2, 3²), K = 10: mean gradient in q's mean +1.154, where the true one is +0.480."""
    found = {
        estimator: gradients("iwae", estimator, 10, loc=-3.0, scale=1.0, num_draws=100_000, prior=(2.0, 3.0))[:, 0]
        for estimator in ("stl", "dreg", "reparameterized")
    }
    assert found["stl"].mean() == pytest.approx(1.154, abs=0.01)
    assert found["dreg"].mean() == pytest.approx(0.480, abs=0.01)
    assert found["reparameterized"].mean() == pytest.approx(0.480, abs=0.02)


@pytest.mark.parametrize(("name", "num_samples"), [("elbo_mc", 10), ("miwae", 1), ("piwae", 1)])
def test_sticking_the_landing_is_unbiased_for_a_bound_that_is_linear_in_log_w(name, num_samples):
    """The case above, where it is biased for IWAE by .67; the mean gradient in q's mean is that of the KL, 5/9."""
    stl = gradients(name, "stl", num_samples, loc=-3.0, scale=1.0, prior=(2.0, 3.0))
    assert (np.abs(stl[:, :2].mean(0) - [5 / 9, 1 - 1 / 9]) < 4.5 * stl[:, :2].std(0) / len(stl) ** 0.5).all()
    assert (z_scores(stl, gradients(name, "reparameterized", num_samples, -3.0, 1.0, prior=(2.0, 3.0))) < 4.5).all()


def test_sticking_the_landing_of_the_largest_weight_is_that_of_its_sample():
    """No derivative of a maximum is needed: the path of the sample that is largest, ∂log w/∂z ∂z/∂(loc, log σ)."""
    loc, scale = 0.2, 1.1
    g, noise = gradients("vr_max", "stl", 4, loc, scale), noise_of(4)
    z = loc + scale * noise
    largest = (-0.5 * z**2 + 0.5 * noise**2).argmax(1)
    z, noise = (np.take_along_axis(a, largest[:, None], 1)[:, 0] for a in (z, noise))
    slope = -z + noise / scale
    np.testing.assert_allclose(g, np.stack([slope, slope * scale * noise, z], axis=1), rtol=1e-9)


def signal_to_noise(estimator, num_samples, num_parts):
    # Some at a time: all second derivatives of 64 samples are many numbers.
    parts = [gradients("iwae", estimator, num_samples, num_draws=2_000, seed=seed)[:, 0] for seed in range(num_parts)]
    g = np.concatenate(parts)
    return abs(g.mean()) / g.std()


def test_the_encoders_signal_to_noise_ratio_falls_with_k_for_iwae_and_grows_with_dreg():
    """Rainforth et al. (2018) and Tucker et al. (2018); reported .177 → .020 and 1.04 → 7.23 for K = 1 → 64."""
    plain = [signal_to_noise("reparameterized", k, 10) for k in (1, 8, 64)]
    doubly = [signal_to_noise("dreg", k, 4) for k in (1, 8, 64)]
    assert plain[0] > 1.5 * plain[1] > 1.5 * 1.5 * plain[2]
    assert doubly[2] > 1.5 * doubly[1] > 1.5 * 1.5 * doubly[0]
    assert plain[0] == pytest.approx(0.177, abs=0.02)
    assert doubly[2] == pytest.approx(7.23, rel=0.05)  # 7.94 with the weights of sticking the landing


def test_the_score_estimator_is_the_noisiest_and_reparameterisation_is_why_it_is_not_needed():
    score, plain = (gradients("iwae", estimator, 4)[:, 0].std() for estimator in ("score", "dreg"))
    assert score > 3 * plain


@pytest.mark.parametrize("estimator", ["reparameterized", "dreg"])
def test_piwae_trains_the_decoder_as_iwae_and_the_encoder_as_miwae(estimator):
    """With M = 2 groups of K = 3: M ≠ K, so that a swap shows."""
    piwae = gradients("piwae", estimator, 3, num_draws=FEW)
    iwae = gradients("iwae", "reparameterized", 6, num_draws=FEW)
    miwae = gradients("miwae", estimator, 3, num_draws=FEW)
    np.testing.assert_allclose(piwae[:, 2], iwae[:, 2], atol=1e-10)
    np.testing.assert_allclose(piwae[:, :2], miwae[:, :2], atol=1e-10)


def with_the_encoders_loc(*of_prior):
    """The same with the prior N(loc + 0.5, 1)."""

    def prior(params, y=None):
        del y
        loc = params["encoder"]["loc"] + 0.5
        return DiagonalNormal(loc, jnp.zeros_like(loc))

    return pair(*of_prior)._replace(prior=prior)


def with_its_prior_held(*of_prior):
    model = with_the_encoders_loc(*of_prior)
    return model._replace(prior=lambda params, y=None: model.prior(jax.lax.stop_gradient(params)))


def with_its_posterior_held(*of_prior):
    model = with_the_encoders_loc(*of_prior)
    return model._replace(posterior=lambda params, batch: model.posterior(jax.lax.stop_gradient(params), batch))


@pytest.mark.parametrize("estimator", ["reparameterized", "stl", "dreg"])
def test_a_prior_that_shares_the_encoders_weights_is_trained_by_both_bounds_of_piwae_each_where_it_is_used(estimator):
    """As Vamp's prior, N(loc + 0.5, 1) here: to the bound for the decoder it is a prior, and to MIWAE it is constant.

    So the gradient in loc is MIWAE's with the prior's loc held, and that of IWAE through the prior alone. A prior
    that is told from the encoder by the names of its parameters would be held, or trained, in both.
    """
    found = gradients("piwae", estimator, 3, model=with_the_encoders_loc, num_draws=FEW)
    encoders = gradients("miwae", estimator, 3, model=with_its_prior_held, num_draws=FEW)
    decoders = gradients("iwae", "reparameterized", 6, model=with_its_posterior_held, num_draws=FEW)
    np.testing.assert_allclose(found, encoders + decoders, atol=1e-10)
    assert np.abs(decoders[:, 0]).max() > 0.1
    assert np.abs(encoders[:, 0]).max() > 0.1


def test_the_diagonal_of_the_hessian_of_iwae_is_known():
    log_w = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    found = jax.jit(lambda log_w: diagonal_of_hessian(BOUNDS["iwae"].function, log_w))(log_w)
    w = scipy.special.softmax(log_w, axis=0)
    np.testing.assert_allclose(found, w - w**2, rtol=1e-10)


def test_dreg_of_iwae_weighs_the_samples_paths_by_squared_weights():
    """Against the estimator as Tucker et al. (2018) write it: Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂loc."""
    loc, scale = 0.2, 1.1
    g, noise = gradients("iwae", "dreg", 4, loc, scale)[:, 0], noise_of(4)
    z = loc + scale * noise
    log_w = scipy.stats.norm.logpdf(z) - scipy.stats.norm.logpdf(z, loc, scale)
    weights = scipy.special.softmax(log_w, axis=1)
    slope = -z + noise / scale
    np.testing.assert_allclose(g, (weights**2 * slope).sum(1), rtol=1e-8, atol=1e-12)
