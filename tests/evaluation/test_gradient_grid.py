"""gradient_grid.py: estimators take turns, work is relative to the reparameterised gradient, what fails is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.test_gradients import BATCH
from tests.objectives.test_estimators import pair, params_at
from vae import objectives
from vae.evaluation import gradient_grid, gradients
from vae.evaluation.gradients import NUM_BLOCKS, GradientBlock, GradientMoments
from vae.objectives.controlled import Controller
from vae.settings import Hyperparameters, Settings

SETTINGS = Settings((1, 1, 1), objective="iwae")
SECONDS = {"reparameterized": 2.0, "dreg": 3.0, "score": 1.0}
VARIANCES = {"reparameterized": 1.0, "dreg": 0.25, "score": 8.0}


def estimators(objective, names):
    return [
        gradient_grid.GradientEstimator(
            objective, name, Settings((1, 1, 1), objective=objective, estimator=name), Hyperparameters()
        )
        for name in names
    ]


@pytest.fixture
def measure(monkeypatch):
    """`gradient_grid.measure` on draws of known variance and time, one of 10 blocks slow; with what was drawn when."""
    drawn, skipped = [], []

    def draw_blocks(root, params, batch, num_draws, *, objective, num_samples, reference, **about):
        name = "reparameterized" if reference else order[len({one for one, _ in drawn})]
        for block in range(NUM_BLOCKS):
            drawn.append((f"{name} {num_samples} {reference}", block))
            if name == "stl" and block == 3:
                raise FloatingPointError("the gradient of the encoder is not finite")
            count = num_draws // NUM_BLOCKS
            spread = np.array([1.0, 0.0]) * VARIANCES.get(name, 1.0) * (count - 1 / NUM_BLOCKS)
            moments = {"encoder": GradientMoments(count, np.zeros(2), spread)}
            yield GradientBlock(moments, SECONDS.get(name, 1.0) * (100 if block == 5 else 1))

    order: list[str] = []
    monkeypatch.setattr(gradients, "draw_blocks", draw_blocks)

    def call(names, reference_draws=0, objective="iwae"):
        order[:] = names
        subject = gradient_grid.GradientSubject(pair(), params_at(0.2, 1.1), SETTINGS, 0, BATCH)
        grid = gradient_grid.GradientGrid(estimators(objective, names), [3], 1, 100, reference_draws)
        rows = gradient_grid.measure(0, subject, grid, on_skip=skipped.append, on_progress=lambda words, count: None)
        return {row["estimator"]: row for row in rows}, drawn, skipped

    return call


def test_work_is_variance_times_time_as_a_multiple_of_that_of_the_reparameterized_gradient(measure):
    rows, _, _ = measure(["reparameterized", "dreg", "score"])
    assert {name: row["seconds_per_draw"] for name, row in rows.items()} == SECONDS
    assert {name: row["work"]["encoder"] for name, row in rows.items()} == pytest.approx(
        {"reparameterized": 1, "dreg": 0.25 * 1.5, "score": 8 * 0.5}
    )


def test_without_any_reparameterized_gradient_work_is_not_known(measure):
    assert measure(["dreg"])[0]["dreg"]["work"] == {"encoder": None}


def test_the_reference_is_the_measure_of_work_if_no_estimator_is(measure):
    rows, _, _ = measure(["dreg"], reference_draws=100)
    assert rows["dreg"]["work"]["encoder"] == pytest.approx(0.25 * 1.5)
    assert "p_norm" in rows["dreg"]["groups"]["encoder"]


def test_estimators_take_turns(measure):
    _, drawn, _ = measure(["reparameterized", "score"], reference_draws=100)
    lanes = ["reparameterized 3 False", "score 3 False", "reparameterized 3 True"]
    assert drawn == [(lane, block) for block in range(NUM_BLOCKS) for lane in lanes]


def test_an_estimator_that_fails_in_the_middle_is_skipped_and_the_others_are_measured(measure):
    rows, _, skipped = measure(["reparameterized", "stl", "score"])
    assert list(rows) == ["reparameterized", "score"]
    assert skipped == ["iwae with stl, K = 3: the gradient of the encoder is not finite"]


def test_what_makes_no_sense_is_one_line_for_each_objective_and_reason(measure):
    rows, _, skipped = measure(["reparameterized", "stl", "score"], objective="elbo")
    assert list(rows) == ["reparameterized"]
    assert [line.split(":")[0] for line in skipped] == ["elbo with stl, score"]


def test_an_objective_with_a_state_is_measured_in_that_of_its_run_and_in_the_first_one_of_a_new_run():
    """control's β: `control_min` at first."""
    (one,) = estimators("control", ["reparameterized"])
    objective = objectives.build(one.settings)

    def beta(settings, state):
        subject = gradient_grid.GradientSubject(pair(), params_at(0.2, 1.1), settings, 0, BATCH, state)
        measured = gradient_grid.in_state(subject, objective, one)
        key, hyperparameters = jax.random.key(0), one.hyperparameters
        return float(measured.apply(key, subject.params, subject.model, BATCH, hyperparameters, 0)[2]["beta"][0])

    trained = Controller(jnp.zeros(()), jnp.full((), 0.25))
    assert beta(one.settings, trained) == 0.25
    assert beta(SETTINGS, None) == beta(SETTINGS, trained) == one.hyperparameters.control_min
