"""annealing.py against exact log p(x): lower and upper bounds, weights with the right mean, reproducible noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.oracles.linear_gaussian import LinearGaussian
from vae.evaluation import annealing
from vae.evaluation.annealing import chains, estimates
from vae.models import memory
from vae.models.distributions import Independent, Normal
from vae.models.model import Model
from vae.streams import Stream, stream

ORACLE = LinearGaussian.random(seed=0)
MODEL = ORACLE.model()
ROOT_SEED = 0


def ais(x, num_temperatures=20, num_chains=8, model=MODEL, labels=None, **options):
    return annealing.ais(
        jax.random.key(ROOT_SEED),
        {},
        x,
        labels,
        model=model,
        num_temperatures=num_temperatures,
        num_chains=num_chains,
        **options,
    )


def bdmc(num_examples, num_temperatures, num_chains, model=MODEL, labels=None):
    """The bracket, and the x that it is of."""
    root = jax.random.key(ROOT_SEED)
    batches = np.arange(num_examples).reshape(-1, min(num_examples, estimates.CHAINS_AT_ONCE // num_chains))
    x = np.concatenate([chains.simulate(root, {}, None if labels is None else labels[i], i, model)[1] for i in batches])
    bracket = annealing.bdmc(
        root, {}, num_examples, labels, model=model, num_temperatures=num_temperatures, num_chains=num_chains
    )
    return bracket, np.asarray(x, np.float64)


def within(values, expected, errors=4.0):
    assert values.mean() == pytest.approx(expected, abs=errors * values.std(ddof=1) / np.sqrt(len(values)))


@pytest.fixture
def short_pilot(monkeypatch):
    monkeypatch.setattr(estimates, "PILOT_TEMPERATURES", 40)


@pytest.fixture
def three_at_once(monkeypatch, short_pilot):
    monkeypatch.setattr(estimates, "CHAINS_AT_ONCE", 8 * 3)


@pytest.fixture
def five_hundred_at_once(monkeypatch, short_pilot):
    monkeypatch.setattr(estimates, "CHAINS_AT_ONCE", 500)


@pytest.mark.parametrize("num_temperatures", [1, 2, 1000])
def test_schedule_rises_from_0_to_1_and_is_densest_at_both_ends(num_temperatures):
    betas = annealing.sigmoidal_schedule(num_temperatures)
    assert (len(betas), betas[0], betas[-1]) == (num_temperatures + 1, 0, 1)
    np.testing.assert_allclose(betas, 1 - betas[::-1], atol=1e-15)
    steps = np.diff(betas)
    assert (steps > 0).all()
    assert num_temperatures < 3 or steps[0] < steps[num_temperatures // 2] / 10


@pytest.mark.usefixtures("float64", "three_at_once")
def test_one_temperature_is_importance_sampling_from_the_prior():
    x = ORACLE.sample(seed=1, num_examples=3)
    result = ais(x, num_temperatures=1)
    for n in range(3):
        key, _ = jax.random.split(stream(jax.random.key(ROOT_SEED), Stream.ANNEAL, n, chains.FORWARD))
        z = np.asarray(jax.random.normal(key, (8, 1, 3)))[:, 0]
        mean = z @ ORACLE.weights.T + ORACLE.bias
        expected = scipy.stats.norm(mean, ORACLE.sigma).logpdf(x[n].reshape(1, -1)).sum(1)
        np.testing.assert_allclose(result.log_w[n], expected, rtol=1e-6)


@pytest.mark.usefixtures("float64", "five_hundred_at_once")
def test_weights_have_the_mean_p_of_x_and_those_of_the_reverse_obey_crooks_with_few_coarse_temperatures():
    # E[w / p(x)] = 1. Backwards the mean of the weights is 1/p(x), as heavy-tailed as a harmonic mean; Crooks (1999)
    # says the same of bounded functions: E[r f(r)], r = w / p(x), is E[f(r)] with the reverse's r = 1 / (w p(x)).
    # Here f(r) = 1 / (1 + r).
    bracket, x = bdmc(4000, num_temperatures=12, num_chains=1)
    log_p = ORACLE.log_p(x)
    within(np.exp(bracket.lower - log_p), 1)
    within(scipy.special.expit(bracket.lower - log_p) - scipy.special.expit(log_p - bracket.upper), 0)
    assert (log_p - bracket.lower).mean() > 0.1
    assert (bracket.upper - log_p).mean() > 0.1


@pytest.mark.usefixtures("float64", "five_hundred_at_once")
def test_bracket_holds_the_exact_log_likelihood_and_narrows_with_more_temperatures():
    gaps = []
    for num_temperatures in (8, 280):
        bracket, x = bdmc(500, num_temperatures, num_chains=1)
        log_p = ORACLE.log_p(x)
        assert bracket.lower.mean() < log_p.mean() < bracket.upper.mean()
        gaps.append((bracket.upper - bracket.lower).mean())
    assert gaps[1] < 0.25 * gaps[0]
    assert gaps[1] < 0.2


def test_float32_agrees_with_the_exact_log_likelihood_and_accepts_about_as_often_as_wanted():
    x = ORACLE.sample(seed=1, num_examples=50).astype(np.float32)
    result = ais(x, num_temperatures=250, num_chains=20)
    error = result.log_likelihood - ORACLE.log_p(x.astype(float))
    assert error.mean() == pytest.approx(0, abs=0.02)
    assert result.acceptance.mean() == pytest.approx(chains.TARGET_ACCEPTANCE, abs=0.07)


class Layered(NamedTuple):
    """p(z2|y) = N(y, 1), p(z1|z2) = N(2 z2, ½²): as a prior with two stochastic layers."""

    y: jax.Array

    def sample_and_log_prob(self, key, num_samples):
        key_top, key_bottom = jax.random.split(key)
        shape = (num_samples, len(self.y), 1)
        top = self.y[None, :, None] + jax.random.normal(key_top, shape)
        z = (2 * top + 0.5 * jax.random.normal(key_bottom, shape), top)
        return z, self.log_prob(z)

    def log_prob(self, z):
        bottom, top = z
        log_top = Normal(self.y[None, :, None], jnp.zeros(())).log_prob(top)
        return Normal(2 * top, jnp.log(0.5)).log_prob(bottom)[..., 0], log_top[..., 0]


def layered_likelihood(params, z, y=None):
    loc = jnp.broadcast_to(z[0][..., None, None], (*z[0].shape[:2], 3, 1, 1))
    return Independent(Normal(loc, jnp.log(jnp.asarray(0.3))))


@pytest.mark.usefixtures("short_pilot")
def test_bracket_of_two_stochastic_layers_that_depend_on_the_label():
    # x_j = z1 + 0.3 ε_j, so x ~ N(2y, 4.25 + 0.3² I).
    nothing = {"init": lambda key, batch: {}, "posterior": lambda params, batch: None}
    model = Model(prior=lambda params, y=None: Layered(y.astype(float)), likelihood=layered_likelihood, **nothing)
    labels = np.arange(60) % 4
    bracket, x = bdmc(60, num_temperatures=200, num_chains=8, model=model, labels=labels)
    covariance = 4.25 + 0.09 * np.eye(3)
    log_p = scipy.stats.multivariate_normal(np.zeros(3), covariance).logpdf(x[..., 0, 0] - 2 * labels[:, None])
    assert bracket.lower.mean() - 0.01 < log_p.mean() < bracket.upper.mean() + 0.01
    assert (bracket.upper - bracket.lower).mean() < 0.25


@pytest.mark.usefixtures("float64", "three_at_once")
def test_result_depends_on_neither_company_nor_calls_nor_devices(monkeypatch):
    x = ORACLE.sample(seed=1, num_examples=7)
    expected = ais(x)
    index = np.array([1, 4, 6])
    np.testing.assert_allclose(ais(x[index], index=index).log_w, expected.log_w[index], rtol=1e-9)
    monkeypatch.setattr(estimates, "TEMPERATURES_PER_CALL", 7)
    np.testing.assert_allclose(ais(x, devices=jax.devices()[:2]).log_w, expected.log_w, rtol=1e-9)


@pytest.mark.usefixtures("float64", "three_at_once")
def test_fault_every_image_spends_the_same_key():
    x = ORACLE.sample(seed=1, num_examples=1)
    result = ais(np.concatenate([x, x, x]))
    assert len(np.unique(result.log_w)) == result.log_w.size


@pytest.mark.usefixtures("float64", "three_at_once")
def test_progress_rises_to_1():
    shares = []
    ais(ORACLE.sample(seed=1, num_examples=7), on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) == 3 * (2 + 1)


def test_of_large_images_fewer_chains_move_at_once(monkeypatch):
    sizes = []
    monkeypatch.setattr(estimates, "_step_sizes", lambda run, examples: sizes.append(len(examples.x)))
    monkeypatch.setattr(estimates, "_forward", lambda *args: estimates.Annealed(np.zeros((2, 3)), np.zeros(2)))
    x = ORACLE.sample(seed=1, num_examples=5).astype(np.float32)
    large = MODEL._replace(sample_bytes=memory.AT_ONCE // 9)  # with a gradient, 6 fit
    assert ais(x, 2, 3, large).log_w.shape == (5, 3)
    assert sizes == [2, 2, 2]
    monkeypatch.setattr(memory, "of_device", lambda device: memory.AT_ONCE)
    with pytest.raises(memory.TooLarge, match="the annealing of an image with `ais_chains=7` takes about"):
        ais(x[:1], 1, 7, large)
