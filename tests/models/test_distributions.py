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


log_prob, kl_divergence = jax.jit(lambda p, x: p.log_prob(x)), jax.jit(normal_kl_divergence)
mean, sample = jax.jit(lambda p: p.mean), jax.jit(lambda p: p.sample(jax.random.key(0)))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_normal_log_prob_equals_scipy():
    x, loc, log_scale = random(5, seed=1), random(5, seed=2), random(5, seed=3)
    expected = scipy.stats.norm(loc, np.exp(log_scale)).logpdf(x)
    np.testing.assert_allclose(log_prob(Normal(loc, log_scale), x), expected, rtol=1e-12)


def test_fault_a_standard_deviation_is_taken_for_a_variance():
    samples = np.asarray(sample(Normal(np.full(200_000, 1.0), np.log(3.0))))
    assert samples.std() == pytest.approx(3.0, rel=0.01)
    assert samples.mean() == pytest.approx(1.0, abs=0.03)


def test_bernoulli_log_prob_equals_numpyro_on_binary_and_grey_values():
    logits, x = random(100, seed=1) * 5, np.random.default_rng(0).uniform(size=100)
    expected = jax.jit(lambda logits, x: dist.Bernoulli(logits=logits).log_prob(x))(logits, np.round(x))
    np.testing.assert_allclose(log_prob(Bernoulli(logits), np.round(x)), expected, rtol=1e-10)
    p = scipy.special.expit(logits)
    np.testing.assert_allclose(log_prob(Bernoulli(logits), x), x * np.log(p) + (1 - x) * np.log1p(-p), rtol=1e-9)


def test_bernoulli_sums_to_one_over_all_images():
    pixels = Bernoulli(random(2, 3, 1) * 3)
    images = np.asarray(list(itertools.product([0.0, 1.0], repeat=6))).reshape(-1, 2, 3, 1)
    repeated = Bernoulli(np.broadcast_to(pixels.logits, images.shape))
    assert np.exp(log_prob(Independent(repeated), images)).sum() == pytest.approx(1.0, abs=1e-12)


bernoulli_value_and_gradient = jax.jit(jax.value_and_grad(bernoulli_log_prob))


@pytest.mark.parametrize("logit", [-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_fault_bernoulli_is_not_a_number_at_a_large_logit(logit, x):
    value, gradient = bernoulli_value_and_gradient(np.float32(logit), np.float32(x))
    expected = x * -np.logaddexp(0, -float(logit)) + (1 - x) * -np.logaddexp(0, float(logit))
    assert value == pytest.approx(expected, rel=1e-6)
    assert gradient == pytest.approx(x - scipy.special.expit(float(logit)), abs=1e-6)


def test_bernoulli_derivatives_equal_finite_differences_in_both_arguments():
    log_prob = jax.jit(lambda logits, x: bernoulli_log_prob(logits, x))
    check_grads(log_prob, (random(4), np.asarray([0.0, 0.2, 0.9, 1.0])), order=2)


def test_fault_a_probability_is_softplus_of_the_logit():
    logits = np.asarray([-2.0, 0.0, 2.0])
    samples = np.asarray(sample(Bernoulli(np.broadcast_to(logits, (100_000, 3)))))
    np.testing.assert_allclose(samples.mean(0), scipy.special.expit(logits), atol=0.01)
    np.testing.assert_allclose(mean(Bernoulli(logits)), scipy.special.expit(logits), rtol=1e-12)


def test_normal_kl_equals_numpyro():
    q, p = Normal(random(6, seed=1), random(6, seed=2)), Normal(random(6, seed=3), random(6, seed=4))

    @jax.jit
    def expected(q, p):
        return dist.kl_divergence(*(dist.Normal(n.loc, jnp.exp(n.log_scale)) for n in (q, p)))

    np.testing.assert_allclose(kl_divergence(q, p), expected(q, p), rtol=1e-10)


def test_fault_kl_added_with_the_wrong_sign():
    q, p = Normal(random(50, seed=1), random(50, seed=2)), Normal(np.zeros(50), np.zeros(50))
    assert (np.asarray(kl_divergence(q, p)) > 0).all()
    assert (np.asarray(kl_divergence(p, p)) == 0).all()


def test_independent_sums_over_height_width_and_channels_and_nothing_else():
    pixels = Normal(random(7, 4, 2, 3, 2), random(7, 4, 2, 3, 2, seed=1))
    x = random(7, 4, 2, 3, 2, seed=2)
    each = np.asarray(log_prob(pixels, x))
    np.testing.assert_allclose(log_prob(Independent(pixels), x), each.sum((-3, -2, -1)), rtol=1e-12)
    shared_scale = Normal(pixels.loc, np.asarray(0.3))
    expected = scipy.stats.norm(pixels.loc, np.exp(0.3)).logpdf(x).sum((-3, -2, -1))
    np.testing.assert_allclose(log_prob(Independent(shared_scale), x), expected, rtol=1e-12)


def test_bounded_is_the_identity_near_zero_and_never_leaves_its_bound():
    found = jax.jit(bounded)(np.asarray([-0.1, 0.0, 0.1, -1e6, 1e6]))
    np.testing.assert_allclose(found, [-0.1, 0.0, 0.1, -10, 10], rtol=1e-4)
    np.testing.assert_allclose(found[3:], [-10, 10])
    assert jax.jit(jax.grad(bounded))(30.0) > 0


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
    p = ContinuousBernoulli(np.full(11, logit))
    np.testing.assert_allclose(log_prob(p, x), oracle.logpdf(1 - x if logit > 0 else x), atol=1e-9)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_and_its_mean_is_the_integral(logit):
    def density(x):
        return np.exp(log_prob(ContinuousBernoulli(np.full(x.shape, logit)), x))

    # Panels that are shortest where the density changes fastest.
    ends = np.concatenate([[0], np.geomspace(1e-3, 1, 20)])
    panels = [(1 - b, 1 - a) if logit > 0 else (a, b) for a, b in itertools.pairwise(ends)]

    def integral(f):
        return sum(scipy.integrate.fixed_quad(f, a, b, n=20)[0] for a, b in panels)

    assert integral(density) == pytest.approx(1, abs=1e-9)
    found = jax.jit(continuous_bernoulli_mean)(np.asarray(logit))
    assert found == pytest.approx(integral(lambda x: x * density(x)), abs=1e-9)


def test_normaliser_of_the_continuous_bernoulli_is_2_at_one_half():
    """C(λ) = p(x) / (λ^x (1 − λ)^(1−x)), Loaiza-Ganem & Cunningham (2019)."""
    x = np.linspace(0, 1, 5)
    one, other = (np.asarray(log_prob(p(np.zeros(5)), x)) for p in (ContinuousBernoulli, Bernoulli))
    np.testing.assert_allclose(np.exp(one - other), 2, rtol=1e-12)


def test_continuous_bernoulli_derivatives_equal_finite_differences_in_both_arguments():
    @jax.jit
    def log_prob(logits, x):
        return continuous_bernoulli_log_prob(logits, x)

    logits = np.asarray([-3.0, -0.5001, -0.4, 0.0, 0.4999, 8.0])
    check_grads(log_prob, (logits, np.asarray([0.0, 0.2, 0.9, 0.4, 0.3, 1.0])), order=2)


@pytest.mark.parametrize("logit", [-40.0, -0.3, 0.0, 1e-4, 0.7, 1e4])
def test_samples_of_the_continuous_bernoulli_follow_its_distribution_function(logit):
    samples = np.asarray(sample(ContinuousBernoulli(np.full(20_000, logit))))
    turned = 1 - samples if logit > 0 else samples
    assert scipy.stats.kstest(turned, continuous_bernoulli_density(logit).cdf).pvalue > 1e-3


def test_discretized_logistic_equals_differences_of_scipys_distribution_function():
    generator = np.random.default_rng(0)
    loc, scale = generator.uniform(-0.2, 1.2, 256), np.exp(generator.uniform(-4, 1, 256))
    upper = np.where(GRID == 1, np.inf, GRID + 0.5 / 255)
    lower = np.where(GRID == 0, -np.inf, GRID - 0.5 / 255)
    logistic = scipy.stats.logistic(loc, scale)
    expected = np.where(loc > GRID, logistic.cdf(upper) - logistic.cdf(lower), logistic.sf(lower) - logistic.sf(upper))
    found = log_prob(DiscretizedLogistic(loc, np.log(scale)), GRID)
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
    values = GRID[:, None]
    log_masses = jax.jit(lambda p, values: jax.vmap(lambda x: p.log_prob(x[None])[0])(values))
    masses = np.exp(log_masses(p, np.tile(values, (1, 7))))
    np.testing.assert_allclose(masses.sum(0), 1, rtol=1e-9)
    np.testing.assert_allclose(mean(p)[0], (values * masses).sum(0), rtol=1e-9)


@pytest.mark.parametrize("name", DISCRETIZED)
def test_discretised_samples_lie_on_the_grid_and_have_the_mean(name):
    one = DISCRETIZED[name]((1, 3))
    many = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (*leaf.shape[:-2], 5000, 3)), one)
    samples = np.asarray(sample(many))
    np.testing.assert_allclose(255 * samples, np.rint(255 * samples), atol=1e-9)
    assert samples.min() >= 0
    assert samples.max() <= 1
    np.testing.assert_allclose(samples.mean(0), mean(one)[0], atol=5 * 0.5 / np.sqrt(5000))


def test_mixture_equals_scipys_logsumexp_of_its_components():
    p = DISCRETIZED["mixture"]((256,))
    terms = scipy.special.log_softmax(p.logits, axis=0) + np.stack(
        [log_prob(DiscretizedLogistic(*of_one), GRID) for of_one in zip(*p.components, strict=True)]
    )
    np.testing.assert_allclose(log_prob(p, GRID), scipy.special.logsumexp(terms, axis=0), rtol=1e-10)


def test_categorical_equals_numpyro():
    p = DISCRETIZED["categorical"]((256,))
    expected = jax.jit(lambda logits: dist.Categorical(logits=logits).log_prob(jnp.arange(256)))(p.logits.T)
    np.testing.assert_allclose(log_prob(p, GRID), expected, rtol=1e-10)


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
        np.asarray(values, np.float32)
        for values in zip(*itertools.product(EXTREMES, EXTREMES, (0.0, 51 / 255, 1.0)), strict=True)
    )

    @jax.jit
    def value_and_gradient(a, b, x):
        value, pullback = jax.vjp(lambda a, b: ON_RAW[name](a, b, x), a, b)
        return value, jnp.stack(pullback(jnp.ones_like(value)))

    value, gradient = value_and_gradient(a, b, x)
    assert value.dtype == np.float32
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


def test_a_mass_is_never_above_one():
    loc, log_scale = (np.ravel(a) for a in np.meshgrid(np.linspace(-1, 2, 31), np.linspace(-10, 10, 21)))
    p = DiscretizedLogistic(*(np.tile(np.asarray(a, np.float32), (256, 1)) for a in (loc, log_scale)))
    found = np.asarray(log_prob(p, np.asarray(GRID, np.float32)[:, None]))
    assert found.dtype == np.float32
    assert (found <= 0).all()


def test_gaussian_at_the_optimal_scale_has_nll_d_over_2_times_log_2_pi_mse_plus_1():
    loc, x = random(4, 3, 2, 3, 1, seed=1), random(1, 3, 2, 3, 1, seed=2)
    mse = float(((x - loc) ** 2).mean())
    log_p = np.asarray(log_prob(Independent(OptimalNormal(loc)), x))
    assert log_p.shape == (4, 3)
    assert -log_p.mean() == pytest.approx(6 / 2 * (np.log(2 * np.pi * mse) + 1), rel=1e-12)
    others = [
        np.mean(log_prob(Independent(Normal(loc, np.asarray(0.5 * np.log(mse * factor)))), x)) for factor in (0.9, 1.1)
    ]
    assert max(others) < log_p.mean()


def test_optimal_scale_may_be_held_in_the_gradient_of_a_mean_log_density():
    """The derivative in σ is 0 at its optimum, so that the gradient is that of −D/2 log MSE (Rybkin et al. 2021)."""
    loc, x = random(4, 3, 2, 3, 1, seed=1), random(1, 3, 2, 3, 1, seed=2)
    held = jax.jit(jax.grad(lambda loc, x: Independent(OptimalNormal(loc)).log_prob(x).mean()))(loc, x)
    whole = jax.jit(jax.grad(lambda loc, x: -6 / 2 * jnp.log(((x - loc) ** 2).mean())))(loc, x)
    np.testing.assert_allclose(held, whole, rtol=1e-10)


def log_masses(p):
    """Of the 256 values, under a distribution of shape [256, n] in float32."""
    x = np.asarray(GRID, np.float32)[:, None]
    p = jax.tree.map(lambda a: np.asarray(a, np.float32), p)
    return np.asarray(jax.jit(lambda p, x: p.log_mass(x))(p, x), float)


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
    found = jax.jit(log_normal_interval)(center, half)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=2e-6)


@jax.jit
def interval_and_gradient(center, half):
    value, pullback = jax.vjp(log_normal_interval, center, half)
    return value, pullback(jnp.ones_like(value))


@pytest.mark.parametrize("half", [1e-10, 1e-3, 0.0999, 0.1001, 1.0, 1e8])
def test_a_normals_mass_and_its_gradient_are_finite_however_far_out(half):
    far = np.concatenate([np.geomspace(1e-40, 1e9, 99), np.linspace(12.9, 13.4, 101)])  # jax's erfcx is 0 near 13.1
    center = np.asarray(np.concatenate([-far, [0], far]), np.float32)
    value, gradients = interval_and_gradient(center, np.full(center.shape, half, np.float32))
    assert all(np.isfinite(array).all() for array in (value, *gradients))
    assert (np.asarray(value) <= 0).all()


def test_mills_ratio_and_log_ndtr_equal_scipy_in_float32():
    y = np.concatenate([np.linspace(0, 40, 2001), np.geomspace(40, 1e9, 50)]).astype(np.float32)
    expected = np.sqrt(np.pi / 2) * scipy.special.erfcx(y.astype(float) / np.sqrt(2))
    np.testing.assert_allclose(jax.jit(mills_ratio)(y), expected, rtol=5e-7)
    y = np.concatenate([-y, y])
    np.testing.assert_allclose(jax.jit(log_ndtr)(y), scipy.special.log_ndtr(y.astype(float)), rtol=1e-6, atol=1e-8)
