"""bounds.py against numpy in float64, and against what is known of q = N(0.2, 1.1²), p = N(0, 1)."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats

from tests.marks import soaked
from vae.objectives.bounds import (
    ciwae,
    elbo_mc,
    iwae,
    jackknife,
    leave_one_out,
    miwae,
    piwae,
    renyi,
    tvo,
    vr_max,
)
from vae.objectives.estimators import diagonal_of_hessian
from vae.objectives.table import BOUNDS, TVO_SCHEDULES
from vae.options import flattened

pytestmark = pytest.mark.usefixtures("float64")

LOG_W = np.random.default_rng(0).normal(-90, 3, (6, 5))
GROUPS = np.random.default_rng(1).normal(-90, 3, (3, 4, 5))  # M = 3, K = 4: a swap shows
NUMBERS = {"ciwae": {"ciwae_beta": 0.3}}  # in place of defaults at which a mistake might not show


def numbers(name):
    """The options that a bound takes: at the defaults of its row, except those of NUMBERS."""
    defaults = {
        option: one.default for option, one in flattened(BOUNDS[name].options).items() if option != "num_groups"
    }
    return defaults | NUMBERS.get(name, {})


@cache
def compiled(name):
    """The bound of that name, and the sum of it over the batch with its gradient."""
    bound = partial(BOUNDS[name].function, **numbers(name))
    return jax.jit(bound), jax.jit(jax.value_and_grad(lambda w: bound(w).sum()))


jitted_jackknife = jax.jit(jackknife, static_argnums=1)


def log_mean_exp(log_w, axis=0):
    return scipy.special.logsumexp(log_w, axis=axis) - np.log(log_w.shape[axis])


def numpy_jackknife(log_w, order):
    """By enumeration of every subset, from the definition."""
    from itertools import combinations
    from math import comb, factorial

    k = len(log_w)
    total = 0
    for j in range(order + 1):
        kept = [log_mean_exp(log_w[list(rows)]) for rows in combinations(range(k), k - j)]
        assert len(kept) == comb(k, j)
        total += (-1) ** j * (k - j) ** order / (factorial(order - j) * factorial(j)) * np.mean(kept, axis=0)
    return total


def numpy_tvo(log_w, tvo_partitions, tvo_schedule, tvo_beta, tvo_sum):
    """Example by example, from the definition."""
    found = []
    for w in log_w.T:

        def mean(beta, w=w):
            return (scipy.special.softmax(beta * w) * w).sum()

        share = np.arange(1, tvo_partitions) / tvo_partitions
        inner = {
            "linear": share,
            "log_uniform": np.geomspace(tvo_beta, 1, tvo_partitions)[:-1],
            "moments": [
                scipy.optimize.brentq(lambda b, s=s: mean(b) - (1 - s) * mean(0) - s * mean(1), 0, 1) for s in share
            ],
        }[tvo_schedule]
        beta = np.asarray([0, *inner, 1])
        at = beta[:-1] if tvo_sum == "left" else beta[1:]
        found.append(sum(np.diff(beta) * [mean(b) for b in at]))
    return np.asarray(found)


NUMPY = {  # of log-weights [K, B] or [M, K, B], and of the options of the bound
    "elbo_mc": lambda w: w.mean(0),
    "iwae": log_mean_exp,
    "miwae": lambda w: log_mean_exp(w, axis=1).mean(0),
    "piwae": lambda w: log_mean_exp(w.reshape(-1, w.shape[-1])),
    "ciwae": lambda w, ciwae_beta: ciwae_beta * w.mean(0) + (1 - ciwae_beta) * log_mean_exp(w),
    "renyi": lambda w, alpha: log_mean_exp((1 - alpha) * w) / (1 - alpha),
    "vr_max": lambda w: w.max(0),
    "tvo": numpy_tvo,
    "jackknife_1": lambda w: numpy_jackknife(w, 1),
    "jackknife_2": lambda w: numpy_jackknife(w, 2),
}


@pytest.mark.parametrize("name", list(BOUNDS))
def test_every_bound_equals_its_formula_in_numpy(name):
    assert name in NUMPY, f"add a numpy reference of {name} to NUMPY"
    log_w = GROUPS if BOUNDS[name].grouped else LOG_W
    np.testing.assert_allclose(compiled(name)[0](log_w), NUMPY[name](log_w, **numbers(name)), rtol=1e-12)


@pytest.mark.parametrize("name", list(BOUNDS))
def test_a_constant_in_log_p_passes_through_every_bound(name):
    log_w, (bound, _) = GROUPS if BOUNDS[name].grouped else LOG_W, compiled(name)
    np.testing.assert_allclose(bound(log_w + 7), bound(log_w) + 7, rtol=1e-12)


@pytest.mark.parametrize("name", list(BOUNDS))
def test_every_example_has_its_own_bound_whatever_the_others_are(name):
    log_w, (bound, _) = GROUPS if BOUNDS[name].grouped else LOG_W, compiled(name)
    others = log_w + 9 * np.random.default_rng(2).normal(size=log_w.shape)
    others[..., 2] = log_w[..., 2]
    np.testing.assert_array_equal(bound(others)[2], bound(log_w)[2])
    assert (np.delete(bound(others), 2) != np.delete(bound(log_w), 2)).all()


@pytest.mark.parametrize("name", list(BOUNDS))
def test_gradients_equal_finite_differences(name):
    log_w, (_, value_and_gradient) = (GROUPS if BOUNDS[name].grouped else LOG_W) / 30, compiled(name)
    _, gradient = value_and_gradient(log_w)
    for position in [(0,) * log_w.ndim, (1,) * log_w.ndim, (2,) * log_w.ndim]:
        step = np.zeros_like(log_w)
        step[position] = 1e-5
        difference = (value_and_gradient(log_w + step)[0] - value_and_gradient(log_w - step)[0]) / 2e-5
        assert np.asarray(gradient)[position] == pytest.approx(float(difference), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", list(BOUNDS))
@pytest.mark.parametrize("spread", [0.0, 1e4])
def test_values_and_gradients_are_finite_in_float32_for_equal_and_for_very_unequal_weights(name, spread):
    log_w = np.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)) * spread, np.float32)
    value, gradient = compiled(name)[1](log_w if BOUNDS[name].grouped else log_w.reshape(12, 5))
    assert value.dtype == gradient.dtype == np.float32
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_one_sample_is_the_elbo_for_every_bound_that_allows_it():
    for name in ("iwae", "ciwae", "renyi", "vr_max", "tvo"):
        np.testing.assert_allclose(compiled(name)[0](LOG_W[:1]), LOG_W[0], rtol=1e-12)
    np.testing.assert_allclose(compiled("miwae")[0](GROUPS[:, :1]), GROUPS[:, 0].mean(0), rtol=1e-12)


def test_leaving_samples_out_never_raises_the_bound():
    """The mean of the K leave-one-out bounds L_{K−1} ≤ L_K, for any fixed weights (Burda et al. 2016, theorem 1)."""
    bound, _ = compiled("iwae")
    smaller = np.mean([bound(np.delete(LOG_W, k, axis=0)) for k in range(len(LOG_W))], axis=0)
    assert (smaller <= bound(LOG_W)).all()


def test_the_ends_of_each_family_are_the_bounds_it_joins():
    @jax.jit
    def pairs(log_w, groups):
        return [
            (ciwae(log_w, 0.0), iwae(log_w)),
            (ciwae(log_w, 1.0), elbo_mc(log_w)),
            (renyi(log_w, 0.0), iwae(log_w)),
            (renyi(log_w, 1.0), elbo_mc(log_w)),
            (miwae(groups[:1]), iwae(groups[0])),
            (piwae(groups), iwae(groups.reshape(12, 5))),
        ], (renyi(log_w, -1e4), vr_max(log_w))

    equal, nearly = pairs(LOG_W, GROUPS)
    for end, bound in equal:
        np.testing.assert_allclose(end, bound, rtol=1e-12)
    np.testing.assert_allclose(*nearly, rtol=1e-4)


def test_fault_m_and_k_are_swapped_in_the_multiply_importance_weighted_bound():
    bound, _ = compiled("miwae")
    assert not np.allclose(bound(GROUPS), bound(GROUPS.swapaxes(0, 1)))
    np.testing.assert_allclose(bound(GROUPS), NUMPY["miwae"](GROUPS), rtol=1e-12)


def test_fault_the_worst_sample_gets_the_most_weight():
    _, gradient = compiled("iwae")[1](LOG_W)
    np.testing.assert_array_equal(gradient.argmax(0), LOG_W.argmax(0))
    np.testing.assert_allclose(gradient, scipy.special.softmax(LOG_W, axis=0), rtol=1e-10)


def test_fault_the_reported_bound_is_a_weighted_sum_of_log_weights():
    weights = scipy.special.softmax(LOG_W, axis=0)
    assert (compiled("iwae")[0](LOG_W) < (weights * LOG_W).sum(0)).all()


@partial(jax.jit, static_argnums=(1, 2))
def all_tvo(log_w, partitions=4, beta=0.03):
    """{schedule and side of the sum: the objective}."""
    sides = ("left", "right")
    return {(name, side): tvo(log_w, partitions, name, beta, side) for name in TVO_SCHEDULES for side in sides}


def test_tvo_equals_its_formula_in_numpy_with_every_schedule():
    for which, found in all_tvo(LOG_W).items():
        schedule, side = which
        np.testing.assert_allclose(found, numpy_tvo(LOG_W, 4, schedule, 0.03, side), rtol=1e-12)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.float64, (5, 4), elements=floats(-1e3, 1e3, width=32)))
def test_left_sums_of_tvo_lie_between_elbo_and_iwae_and_right_sums_between_iwae_and_the_largest_weight(log_w):
    middle, rounding = log_mean_exp(log_w), 1e-12 * (1 + np.abs(log_w).max())
    found = all_tvo(log_w)
    for (_, side), value in found.items():
        low, high = (log_w.mean(0), middle) if side == "left" else (middle, log_w.max(0))
        assert (low - rounding <= value).all()
        assert (value <= high + rounding).all()


def test_tvo_of_many_partitions_is_iwae():
    """Right and left sums differ by at most the largest step of β, or of E_β[log w], times max log w − mean log w."""
    found = all_tvo(LOG_W, 2000, 1e-4)
    for name, largest in {"linear": 1 / 2000, "log_uniform": 1 - 1e-4 ** (1 / 1999), "moments": 1 / 2000}.items():
        left, right = found[name, "left"], found[name, "right"]
        assert (right - left <= largest * (LOG_W.max(0) - LOG_W.mean(0))).all()
        np.testing.assert_allclose((left + right) / 2, log_mean_exp(LOG_W), atol=largest)


def test_tvo_of_two_points_is_the_elbo_up_to_beta_and_the_tempered_mean_from_there():
    log_w = jnp.asarray(LOG_W)
    tempered = (scipy.special.softmax(0.3 * LOG_W, axis=0) * LOG_W).sum(0)
    expected = 0.3 * LOG_W.mean(0) + 0.7 * tempered
    left_sum = jax.jit(lambda log_w, partitions: tvo(log_w, partitions, "log_uniform", 0.3, "left"), static_argnums=1)
    np.testing.assert_allclose(left_sum(log_w, 2), expected, rtol=1e-12)
    np.testing.assert_allclose(left_sum(log_w, 1), LOG_W.mean(0), rtol=1e-12)


@pytest.mark.parametrize("schedule", soaked(TVO_SCHEDULES, "linear", "log_uniform"))
def test_first_and_second_derivatives_of_tvo_are_those_of_its_value_even_where_its_points_move(schedule):
    """By differences. The second ones are those that the estimator dreg takes."""

    def bound(log_w):
        return tvo(log_w, 3, schedule, 0.3, "left")

    @jax.jit
    def derivatives(log_w):
        return bound(log_w), jax.grad(lambda log_w: bound(log_w).sum())(log_w)[1], diagonal_of_hessian(bound, log_w)[1]

    log_w, step = LOG_W / 10, np.zeros_like(LOG_W)
    step[1] = 1e-5
    _, gradient, hessian = derivatives(log_w)
    (more, steeper, _), (less, flatter, _) = derivatives(log_w + step), derivatives(log_w - step)
    np.testing.assert_allclose(gradient, (more - less) / 2e-5, rtol=1e-6)
    np.testing.assert_allclose(hessian, (steeper - flatter) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e4])
def test_tvo_keeps_its_digits_in_float32_with_every_schedule_and_its_derivatives_add_up_to_one(spread):
    log_w = np.asarray(np.random.default_rng(0).normal(size=(6, 5)) * spread, np.float32)
    exact, (found, slopes) = all_tvo(log_w.astype(np.float64)), tvo_and_slopes(log_w)
    for which, value in found.items():
        np.testing.assert_allclose(value, exact[which], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(slopes[which].sum(0), 1, rtol=1e-4)


@jax.jit
def tvo_and_slopes(log_w):
    values, pull = jax.vjp(all_tvo, log_w)
    zeros = jax.tree.map(jnp.zeros_like, values)
    return values, {which: pull(zeros | {which: jnp.ones_like(value)})[0] for which, value in values.items()}


jitted_renyi = jax.jit(renyi)
renyi_and_slope = jax.jit(jax.value_and_grad(lambda w, alpha: renyi(w, alpha).sum()))


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
def test_renyi_is_continuous_and_finite_through_alpha_one_in_float32(distance):
    log_w = LOG_W.astype(np.float32)
    for alpha in (1 - distance, 1 + distance):
        value, slope = renyi_and_slope(log_w, np.float32(alpha))
        expected = LOG_W.mean(0) + 0.5 * (1 - alpha) * LOG_W.var(0)
        assert value == pytest.approx(float(expected.sum()), abs=0.02)
        np.testing.assert_allclose(slope, 1 / 6, atol=0.02)


@pytest.mark.parametrize("order", [1, 2])
def test_the_jackknife_keeps_its_digits_in_float32(order):
    log_w = np.random.default_rng(0).normal(-90, 1, (50, 4))
    exact, _ = jackknife_of_sums(log_w, order)
    np.testing.assert_allclose(jitted_jackknife(log_w.astype(np.float32), order), exact, atol=3e-5)


def jackknife_of_sums(log_w, order):
    """(value [B], gradient [K, B]) from the definition, by the sums that are left of all w: numpy's longest floats."""
    largest = log_w.max(0)
    w = np.exp(log_w - largest).astype(np.longdouble)
    k, total = len(w), w.sum(0)
    left = total - w  # without one
    value = total.dtype.type(k) ** order / order * (np.log(total) - np.log(k))
    gradient = total.dtype.type(k) ** order / order * w / total
    of_one = (k - 1) ** order  # c_1 = −(K − 1)^m, for m = 1 and 2
    value -= of_one * (np.log(left) - np.log(k - 1)).mean(0)
    gradient -= of_one * w * ((1 / left).sum(0) - 1 / left) / k
    if order == 2:
        for b in range(w.shape[1]):
            pairs = left[:, None, b] - w[None, :, b]
            np.fill_diagonal(pairs, np.inf)
            inverse, of_two = 1 / pairs, (k - 2) ** 2 / (2 * k * (k - 1))
            np.fill_diagonal(pairs, 1)
            value[b] += of_two * np.log(pairs).sum() - (k - 2) ** 2 / 2 * np.log(k - 2)
            gradient[:, b] += of_two * w[:, b] * (inverse.sum() - 2 * inverse.sum(0))
    return np.asarray(largest + value, np.float64), np.asarray(gradient, np.float64)


@pytest.mark.parametrize("order", [1, 2])
def test_the_jackknife_of_sums_is_that_of_every_subset(order):
    value, _ = jackknife_of_sums(LOG_W, order)
    np.testing.assert_allclose(value, numpy_jackknife(LOG_W, order), rtol=1e-13)


@pytest.mark.parametrize(
    ("order", "num_samples"),
    # Rounding grows with K, and with the coefficients; what order 1 computes is a part of order 2.
    [*(pytest.param(*case, marks=pytest.mark.soak) for case in ((1, 1000), (2, 200))), (2, 1000)],
)
def test_the_jackknife_and_its_gradient_keep_their_digits_in_float32_for_any_number_of_samples(order, num_samples):
    """log w ~ N(−90, 1) and N(−90, 4²). At K = 1000 the coefficients of order 2 are 10⁶, its effect .0007."""
    spread = np.asarray([1, 1, 4, 4])
    log_w = (np.random.default_rng(0).normal(size=(num_samples, 4)) * spread - 90).astype(np.float32)
    expected, slope = jackknife_of_sums(log_w.astype(np.float64), order)
    with jax.enable_x64(False):
        both = jax.jit(lambda w: (jackknife(w, order), jax.grad(lambda w: jackknife(w, order).sum())(w)))
        compiled = both.lower(jnp.asarray(log_w)).compile()
        found, gradient = compiled(jnp.asarray(log_w))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-5 * np.abs(slope).max())
    # Nor is there an array of all pairs: with a batch of 100 it would take 400 MB at K = 1000.
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * log_w.nbytes + 1e5


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("log_w", [[0, 0, 0, 0], [0, -1e-9, -40, -41], [0, -800, -801], [0, 0, -700, -700]], ids=str)
def test_the_jackknife_is_exact_where_weights_are_equal_or_few_have_all_the_weight(order, log_w):
    log_w = np.asarray(log_w, np.float64)[:, None]
    wanted = numpy_jackknife(log_w, order)
    np.testing.assert_allclose(jitted_jackknife(log_w, order), wanted, rtol=1e-12, atol=1e-12)


def test_the_jackknife_refuses_as_many_samples_as_it_leaves_out():
    with pytest.raises(ValueError, match="needs more than 2"):
        jackknife(jnp.asarray(LOG_W[:2]), 2)


def test_leave_one_out_is_exact_where_one_weight_is_nearly_everything():
    expected = np.logaddexp(-60, -61), np.logaddexp(0, -61), np.logaddexp(0, -60)
    found = jax.jit(leave_one_out)(np.asarray([[0.0], [-60.0], [-61.0]]))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-14)


@cache
def draws_of_log_w(num_samples, repetitions, seed=0):
    """log p(z) − log q(z) at z ~ q, of the pair above: [num_samples, repetitions]; log p = 0."""
    noise = np.random.default_rng(seed).normal(size=(num_samples, repetitions))
    return np.log(1.1) + 0.5 * noise**2 - 0.5 * (0.2 + 1.1 * noise) ** 2


def test_the_draws_of_log_w_have_the_mean_weight_one_and_the_mean_of_minus_the_kl():
    log_w = draws_of_log_w(1_000_000, 1)
    assert np.exp(log_w).mean() == pytest.approx(1, abs=1e-3)
    assert log_w.mean() == pytest.approx(-0.029690, abs=1e-3)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(-1.0, 0.021730), (0.0, 0.0), (0.5, -0.013585), (1.0, -0.029690), (2.0, -0.073184)]
)
def test_renyi_converges_to_minus_the_renyi_divergence(alpha, expected):
    bound = jitted_renyi(draws_of_log_w(1_000_000, 1), alpha)
    assert float(bound[0]) == pytest.approx(expected, abs=2e-3)


def less_the_noise_of_the_mean_weight(bounds, log_w):
    """Of the same mean, for E w = 1: what is left of log w̄ − (w̄ − 1) is of the order of (w̄ − 1)²."""
    return np.asarray(bounds) - (np.exp(log_w).mean(0) - 1)


def test_the_gap_of_iwae_falls_like_the_variance_of_the_weights_over_2k():
    """log p − E L_K ≈ γ²/2K with γ² = exp D₂(p‖q) − 1 = 0.044419."""
    log_w = draws_of_log_w(16, 20_000)
    bounds = less_the_noise_of_the_mean_weight(compiled("iwae")[0](log_w), log_w)
    error = bounds.std() / np.sqrt(bounds.size)
    assert -bounds.mean() == pytest.approx(0.044419 / 32, abs=4 * error)
    assert error < 0.044419 / 32 / 10


@pytest.mark.parametrize("num_samples", [2, 8])
def test_the_jackknife_has_no_maximum(num_samples):
    """With one weight of 1 and the others e^−L, order 1 grows by (K − 1)/K for each nat of L; IWAE falls to −log K."""

    def at(fall):
        log_w = np.full((num_samples, 1), -float(fall))
        log_w[0] = 0
        return jitted_jackknife(log_w, 1)[0], compiled("iwae")[0](log_w)[0]

    (low, _), (high, bound) = at(100), at(1100)
    np.testing.assert_allclose(float(high) - float(low), 1000 * (num_samples - 1) / num_samples, rtol=1e-12)
    np.testing.assert_allclose(bound, -np.log(num_samples), rtol=1e-12)


def test_the_jackknife_removes_the_first_terms_of_the_gap():
    log_w = draws_of_log_w(8, 10_000)
    bounds = compiled("iwae")[0](log_w), jitted_jackknife(log_w, 1), jitted_jackknife(log_w, 2)
    gaps = [abs(less_the_noise_of_the_mean_weight(bound, log_w).mean()) for bound in bounds]
    assert gaps[1] < gaps[0] / 5
    assert gaps[2] < gaps[0] / 5
