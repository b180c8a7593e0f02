"""objectives.py against closed forms and numpy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.marks import soaked
from tests.oracles.linear_gaussian import LinearGaussian
from vae import objectives
from vae.models import model as models
from vae.objectives import BOUNDS, OBJECTIVES, REFUSED, ObjectiveError
from vae.objectives.table import ESTIMATORS
from vae.settings import Hyperparameters, Settings

NO_NUMBERS = Hyperparameters()


def apply(objective, model, x, params=None, seed=0):
    params = {} if params is None else params
    call = jax.jit(lambda key, params, x: objective.apply(key, params, model, models.Batch(x), NO_NUMBERS, 0))
    return call(jax.random.key(seed), params, jnp.asarray(x))


def settings_for(name, estimator="reparameterized", num_samples=1, image_shape=(6, 1, 1), **others):
    fields = {
        "objective": name,
        "estimator": estimator,
        "num_samples": num_samples,
        "num_groups": 2 if OBJECTIVES[name].grouped else 1,
        "latent_dim": LATENT_DIM,
        "discriminator_sizes": (5,),
    }
    return Settings(image_shape, **(fields | others))


def apply_all(names, model, x):
    """What `apply` gives of each of several objectives, by one program."""
    built = {
        name: objectives.build(settings_for(name, num_samples=3 if name.startswith("jackknife") else 1))
        for name in names
    }

    @jax.jit
    def applied(key, x):
        return {
            name: objective.apply(key, {}, model, models.Batch(x), NO_NUMBERS, 0) for name, objective in built.items()
        }

    with jax.debug_key_reuse(False):  # each objective spends the same key
        return jax.device_get(applied(jax.random.key(0), jnp.asarray(x)))


@cache
def with_the_exact_posterior():
    """The bounds of some x, and their log p(x)."""
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=20)
    return apply_all([*BOUNDS, "rws"], oracle.model("exact"), x), oracle.log_p(x)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [*BOUNDS, "rws"])
def test_with_the_exact_posterior_every_bound_is_log_p(name):
    found, log_p = with_the_exact_posterior()
    np.testing.assert_allclose(found[name][1], log_p, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["elbo", "elbo_mc"])
def test_expected_elbo_is_log_p_minus_the_kl_to_the_exact_posterior(name):
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=4)
    _, bound, _ = apply(objectives.build(settings_for(name, num_samples=20_000)), oracle.model("diagonal"), x)
    np.testing.assert_allclose(bound, oracle.log_p(x) - oracle.diagonal_gap, atol=0.08)


LATENT_DIM = 4


@cache
def small_model():
    model = models.build(Settings((3, 3, 1), hidden_sizes=(), latent_dim=LATENT_DIM))
    batch = models.Batch(jnp.round(jax.random.uniform(jax.random.key(0), (5, 3, 3, 1))))
    return model, batch, jax.device_get(jax.jit(model.init)(jax.random.key(1), batch))


def objectives_params(objective, model, params):
    def init(key):
        return objective.init(key, model)

    key = jax.random.key(4)
    # Most have none, which takes no program to see.
    return params | ({"objective": jax.device_get(jax.jit(init)(key))} if jax.eval_shape(init, key) else {})


@pytest.mark.parametrize(
    "name",
    # That of order 2 compiles for seconds. Order 1 leaves samples out too, and test_bounds.py has both.
    soaked(OBJECTIVES, "jackknife_2"),
)
def test_every_estimator_reports_the_bound_and_has_a_finite_gradient_even_at_extreme_parameters(name):
    model, batch, params = small_model()
    # Of models whose prior learns, gdreg is in tests/models/test_protocol_models.py.
    allowed = [e for e, how in ESTIMATORS.items() if (name, e) not in REFUSED and not how.redraws_prior]
    built = {e: objectives.build(settings_for(name, e, num_samples=4, image_shape=(3, 3, 1))) for e in allowed}
    params = objectives_params(built["reparameterized"], model, params)
    traces = []

    @jax.jit
    def values_and_gradients(params):
        traces.append(1)

        def surrogate(params, objective):
            value, *reported = objective.apply(jax.random.key(2), params, model, batch, NO_NUMBERS, 0)
            return value, reported

        return {e: jax.grad(surrogate, has_aux=True)(params, objective) for e, objective in built.items()}

    for scale in (1.0, 1e3):
        found = jax.device_get(values_and_gradients(jax.tree.map(lambda p, s=scale: np.float32(s) * p, params)))
        expected = found["reparameterized"][1][0]
        for estimator, (gradient, (bound, metrics)) in found.items():
            assert {value.shape for value in (bound, *metrics.values())} == {(5,)}
            np.testing.assert_allclose(bound, expected, rtol=1e-6)
            assert np.isfinite(bound).all()
            for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
                assert np.isfinite(leaf).all(), (estimator, path)
                assert scale > 1 or (leaf != 0).any(), (estimator, path)
    assert len(traces) == 1


@pytest.mark.parametrize(("name", "estimator"), list(REFUSED))
def test_a_pair_that_makes_no_sense_is_refused_with_the_reason(name, estimator):
    with pytest.raises(ObjectiveError, match=REFUSED[name, estimator][:20]):
        objectives.build(settings_for(name, estimator, num_samples=4))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings((1, 1, 1), objective="iwae", estimator="score"), "num_samples of 2"),
        (Settings((1, 1, 1), objective="jackknife_2", num_samples=2), "num_samples above"),
        (Settings((1, 1, 1), objective="iwae", num_groups=2), "no effect"),
    ],
)
def test_too_few_samples_or_groups_without_effect_are_refused(settings, reason):
    with pytest.raises(ObjectiveError, match=reason):
        objectives.build(settings)


# Those of the discriminator's optimiser are no part of the bound (test_training.py), nor those of a controller
# (test_controlled.py).
NUMBERS = {
    name: [
        field
        for field in OBJECTIVES[name].fields
        if field in Hyperparameters._fields and not field.startswith("discriminator_")
    ]
    for name, row in OBJECTIVES.items()
    if not row.holds
}


@pytest.mark.parametrize("name", [name for name, numbers in NUMBERS.items() if numbers])
def test_every_hyperparameter_changes_the_bound_without_a_new_trace(name):
    model, batch, params = small_model()
    settings = settings_for(
        name, num_samples=4, image_shape=(3, 3, 1), warmup_shape="cyclical", weight_schedule="cyclical"
    )
    objective = objectives.build(settings)
    params = objectives_params(objective, model, params)

    @jax.jit
    def bounds(params, hyperparameters):
        def bound(hyperparameters):
            return objective.apply(jax.random.key(2), params, model, batch, hyperparameters, 3)[1].mean()

        return jax.vmap(bound)(hyperparameters)

    # One row where nothing is changed, and one for each field.
    plain = NO_NUMBERS._replace(warmup_steps=8.0, warmup_cycles=1.0, capacity_steps=8.0)
    plain = plain._replace(weight_steps=8.0, weight_cycles=1.0)
    changed = [plain] + [plain._replace(**{field: getattr(plain, field) + 0.3}) for field in NUMBERS[name]]
    found = bounds(params, jax.tree.map(lambda *values: jnp.asarray(values, jnp.float32), *changed))
    assert (found[1:] != found[0]).all(), dict(zip(NUMBERS[name], found[1:] - found[0], strict=True))


def test_analytic_and_sampled_elbo_differ_only_by_the_noise_of_the_kl():
    model, batch, params = small_model()
    _, analytic, a = apply(objectives.build(settings_for("elbo", num_samples=50_000)), model, batch.x, params)
    _, sampled, s = apply(objectives.build(settings_for("elbo_mc", num_samples=50_000)), model, batch.x, params)
    # The same key draws the same z, so the reconstructions agree exactly.
    np.testing.assert_allclose(a["reconstruction"], s["reconstruction"], rtol=1e-5)
    np.testing.assert_allclose(analytic, sampled, atol=0.05)
    np.testing.assert_allclose(analytic, a["reconstruction"] - a["kl"], rtol=1e-5)
    np.testing.assert_allclose(sampled, s["reconstruction"] - s["kl"], rtol=1e-5)


def test_fault_pixels_are_averaged_and_latent_dimensions_left_unreduced():
    """A picture twice as large has twice the reconstruction term, and the KL is one number per example."""
    oracle = LinearGaussian.random(seed=0)
    twice = LinearGaussian(np.tile(oracle.weights, (2, 1)), np.tile(oracle.bias, 2), oracle.sigma)
    x = oracle.sample(seed=1, num_examples=3)
    wide = np.concatenate([x, x], axis=1)
    _, bound, metrics = apply(objectives.build(settings_for("elbo")), oracle.model("diagonal"), x)
    assert bound.shape == metrics["kl"].shape == metrics["reconstruction"].shape == (3,)
    model = oracle.model("diagonal")
    same_z = model._replace(likelihood=twice.model().likelihood, posterior=lambda params, batch: model.posterior(
        params, models.Batch(batch.x[:, :6])
    ))  # fmt: skip
    _, _, doubled = apply(objectives.build(settings_for("elbo")), same_z, wide)
    np.testing.assert_allclose(doubled["reconstruction"], 2 * metrics["reconstruction"], rtol=1e-5)


def test_fault_the_field_elbo_holds_its_negative():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=50)
    found = apply_all(["elbo", *BOUNDS], oracle.model("diagonal"), x)
    for name, (surrogate, bound, metrics) in found.items():
        assert bound.mean() < 0, name
        assert bound.mean() < oracle.log_p(x).mean() + 0.5, name
        assert np.sign(surrogate) == np.sign(bound.mean()), name
        assert metrics["kl"].mean() > 0, name


def test_fault_evaluating_at_the_posterior_mean_is_called_the_elbo():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=4)
    first, second = (
        apply(objectives.build(settings_for("elbo")), oracle.model("diagonal"), x, seed=seed)[1] for seed in (0, 1)
    )
    assert (first != second).all()


def test_an_analytic_kl_that_does_not_exist_is_refused_with_the_reason():
    oracle = LinearGaussian.random(seed=0)
    with pytest.raises(ValueError, match="closed form"):
        apply(objectives.build(settings_for("elbo")), oracle.model("exact"), oracle.sample(1, 2).astype(np.float32))
