"""distributions.py and intervals.py against scipy and numpyro, and at the edges of its domain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from vae.models.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Independent,
    Mixture,
    Normal,
    OptimalNormal,
    bernoulli_log_prob,
    bounded,
    continuous_bernoulli_log_prob,
    continuous_bernoulli_mean,
    normal_kl_divergence,
)
from vae.models.intervals import log_ndtr, log_normal_interval, mills_ratio

pytestmark = pytest.mark.usefixtures("float64")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_normal_log_prob_equals_scipy():
    x, loc, log_scale = random(5, seed=1), random(5, seed=2), random(5, seed=3)
    expected = scipy.stats.norm(loc, np.exp(log_scale)).logpdf(x)
    np.testing.assert_allclose(Normal(loc, log_scale).log_prob(x), expected, rtol=1e-12)


def test_fault_a_standard_deviation_is_taken_for_a_variance():
    samples = Normal(jnp.full(200_000, 1.0), jnp.log(jnp.asarray(3.0))).sample(jax.random.key(0))
    assert samples.std() == pytest.approx(3.0, rel=0.01)
    assert samples.mean() == pytest.approx(1.0, abs=0.03)


def test_bernoulli_log_prob_equals_numpyro_on_binary_and_grey_values():
    logits, x = random(100, seed=1) * 5, jnp.asarray(np.random.default_rng(0).uniform(size=100))
    np.testing.assert_allclose(
        Bernoulli(logits).log_prob(jnp.round(x)), dist.Bernoulli(logits=logits).log_prob(jnp.round(x)), rtol=1e-10
    )
    p = scipy.special.expit(logits)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), x * np.log(p) + (1 - x) * np.log1p(-p), rtol=1e-9)


def test_bernoulli_sums_to_one_over_all_images():
    pixels = Bernoulli(random(2, 3, 1) * 3)
    images = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=6))).reshape(-1, 2, 3, 1)
    repeated = Bernoulli(jnp.broadcast_to(pixels.logits, images.shape))
    assert jnp.exp(Independent(repeated).log_prob(images)).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("logit", [-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_fault_bernoulli_is_not_a_number_at_a_large_logit(logit, x):
    logit = jnp.asarray(logit, jnp.float32)
    value, gradient = jax.value_and_grad(bernoulli_log_prob)(logit, jnp.asarray(x, jnp.float32))
    expected = x * -np.logaddexp(0, -float(logit)) + (1 - x) * -np.logaddexp(0, float(logit))
    assert value == pytest.approx(expected, rel=1e-6)
    assert gradient == pytest.approx(x - scipy.special.expit(float(logit)), abs=1e-6)


def test_bernoulli_derivatives_equal_finite_differences_in_both_arguments():
    def log_prob(logits, x):
        return bernoulli_log_prob(jnp.asarray(logits), jnp.asarray(x))

    check_grads(log_prob, (random(4), jnp.asarray([0.0, 0.2, 0.9, 1.0])), order=2)


def test_fault_a_probability_is_softplus_of_the_logit():
    logits = jnp.asarray([-2.0, 0.0, 2.0])
    samples = Bernoulli(jnp.broadcast_to(logits, (100_000, 3))).sample(jax.random.key(0))
    np.testing.assert_allclose(samples.mean(0), scipy.special.expit(logits), atol=0.01)
    np.testing.assert_allclose(Bernoulli(logits).mean, scipy.special.expit(logits), rtol=1e-12)


def test_normal_kl_equals_numpyro():
    q, p = Normal(random(6, seed=1), random(6, seed=2)), Normal(random(6, seed=3), random(6, seed=4))
    expected = dist.kl_divergence(dist.Normal(q.loc, jnp.exp(q.log_scale)), dist.Normal(p.loc, jnp.exp(p.log_scale)))
    np.testing.assert_allclose(normal_kl_divergence(q, p), expected, rtol=1e-10)


def test_fault_kl_added_with_the_wrong_sign():
    q, p = Normal(random(50, seed=1), random(50, seed=2)), Normal(jnp.zeros(50), jnp.zeros(50))
    assert (normal_kl_divergence(q, p) > 0).all()
    assert (normal_kl_divergence(p, p) == 0).all()


def test_independent_sums_over_height_width_and_channels_and_nothing_else():
    pixels = Normal(random(7, 4, 2, 3, 2), random(7, 4, 2, 3, 2, seed=1))
    x = random(7, 4, 2, 3, 2, seed=2)
    np.testing.assert_allclose(Independent(pixels).log_prob(x), pixels.log_prob(x).sum((-3, -2, -1)), rtol=1e-12)
    shared_scale = Normal(pixels.loc, jnp.asarray(0.3))
    expected = scipy.stats.norm(pixels.loc, np.exp(0.3)).logpdf(x).sum((-3, -2, -1))
    np.testing.assert_allclose(Independent(shared_scale).log_prob(x), expected, rtol=1e-12)


def test_bounded_is_the_identity_near_zero_and_never_leaves_its_bound():
    np.testing.assert_allclose(bounded(jnp.asarray([-0.1, 0.0, 0.1])), [-0.1, 0.0, 0.1], rtol=1e-4)
    np.testing.assert_allclose(bounded(jnp.asarray([-1e6, 1e6])), [-10, 10])
    assert jax.grad(bounded)(jnp.asarray(30.0)) > 0


LOGITS = [-1000.0, -2.0, -0.5, -0.499, -1e-9, 0.0, 1e-3, 0.6, 30.0]
GRID = np.arange(256) / 255


def continuous_bernoulli_density(eta):
    """scipy's: an exponential distribution cut off at 1, turned round where the logit is positive."""
    if eta == 0:
        return scipy.stats.uniform()
    return scipy.stats.truncexpon(abs(eta), scale=1 / abs(eta))


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_equals_scipys_truncated_exponential(logit):
    x, oracle = np.linspace(1e-4, 1 - 1e-4, 11), continuous_bernoulli_density(logit)
    p = ContinuousBernoulli(jnp.full(11, logit))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(x)), oracle.logpdf(1 - x if logit > 0 else x), atol=1e-9)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_and_its_mean_is_the_integral(logit):
    def density(x):
        x = jnp.asarray(x)
        return np.exp(continuous_bernoulli_log_prob(jnp.full(x.shape, logit), x))

    # Panels that are shortest where the density changes fastest.
    ends = np.concatenate([[0], np.geomspace(1e-3, 1, 20)])
    panels = [(1 - b, 1 - a) if logit > 0 else (a, b) for a, b in itertools.pairwise(ends)]

    def integral(f):
        return sum(scipy.integrate.fixed_quad(f, a, b, n=20)[0] for a, b in panels)

    assert integral(density) == pytest.approx(1, abs=1e-9)
    mean = integral(lambda x: x * density(x))
    assert continuous_bernoulli_mean(jnp.asarray(logit)) == pytest.approx(mean, abs=1e-9)


def test_normaliser_of_the_continuous_bernoulli_is_2_at_one_half():
    """C(λ) = p(x) / (λ^x (1 − λ)^(1−x)), Loaiza-Ganem & Cunningham (2019)."""
    x = jnp.linspace(0, 1, 5)
    difference = ContinuousBernoulli(jnp.zeros(5)).log_prob(x) - Bernoulli(jnp.zeros(5)).log_prob(x)
    np.testing.assert_allclose(jnp.exp(difference), 2, rtol=1e-12)


def test_continuous_bernoulli_derivatives_equal_finite_differences_in_both_arguments():
    @jax.jit
    def log_prob(logits, x):
        return continuous_bernoulli_log_prob(logits, x)

    logits = jnp.asarray([-3.0, -0.5001, -0.4, 0.0, 0.4999, 8.0])
    check_grads(log_prob, (logits, jnp.asarray([0.0, 0.2, 0.9, 0.4, 0.3, 1.0])), order=2)


@pytest.mark.parametrize("logit", [-40.0, -0.3, 0.0, 1e-4, 0.7, 1e4])
def test_samples_of_the_continuous_bernoulli_follow_its_distribution_function(logit):
    samples = np.asarray(ContinuousBernoulli(jnp.full(20_000, logit)).sample(jax.random.key(0)))
    turned = 1 - samples if logit > 0 else samples
    assert scipy.stats.kstest(turned, continuous_bernoulli_density(logit).cdf).pvalue > 1e-3


def test_discretized_logistic_equals_differences_of_scipys_distribution_function():
    generator = np.random.default_rng(0)
    loc, scale = generator.uniform(-0.2, 1.2, 256), np.exp(generator.uniform(-4, 1, 256))
    upper = np.where(GRID == 1, np.inf, GRID + 0.5 / 255)
    lower = np.where(GRID == 0, -np.inf, GRID - 0.5 / 255)
    logistic = scipy.stats.logistic(loc, scale)
    expected = np.where(loc > GRID, logistic.cdf(upper) - logistic.cdf(lower), logistic.sf(lower) - logistic.sf(upper))
    found = DiscretizedLogistic(jnp.asarray(loc), jnp.log(scale)).log_prob(jnp.asarray(GRID))
    np.testing.assert_allclose(found, np.log(expected), rtol=1e-8)


DISCRETIZED = {
    "logistic": lambda shape: DiscretizedLogistic(0.5 + random(*shape), random(*shape, seed=1) - 2),
    "mixture": lambda shape: Mixture(
        random(3, *shape), DiscretizedLogistic(0.5 + random(3, *shape, seed=1), random(3, *shape, seed=2) - 2)
    ),
    "categorical": lambda shape: Categorical(3 * random(256, *shape)),
}


@pytest.mark.parametrize("name", DISCRETIZED)
def test_discretised_masses_sum_to_one_over_the_256_values(name):
    p = DISCRETIZED[name]((1, 7))
    values = jnp.asarray(GRID)[:, None]
    masses = jnp.exp(jax.jit(lambda p: jax.vmap(lambda x: p.log_prob(x[None])[0])(jnp.tile(values, (1, 7))))(p))
    np.testing.assert_allclose(masses.sum(0), 1, rtol=1e-9)
    np.testing.assert_allclose(p.mean[0], (values * masses).sum(0), rtol=1e-9)


@pytest.mark.parametrize("name", DISCRETIZED)
def test_discretised_samples_lie_on_the_grid_and_have_the_mean(name):
    one = DISCRETIZED[name]((1, 3))
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*leaf.shape[:-2], 5000, 3)), one)
    samples = jax.jit(lambda p: p.sample(jax.random.key(0)))(many)
    np.testing.assert_allclose(255 * samples, np.rint(255 * samples), atol=1e-9)
    assert samples.min() >= 0
    assert samples.max() <= 1
    np.testing.assert_allclose(samples.mean(0), one.mean[0], atol=5 * 0.5 / np.sqrt(5000))


def test_mixture_equals_scipys_logsumexp_of_its_components():
    p, x = DISCRETIZED["mixture"]((256,)), jnp.asarray(GRID)
    terms = jax.nn.log_softmax(p.logits, axis=0) + jnp.stack(
        [DiscretizedLogistic(loc, log_scale).log_prob(x) for loc, log_scale in zip(*p.components, strict=True)]
    )
    np.testing.assert_allclose(p.log_prob(x), scipy.special.logsumexp(terms, axis=0), rtol=1e-10)


def test_categorical_equals_numpyro():
    p = DISCRETIZED["categorical"]((256,))
    expected = dist.Categorical(logits=p.logits.T).log_prob(jnp.arange(256))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(GRID)), expected, rtol=1e-10)


EXTREMES = (-1e4, -100.0, -1.0, 0.0, 1e-40, 1.0, 100.0, 1e4)
ON_RAW = {
    "normal": lambda a, b, x: Normal(a, bounded(b)).log_prob(x),
    "optimal normal": lambda a, b, x: OptimalNormal(a).log_prob(x) + 0 * b,
    "continuous Bernoulli": lambda a, b, x: ContinuousBernoulli(a).log_prob(x) + 0 * b,
    "discretized logistic": lambda a, b, x: DiscretizedLogistic(a, bounded(b)).log_prob(x),
    "mixture": lambda a, b, x: Mixture(
        jnp.stack([a, -a]), DiscretizedLogistic(jnp.stack([a, b]), bounded(jnp.stack([b, a])))
    ).log_prob(x),
    "categorical": lambda a, b, x: Categorical(jnp.linspace(a, b, 256)).log_prob(x),
}


@pytest.mark.parametrize("name", ON_RAW)
def test_every_density_and_its_gradient_are_finite_at_any_raw_output(name):
    """In float32, |raw| to 1e4, at both ends of the values and inside: science A 11."""
    a, b, x = (
        jnp.asarray(values, jnp.float32)
        for values in zip(*itertools.product(EXTREMES, EXTREMES, (0.0, 51 / 255, 1.0)), strict=True)
    )

    @jax.jit
    def value_and_gradient(a, b):
        value, pullback = jax.vjp(lambda a, b: ON_RAW[name](a, b, x), a, b)
        return value, jnp.stack(pullback(jnp.ones_like(value)))

    value, gradient = value_and_gradient(a, b)
    assert value.dtype == jnp.float32
    assert jnp.isfinite(value).all()
    assert jnp.isfinite(gradient).all()


def test_a_mass_is_never_above_one():
    loc, log_scale = (jnp.ravel(a) for a in jnp.meshgrid(jnp.linspace(-1, 2, 31), jnp.linspace(-10, 10, 21)))
    p = DiscretizedLogistic(*(jnp.tile(jnp.asarray(a, jnp.float32), (256, 1)) for a in (loc, log_scale)))
    assert (p.log_prob(jnp.asarray(GRID, jnp.float32)[:, None]) <= 0).all()


def test_gaussian_at_the_optimal_scale_has_nll_d_over_2_times_log_2_pi_mse_plus_1():
    loc, x = random(4, 3, 2, 3, 1, seed=1), random(1, 3, 2, 3, 1, seed=2)
    mse = float(((x - loc) ** 2).mean())
    log_p = Independent(OptimalNormal(loc)).log_prob(x)
    assert log_p.shape == (4, 3)
    assert -log_p.mean() == pytest.approx(6 / 2 * (np.log(2 * np.pi * mse) + 1), rel=1e-12)
    others = [Independent(Normal(loc, jnp.asarray(0.5 * np.log(mse * f)))).log_prob(x).mean() for f in (0.9, 1.1)]
    assert max(others) < log_p.mean()


def test_optimal_scale_may_be_held_in_the_gradient_of_a_mean_log_density():
    """The derivative in σ is 0 at its optimum, so that the gradient is that of −D/2 log MSE (Rybkin et al. 2021)."""
    loc, x = random(4, 3, 2, 3, 1, seed=1), random(1, 3, 2, 3, 1, seed=2)
    held = jax.grad(lambda loc: Independent(OptimalNormal(loc)).log_prob(x).mean())(loc)
    whole = jax.grad(lambda loc: -6 / 2 * jnp.log(((x - loc) ** 2).mean()))(loc)
    np.testing.assert_allclose(held, whole, rtol=1e-10)


def log_masses(p):
    """Of the 256 values, under a distribution of shape [256, n] in float32."""
    x = jnp.asarray(GRID, jnp.float32)[:, None]
    return np.asarray(jax.jit(lambda p: p.log_mass(x))(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), p)), float)


RATES = np.array([-1e4, -1000.0, -50.0, -1.0, -1e-5, 0.0, 1e-3, 3.0, 300.0, 1e4])


def test_continuous_bernoulli_has_the_masses_of_scipys_distribution_function_in_float32():
    """Over cells cut off at 0 and 1, which add up to one: with the density times 1/255 they added up to 4 at ±1000."""
    found = log_masses(ContinuousBernoulli(np.tile(RATES, (256, 1))))
    np.testing.assert_allclose(np.exp(found).sum(0), 1, atol=1e-6)
    ends = np.clip(np.arange(-1, 256) + 0.5, 0, 255) / 255
    for column, rate in zip(found.T, RATES, strict=True):
        oracle = continuous_bernoulli_density(rate)
        masses = np.diff(oracle.cdf(ends)) if abs(rate) < 60 else np.diff(-np.exp(-abs(rate) * ends))
        masses = masses[::-1] if rate > 0 else masses
        sure = masses > 1e-12  # above what the difference of two numbers near one can hold
        np.testing.assert_allclose(column[sure], np.log(masses[sure]), rtol=3e-6, atol=3e-6)
        assert np.isfinite(column).all()
    bits = -found[0] / np.log(2)
    black = -np.log2(-np.expm1(-1000 * 0.5 / 255))  # .22; −1.97 once
    assert bits[1] == pytest.approx(black, abs=1e-5)
    assert (bits >= 0).all()


SCALES = np.exp([-10.0, -7.0, -5.0, -3.94, -3.92, -2.0, 0.0, 4.0, 10.0])  # 0.0196 is where the formula changes
LOCS = np.array([-2.0, 0.0, 0.5 / 255, 0.3, 0.5, 0.9981, 1.0, 1.5])


def test_normal_has_the_masses_of_scipys_distribution_function_in_float32():
    """The first and the last cell are open, so that they add up to one wherever the mean is, and however narrow."""
    loc, scale = (np.ravel(a) for a in np.meshgrid(LOCS, SCALES))
    found = log_masses(Normal(np.tile(loc, (256, 1)), np.tile(np.log(scale), (256, 1))))
    np.testing.assert_allclose(np.exp(found).sum(0), 1, atol=2e-6)
    # The same numbers in float64; from the side where both terms are small.
    loc, scale = np.asarray(loc, np.float32).astype(float), np.exp(np.asarray(np.log(scale), np.float32).astype(float))
    ends = (np.concatenate([[-np.inf], np.arange(255) + 0.5, [np.inf]])[:, None] / 255 - loc) / scale
    lower, upper = ends[:-1], ends[1:]
    turned = lower + upper > 0
    small, large = np.where(turned, -upper, lower), np.where(turned, -lower, upper)
    log_large, log_small = scipy.stats.norm.logcdf(large), scipy.stats.norm.logcdf(small)
    expected = log_large + np.log(-np.expm1(log_small - log_large))
    sure = log_large - log_small > 1e-9 * (1 + np.abs(log_large))
    assert sure.mean() > 0.7
    np.testing.assert_allclose(found[sure], expected[sure], rtol=2e-4, atol=1e-5)
    assert np.isfinite(found).all()


def test_a_normals_mass_is_that_of_legendres_rule_where_scipys_terms_cancel():
    half, center = (
        np.ravel(a).astype(np.float32) for a in np.meshgrid([1e-7, 1e-3, 0.05, 0.0999], np.linspace(0, 40, 81))
    )
    nodes, weights = np.polynomial.legendre.leggauss(60)
    log_density = scipy.stats.norm.logpdf(center[:, None].astype(float) + half[:, None] * nodes)
    expected = scipy.special.logsumexp(log_density, b=weights * half[:, None].astype(float), axis=1)
    found = log_normal_interval(jnp.asarray(center), jnp.asarray(half))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=2e-6)


@pytest.mark.parametrize("half", [1e-10, 1e-3, 0.0999, 0.1001, 1.0, 1e8])
def test_a_normals_mass_and_its_gradient_are_finite_however_far_out(half):
    far = np.concatenate([np.geomspace(1e-40, 1e9, 99), np.linspace(12.9, 13.4, 101)])  # jax's erfcx is 0 near 13.1
    center = jnp.asarray(np.concatenate([-far, [0], far]), jnp.float32)

    @jax.jit
    def value_and_gradient(center, half):
        value, pullback = jax.vjp(log_normal_interval, center, half)
        return value, pullback(jnp.ones_like(value))

    value, gradients = value_and_gradient(center, jnp.full(center.shape, half, jnp.float32))
    assert all(jnp.isfinite(array).all() for array in (value, *gradients))
    assert (value <= 0).all()


def test_mills_ratio_and_log_ndtr_equal_scipy_in_float32():
    y = np.concatenate([np.linspace(0, 40, 2001), np.geomspace(40, 1e9, 50)]).astype(np.float32)
    expected = np.sqrt(np.pi / 2) * scipy.special.erfcx(y.astype(float) / np.sqrt(2))
    np.testing.assert_allclose(mills_ratio(jnp.asarray(y)), expected, rtol=5e-7)
    y = np.concatenate([-y, y])
    np.testing.assert_allclose(log_ndtr(jnp.asarray(y)), scipy.special.log_ndtr(y.astype(float)), rtol=1e-6, atol=1e-8)
