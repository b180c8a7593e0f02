"""step.py: schedules, the optimiser, the step, and what does not change a bit."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae import objectives
from vae.datasets import Split
from vae.datasets.images import moments
from vae.models import model as models
from vae.settings import Hyperparameters, Settings
from vae.training import optimizers
from vae.training import step as training

SETTINGS = Settings((4, 4, 1), hidden_sizes=(8,), latent_dim=2, batch_size=5)
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1)).astype(np.uint8)
ROOT_SEED = 3


def parts(settings):
    return {
        "model": models.build(settings),
        "objective": objectives.build(settings),
        "settings": settings,
    }


def arrays(hyperparameters):
    return jax.tree.map(jnp.asarray, hyperparameters)


@cache
def compiled(settings, sharding=None):
    """`initialize` and `train_steps` of the settings, compiled once for all tests."""
    initialize = jax.jit(partial(training.initialize, **parts(settings)))
    return initialize, jax.jit(partial(training.train_steps, **parts(settings), sharding=sharding))


def first_state(settings, hyperparameters=None):
    hyperparameters = arrays(hyperparameters or Hyperparameters())
    return compiled(settings)[0](jax.random.key(ROOT_SEED), hyperparameters=hyperparameters, moments=moments(IMAGES))


def train(settings, stops, hyperparameters=None, data=IMAGES, sharding=None, begin=None):
    """The state after training to each of `stops`, one compiled call for each; `begin`: settings that start so too."""
    hyperparameters = hyperparameters or Hyperparameters()
    step = compiled(settings, sharding)[1]
    state = first_state(begin or settings, hyperparameters)
    if sharding is not None:  # where each call leaves it, or the first would be a program of its own
        state = jax.device_put(state, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))
    for stop in stops:
        state = step(jax.random.key(ROOT_SEED), state, Split(data), jnp.int32(stop), arrays(hyperparameters))
    return state


def assert_same_bits(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_fault_learning_rate_stages_of_3_to_the_i_epochs_are_at_wrong_milestones():
    """Burda et al. (2016): stage i lasts 3^i epochs at 1e-3·10^(−i/7), so it ends at 1, 4, 13, 40, 121, … epochs."""
    h = arrays(
        Hyperparameters(
            learning_rate=1e-3, stage_steps=[3**i for i in range(8)], stage_factors=[10 ** (-i / 7) for i in range(8)]
        )
    )
    rate = jax.jit(lambda step: optimizers.learning_rate("stages", h, step))
    milestones = [0, 1, 4, 13, 40, 121, 364, 1093]
    for stage, first in enumerate(milestones):
        assert rate(jnp.int32(first)) == pytest.approx(1e-3 * 10 ** (-stage / 7), rel=1e-5)
        if first:
            assert rate(jnp.int32(first - 1)) == pytest.approx(1e-3 * 10 ** (-(stage - 1) / 7), rel=1e-5)
    assert rate(jnp.int32(10_000)) == pytest.approx(1e-4, rel=1e-5)


def test_cosine_schedule_equals_optax_and_stays_at_zero():
    h = Hyperparameters(learning_rate=0.02, decay_steps=50.0)
    reference = optax.cosine_decay_schedule(0.02, 50)
    for step in (0, 1, 25, 49, 50, 80):
        rate = optimizers.learning_rate("cosine", h, jnp.int32(step))
        assert rate == pytest.approx(float(reference(step)), abs=1e-8)


def test_learning_rates_can_be_vmapped_over():
    rates = jnp.asarray([1e-3, 1e-2])
    h = Hyperparameters(learning_rate=rates, decay_steps=jnp.asarray([10.0, 20.0]))
    together = jax.vmap(
        lambda h: optimizers.learning_rate(
            "cosine", Hyperparameters(learning_rate=h[0], decay_steps=h[1]), jnp.int32(5)
        )
    )((h.learning_rate, h.decay_steps))
    np.testing.assert_allclose(together, [0.5e-3, 1e-2 * 0.5 * (1 + np.cos(np.pi / 4))], rtol=1e-6)


def test_training_steps_equal_a_plain_optax_adam_loop():
    """An independent loop: numpy batching of the same order, optax.adam, the gradient of the negative mean bound."""
    settings = SETTINGS
    h = Hyperparameters(learning_rate=0.01, adam_b1=0.8, adam_b2=0.99, adam_epsilon=1e-6)
    state = train(Settings(**{**settings.to_dict(), "binarization": "none"}), [4, 7], h)
    reference = first_state(settings).params
    optimizer = optax.adam(0.01, b1=0.8, b2=0.99, eps=1e-6)
    optimizer_state = optimizer.init(reference)
    root = jax.random.key(ROOT_SEED)
    p = parts(settings)

    @jax.jit
    def update(params, optimizer_state, x, key):
        def loss(params):
            return -p["objective"].apply(key, params, p["model"], models.Batch(x), h, 0)[1].mean()

        updates, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state

    orders = [np.asarray(training.epoch_order(root, jnp.int32(epoch), len(IMAGES), "epoch")) for epoch in (0, 1)]
    for step in range(7):
        x = jnp.asarray(IMAGES[orders[step // 4][step % 4 * 5 :][:5]] / 255, jnp.float32)
        key = jax.random.fold_in(jax.random.fold_in(root, 3), step)
        reference, optimizer_state = update(reference, optimizer_state, x, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), state.params, reference)


@pytest.mark.parametrize("binarization", ["dynamic", "none"])
def test_how_a_run_is_cut_into_calls_changes_no_bit(binarization):
    settings = Settings(**{**SETTINGS.to_dict(), "binarization": binarization})
    assert_same_bits(train(settings, [4, 8]), train(settings, [1, 3, 4, 5, 7, 8]))


def test_every_epoch_goes_through_each_image_once_in_a_new_order():
    root = jax.random.key(0)
    first, second = (np.asarray(training.epoch_order(root, jnp.int32(epoch), 23, "epoch")) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(23))
    assert (first != second).any()
    assert (training.epoch_order(root, jnp.int32(1), 23, "never") == jnp.arange(23)).all()


def test_dynamic_binarization_draws_anew_at_every_visit_with_the_pixels_probability():
    from vae.datasets.images import seen_in_training

    grey = np.full((2000, 4, 4, 1), 51, np.uint8)
    root = jax.random.key(0)
    first, second = (seen_in_training(jax.random.fold_in(root, t), jnp.asarray(grey), "dynamic") for t in (0, 1))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert first.mean() == pytest.approx(0.2, abs=0.01)
    assert (first != second).any()
    assert (seen_in_training(root, jnp.asarray(grey * 5), "dynamic") == 1).all()


def test_batch_means_are_summed_since_the_epoch_began():
    whole = train(SETTINGS, [4]).sums["bound"]
    begun = train(SETTINGS, [4, 5]).sums["bound"]
    one = train(SETTINGS, [4, 5]).recent.bound[4]
    assert whole == pytest.approx(float(train(SETTINGS, [4]).recent.bound[:4].sum()), rel=1e-6)
    assert begun == one


def test_a_step_whose_bound_is_not_finite_is_the_last():
    images = IMAGES.astype(np.float32) / 255
    images[7] = np.nan
    state = train(Settings(**{**SETTINGS.to_dict(), "binarization": "none"}), [4, 8], data=images)
    order = np.asarray(training.epoch_order(jax.random.key(ROOT_SEED), jnp.int32(0), len(IMAGES), "epoch"))
    bad_step = int(np.flatnonzero(order == 7)[0]) // 5
    assert bad_step < 4
    assert state.step == bad_step + 1
    assert not training.last_step_was_finite(state)
    assert training.last_step_was_finite(first_state(SETTINGS))


@pytest.mark.parametrize(
    ("bound", "gradient_norm", "finite"),
    [
        (-3, 2, True),
        (-np.inf, 2, False),
        (np.inf, 2, False),
        (np.nan, 2, False),
        (-3, np.inf, False),
        (-3, np.nan, False),
    ],
)
def test_a_step_was_finite_if_its_bound_and_its_gradient_were_on_the_host_and_in_a_program(
    bound, gradient_norm, finite
):
    state = jax.tree.map(np.array, train(SETTINGS, [3]))
    state.recent.bound[2], state.recent.gradient_norm[2] = bound, gradient_norm
    assert training.last_step_was_finite(state) == finite
    assert jax.jit(training.last_step_was_finite)(state) == finite


def norm(tree):
    return np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(tree)))


def test_clipping_bounds_the_gradient_that_adam_sees():
    clipped = Settings(**{**SETTINGS.to_dict(), "clip_gradients": True})
    h = Hyperparameters(max_gradient_norm=1e-3, adam_b1=0.0)
    state = train(clipped, [1], h)
    assert norm(state.optimizer_state[1].mu) == pytest.approx(1e-3, rel=1e-4)
    assert state.recent.gradient_norm[0] > 1
    free = train(clipped, [1], h._replace(max_gradient_norm=1e9))
    assert norm(free.optimizer_state[1].mu) == pytest.approx(float(free.recent.gradient_norm[0]), rel=1e-4)


def adam_by_its_equations(gradients, rate, b1, b2, epsilon):
    """The steps of Kingma & Ba (2015), algorithm 1, in float64."""
    m = v = 0.0
    for t, gradient in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        yield rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)


@pytest.mark.parametrize("shared", [False, True])
def test_the_discriminator_of_factor_has_an_adam_of_its_own_unless_it_is_shared(shared):
    """Kim & Mnih (2018): 1e-4, .5 and .9, at any learning rate of the model; clipping is the model's own affair."""
    settings = Settings(
        (4, 4, 1), objective="factor", clip_gradients=True, discriminator_optimizer="shared" if shared else "own"
    )
    h = Hyperparameters(learning_rate=3e-3, max_gradient_norm=1.0)
    gradients = [{"encoder": g[0], "objective": g[1]} for g in np.random.default_rng(0).normal(size=(4, 2, 5)) * 3]
    clipped = []
    for g in gradients:
        norm = np.sqrt(sum((leaf**2).sum() for leaf in ([*g.values()] if shared else [g["encoder"]])))
        clipped.append({name: leaf / norm if shared or name == "encoder" else leaf for name, leaf in g.items()})
    own = (3e-3, 0.9, 0.999) if shared else (1e-4, 0.5, 0.9)
    expected = zip(
        adam_by_its_equations([g["encoder"] for g in clipped], 3e-3, 0.9, 0.999, 1e-8),
        adam_by_its_equations([g["objective"] for g in clipped], *own, 1e-8),
        strict=True,
    )
    optimizer = optimizers.optimizer(settings, h)
    state, update_of = optimizer.init(jax.tree.map(np.float32, gradients[0])), jax.jit(optimizer.update)
    for gradient, (of_model, of_discriminator) in zip(gradients, expected, strict=True):
        update, state = update_of(jax.tree.map(np.float32, gradient), state)
        np.testing.assert_allclose(h.learning_rate * update["encoder"], of_model, rtol=1e-4)
        np.testing.assert_allclose(h.learning_rate * update["objective"], of_discriminator, rtol=1e-4)


def test_adam_of_burda_has_the_updates_of_its_formula_worked_by_hand():
    """Batches of 20 with the mean gradients 0.5 and −0.25: m = 0, 0.1, 0.049 and v = 1, 1.099, 1.122901.

    √(1 − 0.999²)/(1 − 0.99²) = √0.001999/0.0199, and √(1 − 0.999³)/(1 − 0.99³) = √0.002997001/0.029701.
    """
    adam = optimizers.scale_by_adam_burda(0.99, 0.999, 1e-4, batch_size=20)
    state, steps = adam.init({"w": jnp.zeros(())}), []
    for gradient in (0.5, -0.25, 0.0):
        step, state = adam.update({"w": jnp.float32(gradient)}, state)
        steps.append(float(step["w"]))
    assert steps == pytest.approx([0.0, 0.2142955, 0.0852230], rel=1e-5)


def test_average_of_the_weights_follows_its_recursion():
    averaging = Settings(**{**SETTINGS.to_dict(), "average_weights": True})
    h = Hyperparameters(ema_decay=0.15)
    states = jax.tree.map(np.asarray, [first_state(averaging), *(train(averaging, [t], h) for t in (1, 2, 3))])
    expected = states[0].params
    for t in (0, 1, 2):
        decay = min(0.15, (1 + t) / (10 + t))
        expected = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, expected, states[t + 1].params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), states[3].average, expected)
    assert states[3].evaluated_params is states[3].average


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        ({}, {"learning_rate": 2e-3}),
        ({}, {"adam_b1": 0.5}),
        ({}, {"adam_b2": 0.5}),
        ({}, {"adam_epsilon": 1e-2}),
        ({"clip_gradients": True}, {"max_gradient_norm": 1e-9}),
        ({"schedule": "cosine"}, {"decay_steps": 3.0}),
        ({"schedule": "stages"}, {"stage_steps": [1, 2], "stage_factors": [1.0, 0.1]}),
        ({"num_samples": 3}, {}),
        ({"objective": "elbo_mc"}, {}),
        ({"shuffle": "never"}, {}),
        ({"optimizer": "adam_burda"}, {}),
        ({"activation": "relu"}, {}),
        ({"hidden_sizes": (9,)}, {}),
        ({"binarization": "none"}, {}),
        ({"precision": "bfloat16"}, {}),
    ],
    ids=str,
)
def test_every_setting_changes_the_training(change, numbers):
    plain = train(SETTINGS, [3]).recent.bound[2]
    settings = Settings(**{**SETTINGS.to_dict(), **change})
    begin = settings if {"hidden_sizes", "clip_gradients", "optimizer"} & change.keys() else SETTINGS
    changed = train(settings, [3], Hyperparameters(**numbers), begin=begin).recent.bound[2]
    assert changed != plain
    assert jnp.isfinite(changed)


def test_one_trace_serves_every_stop_and_every_hyperparameter():
    p = parts(SETTINGS)
    traces = []

    def counted(*args):
        traces.append(1)
        return training.train_steps(*args, **p)

    step = jax.jit(counted)
    state = first_state(SETTINGS)
    for stop, rate in ((1, 1e-3), (2, 1e-2), (4, 0.1)):
        h = arrays(Hyperparameters(learning_rate=rate))
        state = step(jax.random.key(0), state, Split(IMAGES), jnp.int32(stop), h)
    assert len(traces) == 1


def test_a_batch_shared_by_devices_gives_the_same_parameters():
    settings = Settings(**{**SETTINGS.to_dict(), "batch_size": 8})
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:8]), ("data",))
    shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one, eight = (train(settings, [2, 4], sharding=sharding, begin=SETTINGS) for sharding in (None, shared))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one.params, eight.params)


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_validation_averages_over_every_image_once_with_a_masked_last_batch(batch_size):
    settings = Settings(**{**SETTINGS.to_dict(), "batch_size": batch_size})
    p = parts(settings)
    deterministic = models.build(settings)._replace(posterior=lambda params, batch: _Certain(batch.x))
    state = first_state(SETTINGS)
    validate = jax.jit(partial(training.validate, **{**p, "model": deterministic}))
    found = validate(jax.random.key(0), state.params, Split(jnp.asarray(IMAGES)), Hyperparameters())
    z = jnp.asarray(IMAGES[None, :, 0, :2, 0] / 255, jnp.float32)
    x = jnp.asarray(IMAGES / 255, jnp.float32)
    expected = p["model"].likelihood(state.params, z).log_prob(x[None]).mean()
    assert found["bound"] == pytest.approx(float(expected), rel=1e-5)


def test_a_held_out_batch_is_filled_up_with_other_images_where_an_objective_compares_them():
    """Five images in batches of four: the second one is 4, 0, 1, 2, and counts once."""
    settings = Settings(**{**SETTINGS.to_dict(), "batch_size": 4, "objective": "dip_i"})
    p = parts(settings)
    state, numbers = first_state(SETTINGS), Hyperparameters()
    images = jnp.asarray(IMAGES[:5])
    found = jax.jit(partial(training.validate, **p))(jax.random.key(0), state.params, Split(images), numbers)

    @jax.jit
    def penalty(rows, number):
        batch = models.Batch(images[rows] / 255)
        key = jax.random.fold_in(jax.random.key(0), number)
        return p["objective"].apply(key, state.params, p["model"], batch, numbers, 0)[2]["covariance_off_diagonal"][0]

    expected = (4 * penalty(np.array([0, 1, 2, 3]), 0) + penalty(np.array([4, 0, 1, 2]), 1)) / 5
    assert found["covariance_off_diagonal"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["dip_i", "info", "beta_tcvae"])
def test_a_held_out_split_smaller_than_a_batch_is_one_batch_in_which_no_image_is_twice(name):
    settings = Settings(**{**SETTINGS.to_dict(), "batch_size": 12, "objective": name})
    p, images = parts(settings), jnp.asarray(IMAGES[:5])
    state, numbers = first_state(SETTINGS), Hyperparameters()
    found = jax.jit(partial(training.validate, **p))(jax.random.key(0), state.params, Split(images), numbers)

    @jax.jit
    def terms():
        batch, key = models.Batch(images / 255, dataset_size=5), jax.random.fold_in(jax.random.key(0), 0)
        return p["objective"].apply(key, state.params, p["model"], batch, numbers, training.END)

    _, bound, metrics = terms()
    for term, value in {"bound": bound, **metrics}.items():
        assert found[term] == pytest.approx(float(value.mean()), rel=1e-4), term


@pytest.mark.parametrize(("num_images", "batch_size"), [(1, 4), (3, 4), (4, 4), (5, 4), (8, 4), (23, 7), (2, 1)])
def test_validation_takes_no_image_twice_in_a_batch_and_counts_each_once(num_images, batch_size):
    batches = []

    def apply(key, params, model, batch, hyperparameters, step):
        jax.debug.callback(lambda index: batches.append(index.tolist()), batch.index)
        value = 10.0 ** -batch.index.astype(jnp.float32)  # a sum says how often each of a few has counted
        return value.mean(), value, {"first": (batch.index == 0) * 1.0}

    settings = Settings(**{**SETTINGS.to_dict(), "batch_size": batch_size})
    objective = objectives.Objective(lambda key, model: {}, apply)
    images = jnp.zeros((num_images, *settings.image_shape), jnp.uint8)
    validate = partial(training.validate, **{**parts(settings), "objective": objective})
    found = validate(jax.random.key(0), {}, Split(images), Hyperparameters())
    jax.effects_barrier()
    assert all(len(set(batch)) == len(batch) <= batch_size for batch in batches)
    assert {i for batch in batches for i in batch} == set(range(num_images))
    assert found["bound"] * num_images == pytest.approx(sum(10.0**-i for i in range(num_images)), rel=1e-5)
    assert found["first"] * num_images == pytest.approx(1)


def test_a_state_of_the_objective_is_constant_in_a_step_and_the_next_one_follows_from_the_batchs_means():
    def apply(key, params, model, batch, hyperparameters, step, state: Any = None):
        del key, model, hyperparameters, step
        brightness = batch.x.mean((1, 2, 3))
        return state * params["w"], brightness, {"state": jnp.broadcast_to(state, brightness.shape)}

    def update(state, means, hyperparameters, step):
        return hyperparameters.learning_rate * (2 * state + step + means["bound"]) + 0 * means["state"]

    objective = objectives.Objective(lambda key, model: {}, apply, lambda hyperparameters: jnp.ones(()), update)
    x = jnp.arange(3.0)[:, None, None, None] * jnp.ones((1, 4, 4, 1))
    numbers, params = Hyperparameters(learning_rate=10.0), {"w": jnp.zeros(())}
    adam, nothing = training.optimizer(SETTINGS, numbers), jnp.full(training.NUM_RECENT, jnp.nan)
    state = training.TrainState(
        step=jnp.int32(0),
        params=params,
        optimizer_state=adam.init(params),
        average=None,
        sums={"bound": jnp.zeros(()), "state": jnp.zeros(())},
        recent=training.Recent(nothing, nothing, nothing),
        objective_state=objective.init_state(numbers),
    )
    p = {**parts(SETTINGS), "objective": objective}
    step = jax.jit(lambda state: training.train_step(jax.random.key(0), state, models.Batch(x), numbers, **p))
    for _ in range(3):
        state = step(state)
    expected = np.array([1, 10 * (2 + 0 + 1), 10 * (60 + 1 + 1), 10 * (1240 + 2 + 1)], np.float32)
    assert state.recent.gradient_norm[:3].tolist() == expected[:3].tolist()
    assert (float(state.objective_state), float(state.sums["state"])) == (expected[3], expected[:3].sum())


class _Certain:
    """A posterior that is sure of z = two pixels of x, so that a bound does not depend on how batches draw."""

    def __init__(self, x):
        self.z = x[None, :, 0, :2, 0]

    def sample_and_log_prob(self, key, num_samples):
        del key, num_samples
        return self.z, jnp.zeros(self.z.shape[:-1])

    def kl_per_dimension(self, prior):
        return jnp.zeros(self.z.shape[1:])
