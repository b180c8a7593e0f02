"""estimators.py where nothing goes through the samples: the baselines of score, ovis, and the covariance gradient."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.objectives.test_estimators import FEW, NUM_DRAWS, gradients, noise_of, z_scores
from vae import objectives
from vae.settings import Settings

pytestmark = pytest.mark.usefixtures("float64")

CONTROLS = ("none", "leave_one_out", "vimco", "ovis")


def by_hand(name, control, loc, scale, num_draws, num_samples=4):
    """[N, 3] gradients, sample by sample in numpy, with the control variate as its authors write it."""
    bound = {
        "iwae": lambda w: np.log(np.mean(np.exp(w))),
        "elbo_mc": np.mean,
        "vr_max": np.max,
    }[name]

    def slope(log_w, k):
        step = 1e-6 * (np.arange(num_samples) == k)
        return (bound(log_w + step) - bound(log_w - step)) / 2e-6

    gradient = np.zeros((num_draws, 3))
    for n, noise in enumerate(noise_of(num_samples + 1)[:num_draws]):  # the last one is OVIS's
        z = loc + scale * noise
        *log_w, of_other = -0.5 * z**2 + 0.5 * noise**2 + np.log(scale)
        log_w = np.asarray(log_w)
        for k in range(num_samples):
            others, with_other, with_mean = np.delete(log_w, k), log_w.copy(), log_w.copy()
            with_other[k], with_mean[k] = of_other, others.mean()
            subtracted = {
                "none": 0,
                "leave_one_out": bound(others),
                "vimco": bound(with_mean),
                "ovis": bound(with_other) - slope(with_other, k),
            }[control]
            score_q = np.asarray([noise[k] / scale, noise[k] ** 2 - 1, 0])
            gradient[n] += (bound(log_w) - subtracted) * score_q
            gradient[n] += slope(log_w, k) * (np.asarray([0, 0, z[k]]) - score_q)  # ∂log w at a fixed z
    return gradient


def with_control(name, control, loc, scale, num_draws, num_samples=4):
    options = {} if control == "ovis" else {"baseline": control}
    estimator = "ovis" if control == "ovis" else "score"
    return gradients(name, estimator, num_samples, loc, scale, num_draws=num_draws, **options)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(
    "name", ["iwae", *(pytest.param(one, marks=pytest.mark.soak) for one in ("elbo_mc", "vr_max"))]
)
def test_every_control_variate_of_the_score_estimator_is_as_its_authors_write_it(name, control):
    found = with_control(name, control, 1.5, 0.7, NUM_DRAWS)[:40]
    np.testing.assert_allclose(found, by_hand(name, control, 1.5, 0.7, 40), atol=1e-7)


def test_a_baseline_of_the_score_estimator_lowers_its_variance():
    """q = N(6, 1), p = N(0, 1), where the bound is about −15: one far from 0 costs nothing with a baseline."""
    none, *others = (with_control("iwae", control, 6.0, 1.0, NUM_DRAWS) for control in CONTROLS)
    for found in others:
        assert (found[:, :2].var(0) < 0.5 * none[:, :2].var(0)).all()


def test_near_the_posterior_the_control_variate_of_ovis_removes_nearly_all_noise():
    """At q = N(0.2, 1.1²), p = N(0, 1). Of VIMCO, the standard deviation is 48 times as large with K = 16."""
    vimco, ovis = (with_control("iwae", control, 0.2, 1.1, FEW, num_samples=16)[:, 0] for control in ("vimco", "ovis"))
    assert vimco.std() > 30 * ovis.std()


@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_variate_leaves_the_mean_as_it_is(control):
    """q = N(1.5, 0.7²), where the gradient is large: its mean is that of dreg, which has the same noise."""
    found = with_control("iwae", control, 1.5, 0.7, NUM_DRAWS)
    assert (z_scores(found, gradients("iwae", "dreg", 4, 1.5, 0.7, seed=1)) < 4.5).all()


def test_baselines_that_leave_a_sample_out_are_refused_where_none_can_be():
    about = {"estimator": "score", "baseline": "leave_one_out", "num_samples": 2}
    with pytest.raises(objectives.ObjectiveError, match="leave_one_out 1: it needs a num_samples above that, got 2"):
        objectives.build(Settings((1, 1, 1), objective="jackknife_1", **about))
    with pytest.raises(objectives.ObjectiveError, match="use `num_groups=1` or `baseline=vimco`"):
        objectives.build(Settings((1, 1, 1), objective="miwae", num_groups=2, **about))


def test_ovis_draws_the_samples_of_the_bound_and_some_more_and_every_other_estimator_just_these():
    assert objectives.num_drawn(Settings((1, 1, 1), num_samples=4, num_groups=2, ovis_samples=3)) == 8
    assert objectives.num_drawn(Settings((1, 1, 1), num_samples=4, estimator="ovis", ovis_samples=3)) == 7
    np.testing.assert_array_equal(noise_of(5)[:, :4], noise_of(4))


def densities(num_samples, loc, scale):
    """Of the draws of `gradients` with the seed 0: z, log w and ∂log q/∂(loc, log σ), [N, K] and [N, K, 2]."""
    noise = noise_of(num_samples)
    z = loc + scale * noise
    log_w = scipy.stats.norm.logpdf(z) - scipy.stats.norm.logpdf(z, loc, scale)
    return z, log_w, np.stack([noise / scale, noise**2 - 1], axis=-1)


def test_the_covariance_gradient_is_that_of_the_thermodynamic_objective_as_its_authors_write_it():
    """Σ_j Δβ_j (E_β[∂log w] + Cov_β[β ∂log p + (1 − β) ∂log q, log w]), with K/(K − 1) for the ∂log q of the masses."""
    loc, scale, num_samples = 1.5, 0.7, 4
    z, log_w, score_q = densities(num_samples, loc, scale)
    expected = np.zeros((NUM_DRAWS, 3))
    for beta, step in ((0, 0.3), (0.3, 0.7)):
        weights = scipy.special.softmax(beta * log_w, axis=1)
        product = weights * (log_w - (weights * log_w).sum(1, keepdims=True))
        of_q = num_samples / (num_samples - 1) * product - weights - beta * product
        expected[:, :2] += step * (of_q[..., None] * score_q).sum(1)
        expected[:, 2] += step * ((weights + beta * product) * z).sum(1)
    found = gradients("tvo", "covariance", num_samples, loc, scale, tvo_partitions=2, tvo_beta=0.3)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_the_covariance_gradient_of_one_partition_is_that_of_the_elbo_with_the_mean_of_the_others_as_baseline():
    found = gradients("tvo", "covariance", 4, 1.5, 0.7, num_draws=FEW, tvo_partitions=1)
    np.testing.assert_allclose(found, gradients("elbo_mc", "score", 4, 1.5, 0.7, num_draws=FEW), atol=1e-10)
