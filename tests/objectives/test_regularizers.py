"""objectives/regularized.py: each objective against its equation, with numpyro's densities."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special

from tests.marks import soaked
from tests.oracles.linear_gaussian import LinearGaussian
from vae import objectives
from vae.models.model import Batch, Model
from vae.models.normals import DiagonalNormal, standard_normal
from vae.objectives import REGULARIZERS, ObjectiveError
from vae.objectives.regularized import balance, warmup_weight
from vae.settings import Hyperparameters, Settings
from vae.training.step import END

pytestmark = pytest.mark.usefixtures("float64")

GENERATOR = np.random.default_rng(0)
BATCH_SIZE, LATENT_DIM = 5, 4
LOC, LOG_SCALE = GENERATOR.normal(size=(2, BATCH_SIZE, LATENT_DIM))
KL = 0.5 * (np.exp(2 * LOG_SCALE) + LOC**2 - 1) - LOG_SCALE  # of N(LOC, exp(LOG_SCALE)²) and N(0, 1), [B, D]


class Silent:
    """A likelihood that says nothing."""

    def __init__(self, z):
        self.z = z

    def log_prob(self, x):
        del x
        return jnp.zeros(self.z.shape[:-1])


MODEL = Model(
    init=lambda key, batch: {},
    posterior=lambda params, batch: DiagonalNormal(params["loc"], params["log_scale"]),
    prior=lambda params, y=None: standard_normal(LATENT_DIM),
    likelihood=lambda params, z, y=None: Silent(z),
)


def params():
    return {"loc": jnp.asarray(LOC), "log_scale": jnp.asarray(LOG_SCALE)}


@cache
def compiled(settings):
    """Gradient of the surrogate with the bound and the metrics, as a function of all that is no setting."""
    objective = objectives.build(settings)

    @jax.jit
    def found(params, key, step, dataset_size, hyperparameters):
        batch = Batch(jnp.zeros((len(params["loc"]), 1, 1, 1)), dataset_size=dataset_size)

        def surrogate(params):
            value, bound, metrics = objective.apply(key, params, MODEL, batch, hyperparameters, step)
            return value, (bound, metrics)

        return jax.grad(surrogate, has_aux=True)(params)

    return found


def apply(name, step=0, num_samples=1, seed=0, params=params, settings=None, dataset_size=None, **numbers):
    """(bound [B], metrics, gradient of the surrogate) at fixed posteriors, whose reconstruction is zero."""
    settings = Settings((1, 1, 1), objective=name, num_samples=num_samples, latent_dim=LATENT_DIM, **settings or {})
    found = compiled(settings)(params(), jax.random.key(seed), step, dataset_size, Hyperparameters(**numbers))
    gradient, (bound, metrics) = jax.device_get(found)
    return bound, metrics, gradient


def test_elbo_subtracts_the_analytic_kl():
    bound, metrics, _ = apply("elbo")
    np.testing.assert_allclose(bound, -KL.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(metrics["kl"], KL.sum(-1), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_kl_and_reports_it_unweighted(beta):
    """Higgins et al. (2017), eq. 4."""
    bound, metrics, _ = apply("beta", beta=beta)
    np.testing.assert_allclose(bound, -beta * KL.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(metrics["kl"], KL.sum(-1), rtol=1e-12)


def test_beta_of_a_posterior_without_a_closed_form_takes_the_kl_from_samples():
    oracle = LinearGaussian.random(seed=0)
    x = jnp.asarray(oracle.sample(seed=1, num_examples=3))
    settings = Settings((6, 1, 1), objective="beta", num_samples=20_000)
    objective, model = objectives.build(settings), oracle.model("exact")
    _, _, metrics = jax.jit(lambda x: objective.apply(jax.random.key(0), {}, model, Batch(x), Hyperparameters(), 0))(x)
    means, covariance = oracle.posterior_mean(np.asarray(x)), oracle.posterior_covariance

    @jax.jit
    def kl(means):
        prior = dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))
        return [dist.kl_divergence(dist.MultivariateNormal(mean, covariance), prior) for mean in means]

    expected = kl(list(means))
    np.testing.assert_allclose(metrics["kl"], expected, atol=0.08)


@pytest.mark.parametrize("name", ["elbo", "free_bits"])
def test_an_analytic_kl_that_does_not_exist_is_refused_with_the_reason(name):
    oracle = LinearGaussian.random(seed=0)
    objective, model = objectives.build(Settings((6, 1, 1), objective=name)), oracle.model("exact")

    def apply(x):
        return objective.apply(jax.random.key(0), {}, model, Batch(x), Hyperparameters(), 0)

    with pytest.raises(ObjectiveError, match="closed form"):
        jax.eval_shape(apply, jnp.asarray(oracle.sample(1, 2)))


jitted_weight = jax.jit(warmup_weight, static_argnums=0)


@pytest.mark.parametrize("step", [0, 1, 5, 10, 12, 25, 35, 40, 41, 1000])
def test_warmup_weights_are_those_of_the_papers(step):
    """Sønderby et al. (2016): linear; Bowman et al. (2016): logistic; Fu et al. (2019), eq. 7 with R = ½, M = 4."""
    total, cycles = 40, 4
    position = (step % (total // cycles)) / (total / cycles)
    expected = {
        "linear": min(1.0, step / total),
        "sigmoid": scipy.special.expit(10 * (step / total - 0.5)),
        "cyclical": 1.0 if step >= total else min(1.0, position / 0.5),
    }
    for shape, weight in expected.items():
        assert jitted_weight(shape, step, float(total), float(cycles)) == pytest.approx(weight, abs=1e-6), shape
        bound, metrics, _ = apply(
            "warmup", step, settings={"warmup_shape": shape}, warmup_steps=float(total), warmup_cycles=float(cycles)
        )
        np.testing.assert_allclose(bound, -weight * KL.sum(-1), atol=1e-5)
        np.testing.assert_allclose(metrics["kl"], KL.sum(-1), rtol=1e-12)


@pytest.mark.parametrize("shape", ["linear", "sigmoid", "cyclical"])
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_without_warmup_steps_the_warmup_is_over_from_the_first_step_on(shape, step):
    bound, _, gradient = apply("warmup", step=step, settings={"warmup_shape": shape}, warmup_steps=0.0)
    np.testing.assert_array_equal(bound, apply("elbo")[0])  # the weight is 1 to the last bit
    np.testing.assert_array_equal(gradient["loc"], apply("elbo")[2]["loc"])


# What each objective is without the term whose weight is scheduled, by its metrics.
UNSCHEDULED = {
    **dict.fromkeys(("beta", "capacity", "free_bits"), lambda m: 0 * m["kl"]),
    **dict.fromkeys(("dip_i", "dip_ii"), lambda m: -m["kl"]),
    "beta_tcvae": lambda m: -m["mutual_information"] - m["dimension_wise_kl"],
    "info": lambda m: 0 * m["kl"],  # with α = 1
}


@pytest.mark.parametrize(
    "name", soaked([name for name, row in REGULARIZERS.items() if row.scheduled and name != "factor"], "dip_ii", "info")
)
def test_a_scheduled_weight_rises_from_none_to_what_it_is_without_the_schedule(name):
    """β-VAE with a linear schedule is the annealed β-VAE; `factor` needs its discriminator: test_..._aggregate.py."""
    numbers = {"weight_steps": 8.0, "capacity_steps": 0.0}
    plain, metrics, _ = apply(name, dataset_size=100)
    nothing = UNSCHEDULED[name](metrics)
    assert np.abs(plain - nothing).max() > 0.1
    for step, weight in ((0, 0.0), (3, 3 / 8), (8, 1.0), (END, 1.0)):
        bound, unweighted, _ = apply(name, step, dataset_size=100, settings={"weight_schedule": "linear"}, **numbers)
        np.testing.assert_allclose(bound, nothing + weight * (plain - nothing), rtol=1e-10, atol=1e-10)
        jax.tree.map(np.testing.assert_array_equal, unweighted, metrics)


def test_the_shapes_of_a_scheduled_weight_are_those_of_the_warmup():
    for shape in ("linear", "sigmoid", "cyclical"):
        numbers, step = {"beta": 1.0, "weight_steps": 40.0, "weight_cycles": 3.0}, 27
        found = apply("beta", step, settings={"weight_schedule": shape}, **numbers)
        numbers = {"warmup_steps": 40.0, "warmup_cycles": 3.0}
        wanted = apply("warmup", step, settings={"warmup_shape": shape}, **numbers)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, wanted)


@pytest.mark.parametrize("step", [0, 1, 1000])
@pytest.mark.parametrize("capacity_of", ["example", "batch"])
def test_without_capacity_steps_the_target_is_reached_from_the_first_step_on(step, capacity_of):
    """C above every KL, so that the gap is C − KL: an earlier target would show in full."""
    numbers = {"capacity_weight": 3.0, "max_capacity": 100.0, "capacity_steps": 0.0}
    bound, _, _ = apply("capacity", step, settings={"capacity_of": capacity_of}, **numbers)
    assert KL.sum(-1).max() < 100
    expected = KL.sum(-1) if capacity_of == "example" else KL.sum(-1).mean()
    np.testing.assert_allclose(bound, -3.0 * (100 - expected) * np.ones(BATCH_SIZE), rtol=1e-12)


def test_a_capacity_holds_the_kl_of_each_example_or_the_mean_of_the_batch():
    """By hand: KL(N(m, 1) ‖ N(0, 1)) = m²/2, so means 2, 4 and 0 in one dimension have 2, 8 and 0 nats; C = 4, γ = 10.

    Each example: gaps 2, 4, 4, and d/dm −γ·|m²/2 − C|/3 = ∓10·m/3: below C, above C, 0. The batch: the mean is 10/3,
    the gap 2/3 for each, and all means are pulled up: +10·m/3.
    """

    def three():
        loc = np.zeros((3, LATENT_DIM))
        loc[:, 0] = [2, 4, 0]
        return {"loc": jnp.asarray(loc), "log_scale": jnp.zeros((3, LATENT_DIM))}

    expected = {
        "example": ([2, 4, 4], np.asarray([20, -40, 0]) / 3),
        "batch": ([2 / 3] * 3, np.asarray([20, 40, 0]) / 3),
    }
    for capacity_of, (gaps, slopes) in expected.items():
        settings = {"capacity_of": capacity_of}
        bound, metrics, gradient = apply(
            "capacity", params=three, settings=settings, capacity_weight=10.0, max_capacity=4.0
        )
        np.testing.assert_allclose(metrics["capacity_gap"], gaps, rtol=1e-12)
        np.testing.assert_allclose(bound, -10 * np.asarray(gaps), rtol=1e-12)
        np.testing.assert_allclose(gradient["loc"][:, 0], slopes, atol=1e-12)
        np.testing.assert_allclose(metrics["kl"], [2, 8, 0], rtol=1e-12)


@pytest.mark.parametrize(("step", "target"), [(0, 0.0), (5, 10.0), (10, 20.0), (100, 20.0)])
def test_capacity_is_gamma_times_the_distance_of_the_kl_from_a_rising_target(step, target):
    """Burgess et al. (2018), eq. 8."""
    bound, _, gradient = apply("capacity", step, capacity_weight=3.0, max_capacity=20.0, capacity_steps=10.0)
    np.testing.assert_allclose(bound, -3.0 * np.abs(KL.sum(-1) - target), rtol=1e-6)
    # The mean's gradient is that of ±γ·KL: dKL/dμ = μ.
    sign = np.sign(KL.sum(-1) - target)[:, None]
    np.testing.assert_allclose(gradient["loc"], -3.0 * sign * LOC / BATCH_SIZE, rtol=1e-6)


def test_free_bits_leave_no_gradient_under_the_threshold_and_the_whole_one_above():
    """Kingma et al. (2016), eq. 15: the mean over the batch is compared, dimension by dimension."""
    means = KL.mean(0)
    threshold = float(np.sort(means)[1:3].mean())  # two dimensions above, two below
    bound, _, gradient = apply("free_bits", free_nats=threshold)
    np.testing.assert_allclose(bound, -np.maximum(means, threshold).sum(), rtol=1e-12)
    above = means > threshold
    assert above.sum() == 2
    assert (np.asarray(gradient["loc"])[:, ~above] == 0).all()
    assert (np.asarray(gradient["log_scale"])[:, ~above] == 0).all()
    np.testing.assert_allclose(np.asarray(gradient["loc"])[:, above], -LOC[:, above] / BATCH_SIZE, rtol=1e-6)


@pytest.mark.parametrize(("size", "num_groups"), [(1, 4), (2, 2), (4, 1), (0, 1)])
def test_free_bits_per_group_compare_the_sum_of_adjacent_dimensions(size, num_groups):
    groups = KL.mean(0).reshape(num_groups, -1).sum(-1)
    threshold = float(groups.mean())
    bound, _, _ = apply("free_bits", settings={"free_bits_group_size": size}, free_nats=threshold)
    np.testing.assert_allclose(bound, -np.maximum(groups, threshold).sum(), rtol=1e-12)


def test_the_balance_of_layers_is_what_they_carry_for_each_dimension_and_has_no_gradient():
    """Vahdat & Kautz (2020), appendix A: γ_l = L·c_l/Σc with c_l = (mean |KL_l| + 0.01)/D_l."""
    layers, sizes = [jnp.asarray([3.0, -1.0, 2.0]), jnp.asarray([0.5, 0.25, 0.0])], [10, 4]
    carried = np.array([(2 + 0.01) / 10, (0.25 + 0.01) / 4])
    np.testing.assert_allclose(balance(layers, sizes), 2 * carried / carried.sum(), rtol=1e-12)
    assert (jax.grad(lambda kl: balance([kl, layers[1]], sizes)[0])(layers[0]) == 0).all()


def test_free_bits_groups_that_do_not_fill_the_dimensions_are_refused():
    with pytest.raises(ObjectiveError, match="does not divide the 4"):
        apply("free_bits", settings={"free_bits_group_size": 3})


def test_zero_free_nats_are_the_elbo_on_average():
    assert apply("free_bits", free_nats=0.0)[0].mean() == pytest.approx(-KL.sum(-1).mean(), rel=1e-12)


def test_fault_the_kl_weight_in_validation_is_another_than_in_training():
    """The bound and the surrogate share one weight; training.validate takes every schedule at its end."""
    from vae.training import step as training

    bound, _, _ = apply("warmup", training.END, warmup_steps=1e6)
    np.testing.assert_allclose(bound, -KL.sum(-1), rtol=1e-12)
    bound, _, _ = apply("beta", beta=4.0)
    np.testing.assert_allclose(bound, -4 * KL.sum(-1), rtol=1e-12)
