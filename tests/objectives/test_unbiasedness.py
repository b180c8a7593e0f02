"""Which estimators are unbiased and which are not, against exact gradients: one per cent of a gradient is seen.

q = N(1.5, 0.7²), p(z) = N(0, 1), K = 3: the mean over the samples is an integral over three normals, which quadrature
gives to many digits. Most cases take millions of draws.
"""

from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.test_estimators import gradients, pair
from vae.objectives.table import BASELINES, BOUNDS, ESTIMATORS, REFUSED, TVO_SCHEDULES
from vae.options import flattened

pytestmark = pytest.mark.usefixtures("float64")

LOC, SCALE, NUM_SAMPLES, NUM_NODES, BLOCK = 1.5, 0.7, 3, 60, 200_000
MOST_BLOCKS = 60
# Of each estimator, the parts of the gradient (loc and log σ of q, loc of p) that are biased, and with which bounds.
ALL = frozenset(BOUNDS)
LINEAR = {"elbo_mc"}
BIASED = {
    "reparameterized": ((), ()),
    "stl": ((0, 1), ALL - LINEAR),
    "dreg": ((), ()),
    "gdreg": ((), ()),
    "score": ((), ()),
    "ovis": ((), ()),
    "covariance": ((0, 1), ALL),
}
# A maximum has no smooth integrand; miwae is linear in the iwae bounds of its groups; piwae has two bounds.
EXACT = [name for name in BOUNDS if name not in ("vr_max", "piwae")]


def redrawing(*of_prior):
    """The same model, with a prior that moves samples, as gdreg needs."""
    model = pair(*of_prior)

    class Redrawing(type(model.prior({"decoder": {"shift": jnp.zeros(())}}))):
        def redrawn(self, z):
            scale = jnp.exp(self.log_scale)[None]
            return self.loc[None] + scale * jax.lax.stop_gradient((z - self.loc[None]) / scale)

    jax.tree_util.register_pytree_node(Redrawing, lambda p: (tuple(p), None), lambda _, leaves: Redrawing(*leaves))
    return model._replace(prior=lambda params, y=None: Redrawing(*model.prior(params)))


def options_of(name):
    """The numbers of a bound; with the default of beta, the points of tvo are near 0."""
    return {"tvo_beta": 0.3} if name == "tvo" else {}


@cache
def exact(name, **options):
    """∂E F/∂(loc of q, log σ of q, loc of p), by quadrature over the noise of the samples."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    noise = np.stack([axis.ravel() for axis in np.meshgrid(*[nodes] * NUM_SAMPLES)])
    weights = np.prod([axis.ravel() for axis in np.meshgrid(*[weights / weights.sum()] * NUM_SAMPLES)], axis=0)
    row = BOUNDS["iwae" if name == "miwae" else name]
    values = {option: one.default for option, one in flattened(row.options).items()} | options_of(name) | options
    bound = partial(row.function, **values)

    def mean(params):
        loc, log_scale, shift = params
        z = loc + jnp.exp(log_scale) * noise
        log_w = -0.5 * (z - shift) ** 2 + 0.5 * noise**2 + log_scale
        return (weights * bound(log_w)).sum()

    return np.asarray(jax.jit(jax.grad(mean))(jnp.asarray([LOC, np.log(SCALE), 0.0])))


def until_one_per_cent_is_seen(name, estimator, expected, **options):
    """The mean gradient and its standard error, of so many draws that 1 % of each part is four of them."""
    model = redrawing if estimator == "gdreg" else pair
    options |= options_of(name) | ({"upper_latent_dim": 1} if estimator == "gdreg" else {})
    blocks, squares = [], []
    for seed in range(MOST_BLOCKS):
        found = gradients(name, estimator, NUM_SAMPLES, LOC, SCALE, num_draws=BLOCK, seed=seed, model=model, **options)
        blocks.append(found.mean(0))
        squares.append(found.var(0))
        error = np.sqrt(np.mean(squares, axis=0) / (BLOCK * len(blocks)))
        if (error < np.abs(expected) / 400).all():
            return np.mean(blocks, axis=0), error
    raise AssertionError(f"{MOST_BLOCKS} blocks do not show one per cent: {error / np.abs(expected)}")


def judge(name, estimator, **options):
    """Holds what `BIASED` says of the pair."""
    expected = exact(name, **{option: value for option, value in options.items() if option.startswith("tvo")})
    mean, error = until_one_per_cent_is_seen(name, estimator, expected, **options)
    parts, bounds = BIASED[estimator]
    biased = np.isin(np.arange(3), parts if name in bounds else ())
    distance = np.abs(mean - expected) / error
    assert (distance[~biased] < 4.5).all(), distance
    assert not biased.any() or distance[biased].max() > 6, distance


def test_every_estimator_says_whether_it_is_biased():
    assert BIASED.keys() == ESTIMATORS.keys()


def test_the_quadrature_of_the_elbo_is_its_closed_form_and_that_of_iwae_does_not_change_with_more_nodes(monkeypatch):
    np.testing.assert_allclose(exact("elbo_mc"), [-LOC, 1 - SCALE**2, LOC], atol=1e-10)
    fine = exact("iwae")
    monkeypatch.setitem(globals(), "NUM_NODES", 40)
    np.testing.assert_allclose(exact.__wrapped__("iwae"), fine, rtol=1e-4)


# Where nothing goes through the samples, one per cent takes most draws: test_estimators.py has the other bounds.
NOISY = [
    (name, estimator) for name in EXACT for estimator in ("score", "ovis") if name not in ("elbo_mc", "iwae", "tvo")
]
PAIRS = [one for one in product(EXACT, ESTIMATORS) if one not in REFUSED and one not in NOISY]
CHEAP = [("iwae", "dreg"), ("iwae", "stl")]


@pytest.mark.parametrize(
    ("name", "estimator"), [pytest.param(*one, marks=[] if one in CHEAP else pytest.mark.soak) for one in PAIRS]
)
def test_an_estimator_is_unbiased_or_biased_as_is_said_of_it(name, estimator):
    judge(name, estimator)


@pytest.mark.soak
@pytest.mark.parametrize("baseline", [name for name in BASELINES if name != "vimco"])
def test_every_baseline_leaves_the_score_estimator_unbiased(baseline):
    judge("iwae", "score", baseline=baseline)


@pytest.mark.soak
@pytest.mark.parametrize("schedule", TVO_SCHEDULES)
@pytest.mark.parametrize("estimator", ["dreg", "covariance"])
def test_every_schedule_of_tvo_and_right_sums_are_as_is_said_of_them(schedule, estimator):
    judge("tvo", estimator, tvo_schedule=schedule, tvo_sum="right")


@pytest.mark.soak
def test_the_bias_of_the_covariance_gradient_of_the_encoder_is_of_the_order_one_over_k():
    """Against the objective of infinitely many samples, at q = N(0.5, 1.2²): π_β has the precision β + (1 − β)/σ²."""

    def limit(params):
        loc, log_scale = params
        precision = jnp.exp(-2 * log_scale)
        beta = jnp.asarray([0, 0.3])
        variance = 1 / (beta + (1 - beta) * precision)
        mean = variance * (1 - beta) * precision * loc
        of_p, of_q = variance + mean**2, precision * (variance + (mean - loc) ** 2)
        return (jnp.asarray([0.3, 0.7]) * (-0.5 * of_p + 0.5 * of_q + log_scale)).sum()

    def bias(num_samples):
        about = {"num_draws": 20_000, "tvo_partitions": 2, "tvo_beta": 0.3}
        draws = [gradients("tvo", "covariance", num_samples, 0.5, 1.2, seed=seed, **about) for seed in range(30)]
        return np.mean(draws, axis=(0, 1))[:2] - jax.grad(limit)(jnp.asarray([0.5, np.log(1.2)]))

    np.testing.assert_allclose(bias(8) / bias(32), 4, rtol=0.25)
