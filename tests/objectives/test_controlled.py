"""Objectives with a state: their controllers against the papers' algorithms, and what they come to hold."""

import json
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pictures import run_pictures
from tests.run_samples import config
from vae import figures, objectives
from vae.datasets import Split
from vae.datasets.images import moments
from vae.models import model as models
from vae.objectives import controlled
from vae.runs.config import write_config
from vae.runs.folder import METRICS
from vae.settings import Hyperparameters, Settings
from vae.training import step as training

SMALL = {"image_shape": (4, 4, 1), "hidden_sizes": (8,), "latent_dim": 2, "batch_size": 20}


def path_of(next_state, state, means, hyperparameters):
    """The states after each step."""
    found = []
    for step, mean in enumerate(means):
        state = next_state(state, {name: jnp.float32(value) for name, value in mean.items()}, hyperparameters, step)
        found.append(tuple(map(float, state)))
    return np.array(found)


def test_the_multiplier_follows_algorithm_1_of_rezende_and_viola():
    reconstructions = -90 + 30 * np.sin(np.arange(25) / 3)
    numbers = Hyperparameters(geco_reconstruction=-80.0, geco_decay=0.7, geco_rate=0.02, geco_min=0.6, geco_max=4.0)
    multiplier, average, expected = 1.0, math.nan, []
    for t, reconstruction in enumerate(reconstructions):
        constraint = -80 - reconstruction
        average = constraint if t == 0 else 0.7 * average + 0.3 * constraint
        multiplier = min(max(multiplier * math.exp(0.02 * average), 0.6), 4)
        expected.append((multiplier, average))
    start = objectives.build(Settings(**SMALL, objective="geco")).init_state(numbers)
    found = path_of(controlled.next_multiplier, start, [{"reconstruction": r} for r in reconstructions], numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert {0.6, 4.0} <= {*np.round(found[:, 0], 6)}  # it came to both limits


def outputs_of(kls, *, rests_both_ways, kl=12.0, kp=0.5, ki=0.01, least=0.0, most=1.0):
    """P + I + β_min of each step, as algorithm 1 of Shao et al. (2020) has it if I `rests_both_ways`."""
    integral, output, found = 0.0, least, []
    for value in kls:
        error = kl - value
        out = (output < least and (rests_both_ways or error > 0)) or (output > most and (rests_both_ways or error < 0))
        integral -= 0 if out else ki * error
        output = kp / (1 + math.exp(error)) + integral + least
        found.append(output)
    return found


CONTROL = Hyperparameters(control_kl=12.0, control_kp=0.5, control_ki=0.01, control_min=0.0, control_max=1.0)


def outputs(kls, numbers=CONTROL):
    start = objectives.build(Settings(**SMALL, objective="control")).init_state(numbers)
    return path_of(controlled.next_output, start, [{"kl": kl} for kl in kls], numbers)[:, 1]


def test_the_weight_of_the_kl_follows_algorithm_1_of_shao_et_al_within_its_limits_and_as_it_leaves_them():
    kls = 12 + 6 * np.sin(np.arange(30) / 2)
    assert 0 < min(outputs(kls)) < max(outputs(kls)) < 1
    np.testing.assert_allclose(outputs(kls), outputs_of(kls, rests_both_ways=True), rtol=1e-5)
    rising = np.linspace(13, 40, 40)
    found = outputs(rising)
    np.testing.assert_allclose(found, outputs_of(rising, rests_both_ways=True), rtol=1e-5)
    assert 1 < found.max() < 1.3  # the integral rests above the limit: without it, it would be 5


def test_a_weight_that_one_large_error_drove_out_of_its_limits_comes_back():
    """In algorithm 1 it stays at its limit for ever, as the integral rests there."""
    kls = [12.0, 300.0, *[2.0] * 40]
    assert min(outputs_of(kls, rests_both_ways=True)[2:]) > 1
    np.testing.assert_allclose(outputs(kls), outputs_of(kls, rests_both_ways=False), rtol=1e-5, atol=1e-6)
    assert outputs(kls)[-1] < 0.1


@pytest.mark.parametrize(
    ("name", "state", "climbed", "weight"),
    [
        ("geco", controlled.Multiplier(3.0, 0.0), lambda rec, kl: 3 * (rec + 80) - kl, {"multiplier": [3.0] * 3}),
        ("control", controlled.Controller(0.0, 0.25), lambda rec, kl: rec - 0.25 * kl, {"beta": [0.25] * 3}),
        ("control", controlled.Controller(0.0, 7.0), lambda rec, kl: rec - kl, {"beta": [1.0] * 3}),
        ("control", controlled.Controller(0.0, -7.0), lambda rec, kl: rec, {"beta": [0.0] * 3}),
    ],
)
def test_what_is_climbed_has_the_weight_of_the_state_and_what_is_reported_is_the_elbo(
    monkeypatch, name, state, climbed, weight
):
    reconstruction, kl = np.array([-70.0, -90.0, -85.0]), np.array([10.0, 20.0, 15.0])
    terms = {"reconstruction": jnp.asarray(reconstruction), "kl": jnp.asarray(kl)}
    monkeypatch.setattr(controlled, "encode", lambda *_: (None, terms["reconstruction"]))
    monkeypatch.setattr(controlled, "logged", lambda *_: terms)
    objective: Any = objectives.build(Settings(**SMALL, objective=name))
    model = models.build(Settings(**SMALL))
    surrogate, bound, metrics = objective.at(state).apply(None, {}, model, None, Hyperparameters(), 0)
    np.testing.assert_allclose(surrogate, climbed(reconstruction, kl).mean(), rtol=1e-6)
    np.testing.assert_array_equal(bound, reconstruction - kl)
    assert {metric: value.tolist() for metric, value in metrics.items() if metric in weight} == weight
    outside_training = objective.apply(None, {}, model, None, Hyperparameters(), 0)
    assert outside_training[2].keys() == metrics.keys() - weight.keys() == {"reconstruction", "kl"}
    np.testing.assert_array_equal(outside_training[1], bound)
    np.testing.assert_allclose(outside_training[0], bound.mean(), rtol=1e-6)


def blobs():
    """Images of two numbers: where a spot is, along two axes."""
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, 3, (2, 2000, 1, 1))
    grid = np.arange(4)
    return (255 * np.exp(-((grid[:, None] - y) ** 2) - (grid - x) ** 2))[..., None].astype(np.uint8)


@pytest.mark.parametrize(
    ("objective", "numbers", "metric", "wanted"),
    [
        pytest.param(
            *("geco", {"geco_reconstruction": -5.0, "geco_rate": 0.01, "geco_decay": 0.9}, "reconstruction", -5.0),
            marks=pytest.mark.soak,
        ),
        ("control", {"control_kl": 2.5, "control_ki": 0.002, "control_kp": 0.1}, "kl", 2.5),
    ],
)
def test_training_comes_to_hold_what_was_asked_for(objective, numbers, metric, wanted):
    settings = Settings(**SMALL, objective=objective)
    p = {"model": models.build(settings), "objective": objectives.build(settings), "settings": settings}
    images, root = blobs(), jax.random.key(0)
    hyperparameters = jax.tree.map(jnp.float32, Hyperparameters(learning_rate=0.01, **numbers))
    state = jax.jit(partial(training.initialize, **p))(root, hyperparameters=hyperparameters, moments=moments(images))
    train = jax.jit(partial(training.train_steps, **p))
    for stop in range(100, 1001, 100):
        state = train(jax.random.clone(root), state, Split(images), jnp.int32(stop), hyperparameters)
    assert float(state.sums[metric]) / 100 == pytest.approx(wanted, abs=0.1)  # over the last epoch


def test_the_picture_of_runs_has_what_they_hold_where_and_by_what_weight(tmp_path, monkeypatch):
    for name, wanted in (("a", -20.0), ("b", -25.0)):
        (tmp_path / name).mkdir()
        write_config(tmp_path / name, config(objective="geco", geco_reconstruction=wanted))
        rows = [
            {
                "step": 25 * e,
                "epoch": float(e),
                "split": "train",
                "geco": -40.0,
                "kl": 2.0,
                "reconstruction": wanted + e,
            }
            | {"multiplier": 1.0 / e}
            for e in (1, 2)
        ]
        rows[1]["reconstruction"] = None  # was not finite
        held_out = {"step": 25, "epoch": 1.0, "split": "validation", "geco": -41.0, "kl": 2.0, "reconstruction": -39.0}
        text = "".join(json.dumps(row) + "\n" for row in (rows[0], held_out, rows[1]))
        (tmp_path / name / METRICS).write_text(text)
    seen = []
    monkeypatch.setattr(figures, "controlled", lambda *args: seen.append(args))
    run_pictures.controlled({name: tmp_path / name for name in "ab"})
    ((paths, wanted, labels, title),) = seen
    assert (wanted, labels[1]) == ([-20.0, -25.0], "multiplier")
    assert "reconstruction" in labels[0]
    assert title.startswith("geco: ")
    for name, first in (("a", -19.0), ("b", -24.0)):
        np.testing.assert_array_equal(paths[name], ([1, 2], [first, np.nan], [1, 0.5]))
