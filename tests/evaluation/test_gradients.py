"""gradients.py: its statistics are numpy's of the same draws, and its tests find a bias where there is one only."""

from functools import cache, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.objectives.test_estimators import pair, params_at
from vae import objectives
from vae.evaluation import gradient_statistics as statistics
from vae.evaluation import gradients
from vae.evaluation.gradient_statistics import Bias, Signal
from vae.evaluation.gradients import GradientMoments
from vae.models.model import Batch
from vae.settings import Hyperparameters, Settings
from vae.streams import Stream, stream

BATCH = Batch(jax.device_put(np.zeros((1, 1, 1, 1), np.float32)))
BIASED = {"loc": -3.0, "scale": 1.0, "prior_loc": 2.0, "prior_scale": 3.0}


model = cache(pair)


@cache
def objective(estimator, num_samples):
    return objectives.build(Settings((1, 1, 1), objective="iwae", estimator=estimator, num_samples=num_samples))


@cache
def blocks(
    estimator, num_samples, num_draws, seed=0, loc=0.2, scale=1.1, prior_loc=0.0, prior_scale=1.0, reference=False
):
    """The laboratory on one-dimensional q and p (as in test_estimators.py): the encoder has loc and log_scale."""
    drawn = gradients.draw_blocks(
        jax.random.key(seed),
        params_at(loc, scale),
        BATCH,
        num_draws,
        model=model(prior_loc, prior_scale),
        objective=objective(estimator, num_samples),
        num_samples=num_samples,
        hyperparameters=Hyperparameters(),
        reference=reference,
    )
    found = list(drawn)
    assert all(block.seconds > 0 for block in found)
    return {group: gradients.of_group(found, group) for group in found[0].moments}


def of_draws(draws, num_blocks=gradients.NUM_BLOCKS):
    """Blocks of moments, by numpy, of draws [R, P]."""
    parts = np.array_split(draws, num_blocks)
    return [GradientMoments(len(part), part.mean(0), ((part - part.mean(0)) ** 2).sum(0)) for part in parts]


def columns(values: Signal | Bias):
    return np.array(list(values._asdict().values()))


# Moments


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("estimator", ["reparameterized", "dreg"])
def test_the_moments_are_numpys_of_the_same_draws(estimator):
    num_draws, num_samples = 107, 3  # not a multiple of the blocks
    found = blocks(estimator, num_samples, num_draws)
    key = stream(jax.random.key(0), Stream.GRADIENTS, num_samples, 0)

    @jax.jit
    @jax.vmap
    def draw(r):
        def surrogate(params):
            key_draw = jax.random.fold_in(key, r)
            return objective(estimator, num_samples).apply(key_draw, params, pair(), BATCH, Hyperparameters(), 0)[0]

        return jax.grad(surrogate)(params_at(0.2, 1.1))

    draws = draw(jnp.arange(num_draws))
    expected = {
        "encoder": np.stack([draws["encoder"]["loc"], draws["encoder"]["log_scale"]], 1),
        "decoder": np.asarray(draws["decoder"]["shift"])[:, None],
    }
    assert found.keys() == expected.keys()
    for group, values in expected.items():
        whole = reduce(gradients.merge, found[group])
        assert whole.count == sum(part.count for part in found[group]) == num_draws
        np.testing.assert_allclose(whole.mean, values.mean(0), rtol=1e-10)
        np.testing.assert_allclose(whole.m2 / (num_draws - 1), values.var(0, ddof=1), rtol=1e-10)
        signal = statistics.signal(found[group])
        assert signal.variance == pytest.approx(values.var(0, ddof=1).sum(), rel=1e-10)
        assert signal.snr == pytest.approx(np.mean(np.abs(values.mean(0)) / values.std(0, ddof=1)), rel=1e-10)


def test_the_memory_of_the_moments_does_not_grow_with_the_number_of_draws():

    def moments(stop):
        arguments = jax.random.key(0), params_at(0.2, 1.1), BATCH, Hyperparameters(), 0, 0, stop
        return gradients.draw_moments(*arguments, model=model(), objective=objective("reparameterized", 2))

    # The number of draws is an argument of one program, which holds no array with an axis for them.
    shapes = {v.aval.shape for eqn in jax.make_jaxpr(moments)(1000).eqns for v in eqn.outvars}
    assert shapes == {()}


def test_draws_of_small_noise_about_a_large_mean_keep_their_variance_in_float32():
    """Sums of squares would lose it all: the mean is 10⁴ standard deviations."""
    numbers = 1e4 + np.random.default_rng(0).normal(size=1000)

    class Chosen:
        init = None

        @staticmethod
        def apply(key, params, model, batch, hyperparameters, step):
            chosen = jnp.asarray(numbers, jnp.float32)[jax.random.randint(key, (), 0, len(numbers))]
            return params["encoder"] * chosen, None, {}

    found = gradients.draw_blocks(
        jax.random.key(0), {"encoder": jnp.ones(())}, BATCH, 2000, model=pair(),
        objective=objectives.Objective(Chosen.init, Chosen.apply), num_samples=1, hyperparameters=Hyperparameters(),
    )  # fmt: skip
    assert statistics.signal(gradients.of_group(list(found), "encoder")).variance == pytest.approx(
        numbers.var(), rel=0.1
    )


def test_the_noise_is_the_same_for_estimators_and_other_for_the_reference_for_k_and_for_the_seed():
    first = blocks("reparameterized", 2, 20)["decoder"][0].mean
    np.testing.assert_allclose(blocks("dreg", 2, 20)["decoder"][0].mean, first, rtol=1e-5)
    for other in ({"reference": True}, {"seed": 1}, {"num_samples": 3}):
        changed = blocks(**{"estimator": "reparameterized", "num_samples": 2, "num_draws": 20, **other})
        assert abs(changed["decoder"][0].mean - first).max() > 1e-3


def test_too_few_draws_are_refused_and_so_is_a_gradient_that_is_not_finite():
    with pytest.raises(ValueError, match="19 draws are too few: 10 blocks need 20 or more"):
        blocks("dreg", 2, 19)
    with pytest.raises(FloatingPointError, match="the gradient of the encoder is not finite"):
        blocks("dreg", 2, 20, scale=0.0)


# Signal


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("estimator", "ratios"), [("reparameterized", (0.177, 0.020)), ("dreg", (1.04, 7.23))])
def test_the_encoders_signal_to_noise_ratio_is_the_reported_one(estimator, ratios):
    """q = N(.2, 1.1²), p = N(0, 1), K = 1 and 64, gradient in q's mean; the standard error is about 1/√R."""
    for num_samples, expected in zip((1, 64), ratios, strict=True):
        moments = reduce(gradients.merge, blocks(estimator, num_samples, 8000)["encoder"])
        found = abs(moments.mean[0]) / np.sqrt(moments.m2[0] / (moments.count - 1))
        assert found == pytest.approx(expected, abs=0.03, rel=0.06)


def test_parameters_without_a_gradient_and_without_noise_are_counted_and_left_out_of_the_ratio():
    draws = np.random.default_rng(0).normal(1, 2, size=(100, 5))
    draws[:, 1], draws[:, 3] = 0, 0.25
    found = statistics.signal(of_draws(draws))
    assert (found.num_parameters, found.num_zero, found.num_constant) == (5, 1, 1)
    kept = draws[:, [0, 2, 4]]
    assert found.snr == pytest.approx(np.mean(np.abs(kept.mean(0)) / kept.std(0, ddof=1)), rel=1e-10)
    nothing = statistics.signal(of_draws(np.zeros((100, 2))))
    assert nothing.num_zero == 2
    assert np.isnan([nothing.snr, nothing.snr_of_norms]).all()
    assert nothing.mean_norm == 0


def test_the_ratio_of_pure_noise_is_the_noise_floor():
    draws = np.random.default_rng(0).normal(size=(50, 20_000))
    found = statistics.signal(of_draws(draws))
    assert found.noise_floor == pytest.approx(np.sqrt(2 / (np.pi * 50)))
    # Of a t distribution instead of a normal one: 1.6 % more at R = 50.
    assert found.snr == pytest.approx(found.noise_floor, rel=0.03)
    assert found.snr_of_norms < 0.02


def test_norms_are_corrected_for_what_noise_adds_to_them():
    """‖mean‖ of 50 draws of 5000 parameters with noise 1 is near √(‖E g‖² + 5000/50), here √(4 + 100)."""
    rng, mean = np.random.default_rng(0), np.full(5000, 2 / np.sqrt(5000))
    found = [statistics.signal(of_draws(mean + rng.normal(size=(50, 5000)))) for _ in range(20)]
    assert np.mean([s.mean_norm**2 for s in found]) == pytest.approx(4, abs=1)
    assert np.mean([s.snr_of_norms for s in found]) == pytest.approx(2 / np.sqrt(5000), rel=0.2)


def test_the_standard_error_of_the_ratio_is_its_standard_deviation_over_repetitions():
    """Also where parameters are correlated, here in pairs that are equal."""
    rng = np.random.default_rng(0)
    found = [
        statistics.signal(of_draws(np.repeat(rng.normal(0.8, 1, size=(200, 20)), 2, axis=1))) for _ in range(200)
    ]  # fmt: skip
    assert np.mean([s.snr_error for s in found]) == pytest.approx(np.std([s.snr for s in found]), rel=0.15)


# Bias


@pytest.mark.parametrize("seed", range(4))
def test_sticking_the_landing_is_found_biased_and_dreg_is_not(seed):
    """q = N(−3, 1), p = N(2, 3²), K = 10: mean gradient in q's mean +1.154 against the true +.480."""
    reference = blocks("reparameterized", 10, 4000, seed, reference=True, **BIASED)["encoder"]
    stl, dreg = (
        statistics.bias(blocks(name, 10, 400, seed, **BIASED)["encoder"], reference) for name in ("stl", "dreg")
    )
    assert stl.p_norm < 0.01
    assert stl.p_max_t < 1e-4
    assert stl.relative_bias > 0.5
    assert min(dreg.p_norm, dreg.p_max_t) > 0.005
    assert dreg.difference_norm < 3 * dreg.expected_norm


def test_without_a_bias_each_test_rejects_about_as_often_as_it_says():
    """Blocks of correlated and of heavy-tailed parameters, 400 repetitions, level 5 %: within three standard errors."""
    rng, rejected = np.random.default_rng(0), []
    for _ in range(400):
        mixing = rng.normal(size=(30, 30))

        def draws(count, mixing=mixing):
            return np.concatenate([rng.normal(size=(count, 30)) @ mixing, rng.standard_t(5, size=(count, 30))], 1)

        found = statistics.bias(of_draws(draws(100)), of_draws(draws(300)))
        rejected.append([found.p_norm < 0.05, found.p_max_t < 0.05, found.share_below_5_percent])
    p_norm, p_max_t, share = np.mean(rejected, 0)
    assert 0.02 < p_norm < 0.085
    assert 0.015 < p_max_t < 0.085
    assert share == pytest.approx(0.05, abs=0.01)


def test_the_root_mean_square_of_the_difference_without_a_bias_is_the_expected_norm():
    rng = np.random.default_rng(0)
    found = [
        statistics.bias(of_draws(rng.normal(size=(40, 500))), of_draws(rng.normal(0, 3, size=(90, 500))))
        for _ in range(50)
    ]
    assert np.mean([b.difference_norm**2 for b in found]) == pytest.approx(
        np.mean([b.expected_norm**2 for b in found]), rel=0.03
    )
    shifted = [
        statistics.bias(of_draws(rng.normal(1.5, 1, size=(400, 500))), of_draws(rng.normal(1, 3, size=(900, 500))))
        for _ in range(10)
    ]
    assert np.mean([b.relative_bias for b in shifted]) == pytest.approx(0.5, rel=0.05)


def test_a_small_bias_in_all_parameters_is_found_by_the_norm_and_a_large_one_in_one_by_the_largest_t():
    """A tenth of a standard error in 20,000 parameters; six in one."""
    rng, size = np.random.default_rng(0), 20_000
    reference = of_draws(rng.normal(size=(1000, size)))
    everywhere = statistics.bias(of_draws(rng.normal(0.1, 1, size=(200, size))), reference)
    assert everywhere.p_norm < 0.01
    one = rng.normal(size=(200, size))
    one[:, 17] += 0.8
    single = statistics.bias(of_draws(one), reference)
    assert single.p_max_t < 0.01
    assert everywhere.p_max_t > single.p_max_t


def test_the_t_test_of_one_parameter_is_welchs_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, size=(30, 1)), rng.normal(0, 2, size=(80, 1))
    found, expected = statistics.bias(of_draws(a), of_draws(b)), scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.max_t == pytest.approx(abs(expected.statistic[0]), rel=1e-10)
    assert found.p_max_t == pytest.approx(expected.pvalue[0], rel=1e-10)


def test_gradients_without_noise_are_not_tested_for_a_bias():
    """As the prior's under an analytic KL: two programs may round the same number differently."""
    a, b = np.full((40, 2), 0.3), np.full((40, 2), 0.3 * (1 + 1e-7))
    found = statistics.bias(of_draws(a), of_draws(b))
    assert np.isnan([found.max_t, found.p_max_t, found.share_below_5_percent]).all()
    assert found.relative_bias < 1e-6


def test_equal_draws_have_no_bias_and_a_shift_of_every_block_has_the_least_p_value():
    draws = np.random.default_rng(0).normal(1, 1, size=(100, 3))
    same = statistics.bias(of_draws(draws), of_draws(draws))
    np.testing.assert_array_equal(columns(same)[[0, 1, 4]], 0)
    assert same.p_norm == same.p_max_t == 1
    assert statistics.bias(of_draws(draws + 50), of_draws(draws)).p_norm == 2.0**-9
