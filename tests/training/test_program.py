"""program.py: a run among others is the run alone; a run that diverges stops and stops no other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.run_samples import assert_close, assert_same_bits, config, digits
from vae.datasets import images
from vae.datasets.images import seen_in_training
from vae.streams import Stream, stream
from vae.training import step as training
from vae.training.program import (
    ALONE,
    STRATEGIES,
    Program,
    cached_program,
    layout_of,
    mesh,
    of_run,
    run_inputs,
    without_parameters,
)

STEPS = 12
SEEDS = (0, 1, 2)
RATES = (1e-3, 1e-2, 3e-4)
DATA, VALIDATION = digits().train, digits().validation


def configs(rates=RATES, seeds=SEEDS):
    """Of an objective with a state, whose numbers differ, too."""
    return [
        config(seed=seed, learning_rate=rate, batch_size=100, objective="control", control_kl=seed, control_ki=0.1)
        for seed, rate in zip(seeds, rates, strict=True)
    ]


def alone(configuration):
    """The state of the run that fit.py would train, after an epoch, and its mean bound over the validation images."""
    program = cached_program(configuration.settings, tuple(jax.devices()[:1]), 1, ALONE)
    put, share = program.layout.put, program.layout.share
    inputs = put(run_inputs([configuration]))
    states = program.initialize(inputs, share(images.moments(DATA.images)))
    states, _ = program.train_steps(inputs, states, share(DATA), np.full(1, STEPS))
    values = program.validate(inputs, states, share(VALIDATION))
    return of_run(program.layout.get(states), 0), {name: float(column[0]) for name, column in values.items()}


@functools.cache
def program(strategy, num_devices=1):
    """Compiled once for all tests."""
    return Program(configs()[0].settings, jax.devices()[:num_devices], len(SEEDS), strategy)


def arguments(program, rates=RATES, seeds=SEEDS):
    """The inputs, the shared training data and the first states."""
    put, share = program.layout.put, program.layout.share
    inputs = put(run_inputs(configs(rates, seeds)))
    return inputs, share(DATA), program.initialize(inputs, share(images.moments(DATA.images)))


def together(program, stops=(STEPS,), rates=RATES):
    """The states of all runs at the last of `stops`, what the host saw after it, and the validation bounds."""
    inputs, data, states = arguments(program, rates)
    seen = None
    for stop in stops:
        states, seen = program.train_steps(inputs, states, data, np.full(len(SEEDS), stop))
    return program.layout.get(states), seen, program.validate(inputs, states, program.layout.share(VALIDATION))


@pytest.fixture(scope="module")
def singles():
    return [alone(c) for c in configs()]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_of_a_population_is_the_run_alone_after_an_epoch(singles, strategy):
    """Called for each bit for bit; XLA compiles a loop within a loop, or a batch of runs, otherwise."""
    states, seen, bounds = together(program(strategy))
    for r, (state, values) in enumerate(singles):
        assert_close(state, of_run(states, r))
        if strategy == "loop":
            assert_same_bits(state, of_run(states, r))
        assert {name: float(column[r]) for name, column in bounds.items()} == pytest.approx(values, rel=1e-5)
        assert_same_bits(of_run(seen, r), without_parameters(of_run(states, r)))


def draws(images, seed):
    root = jax.random.key(seed)
    order = training.epoch_order(root, jnp.int32(3), len(images), "epoch")
    x = seen_in_training(stream(root, Stream.BINARIZE, 41), images[order[:20]], "dynamic")
    return order, x, jax.random.bits(stream(root, Stream.NOISE, 41), (5, 20, 50))


draws_alone = jax.jit(draws)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shuffling_binarization_and_noise_have_the_same_bits_among_others_as_alone(strategy):
    layout = layout_of(mesh(jax.devices()[:3], len(SEEDS), 100), len(SEEDS), strategy)
    drawn = layout.get(layout.compile(draws)(layout.share(DATA.images), layout.put(np.array(SEEDS))))
    for r, seed in enumerate(SEEDS):
        of_this = [column[r] for column in drawn] if strategy != "loop" else of_run(drawn, r)
        assert_same_bits(tuple(of_this), jax.device_get(draws_alone(DATA.images, seed)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_diverges_stops_where_it_does_alone_and_the_others_go_on(singles, strategy):
    rates = (1e-3, 1e30, 3e-4)
    states, seen, _ = together(program(strategy), stops=(1, 5, STEPS), rates=rates)
    fate, _ = alone(configs(rates)[1])
    assert 1 < fate.step < STEPS
    assert seen.step.tolist() == [STEPS, fate.step, STEPS]
    assert [bool(training.last_step_was_finite(of_run(seen, r))) for r in range(3)] == [True, False, True]
    for r, state in enumerate((singles[0][0], fate, singles[2][0])):
        assert_close(of_run(states, r), state)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_whose_stop_lies_behind_it_stays_as_it_is(strategy):
    inputs, data, states = arguments(program(strategy))
    states, _ = program(strategy).train_steps(inputs, states, data, np.array([5, 5, 5]))
    before = program(strategy).layout.get(states)
    states, seen = program(strategy).train_steps(inputs, states, data, np.array([0, 7, 5]))
    assert seen.step.tolist() == [5, 7, 5]
    for r in (0, 2):
        assert_same_bits(of_run(program(strategy).layout.get(states), r), of_run(before, r))


@pytest.mark.parametrize(
    ("strategy", "num_devices", "grid"),
    [
        ("vmap", 2, {"run": 2, "data": 1}),
        pytest.param("vmap", 8, {"run": 3, "data": 2}, marks=pytest.mark.soak),
        ("map", 3, {"run": 3, "data": 1}),
    ],
)
def test_several_devices_compute_what_one_does(singles, strategy, num_devices, grid):
    """Two devices: the share of the last one is filled up. Eight: two of them share each batch."""
    assert dict(program(strategy, num_devices).mesh.shape) == grid
    states, seen, bounds = together(program(strategy, num_devices))
    assert seen.step.shape == bounds["bound"].shape == (len(SEEDS),)
    for r, (state, _) in enumerate(singles):
        assert_close(of_run(states, r), state)


def test_eight_runs_on_eight_devices_compute_what_they_do_on_one():
    def bound(x, seed):
        return jax.random.normal(jax.random.key(seed), x.shape).sum() + x.mean()

    seeds, x = np.arange(8), np.linspace(0, 1, 500, dtype=np.float32)
    results = []
    for count in (1, 8):
        layout = layout_of(mesh(jax.devices()[:count], 8, 100), 8, "vmap")
        placed = layout.put(seeds)
        assert {shard.data.shape for shard in placed.addressable_shards} == {(8 // count,)}
        results.append(layout.get(layout.compile(bound)(layout.share(x), placed)))
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_devices_that_do_not_divide_a_batch_stay_idle():
    assert dict(mesh(jax.devices(), 2, 3).shape) == {"run": 2, "data": 3}
    assert dict(mesh(jax.devices(), 2, 7).shape) == {"run": 2, "data": 1}
    assert dict(mesh(jax.devices(), 100, 7).shape) == {"run": 8, "data": 1}


def test_devices_do_not_wait_for_each_other():
    """Each goes its own number of steps: with a collective, the one in a loop would wait for ever, or be waited for."""
    several = program("map", 3)
    inputs, data, states = arguments(several)
    stops = several.layout.put(np.full(len(SEEDS), 1, np.int32))
    text = several._train_steps.lower(data, states, inputs, stops).compile().as_text()
    assert "while(" in text
    assert not any(word in text for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_trace_serves_every_call_and_every_population(strategy, monkeypatch):
    traces, original = [], training.train_steps
    monkeypatch.setattr(training, "train_steps", lambda *args, **kw: traces.append(1) or original(*args, **kw))
    fresh = Program(configs()[0].settings, jax.devices()[:1], len(SEEDS), strategy)
    for seeds, rates in ((SEEDS, RATES), ((7, 8, 9), (1e-2, 1e-2, 1e-2))):
        inputs, data, states = arguments(fresh, rates, seeds)
        for stop in (1, 2):
            states, _ = fresh.train_steps(inputs, states, data, np.full(3, stop))
    assert len(traces) == 1


@pytest.mark.parametrize("num_devices", [1, 2])
def test_one_trace_serves_a_run_alone_whether_it_is_new_or_restored(num_devices, monkeypatch):
    traces, original = [], training.train_steps
    monkeypatch.setattr(training, "train_steps", lambda *args, **kw: traces.append(1) or original(*args, **kw))
    alone = Program(configs()[0].settings, jax.devices()[:num_devices], 1, ALONE)
    put, share = alone.layout.put, alone.layout.share
    inputs, data = put(run_inputs(configs()[:1])), share(DATA)
    states = alone.initialize(inputs, share(images.moments(DATA.images)))
    for stop in (1, 2):
        states, _ = alone.train_steps(inputs, states, data, np.full(1, stop))
        states = put(alone.layout.get(states))
    assert len(traces) == 1
    assert all(len(leaf.devices()) == num_devices for leaf in jax.tree.leaves(states))
