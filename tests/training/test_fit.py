"""fit.py: however a run is cut, moved between devices or prolonged, its result is the one of an undisturbed run."""

import json
import math
from functools import partial

import jax
import numpy as np
import pytest

from tests import run_samples
from tests.marks import soaked
from tests.run_samples import BATCH_SIZE, STEPS_PER_EPOCH, assert_same_bits, assert_same_result, digits, rows, state
from vae.api import load_run
from vae.runs import checkpoint
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS, CONFIG
from vae.runs.metrics import Metrics, read_metrics
from vae.training import fit, keeper, loop
from vae.training import step as training
from vae.training.program import Program
from vae.training.record import FAILURE, TrainingFailed

EPOCHS = 2
# An objective with a state: then a run has all that it can have to carry from step to step.
CONTROL = {"objective": "control", "control_kl": 3.0, "control_ki": 0.01}
config = partial(run_samples.config, epochs=EPOCHS, **CONTROL)


def train(workdir, configuration=None, **options):
    return run_samples.train(workdir, configuration or config(), **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert train(workdir).finished
    return workdir


@pytest.fixture(autouse=True)
def short_calls(monkeypatch):
    """Every call of the compiled program is one step, as of a slow model, so that a run stops where it is asked to."""
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)


class StopAfter:
    """Asks to stop once `step` is reached; None: never."""

    def __init__(self, step: int | None):
        self.step, self.seen = step, []

    def report(self, progress: fit.Progress) -> None:
        self.seen.append(progress)

    def requested(self) -> bool:
        return self.step is not None and bool(self.seen) and self.seen[-1].step >= self.step


def train_until(workdir, step, configuration=None, **options):
    stop = StopAfter(step)
    return train(workdir, configuration, report=stop.report, should_stop=stop.requested, **options)


# Within an epoch, twice in one, and at its end; the others are these with other steps.
@pytest.mark.parametrize("stops", soaked([[17], [1, 13, 14, 40], [STEPS_PER_EPOCH], [24, 35, 49]], [17], [24, 35, 49]))
def test_a_run_that_was_stopped_and_resumed_ends_bit_identical(tmp_path, undisturbed, stops):
    for step in stops:
        outcome = train_until(tmp_path, step)
        assert not outcome.finished
        stopped_at = checkpoint.steps(tmp_path / CHECKPOINTS)[-1]
        assert stopped_at == step
        assert outcome.epoch == stopped_at / STEPS_PER_EPOCH
    assert train_until(tmp_path, None).finished
    assert_same_result(tmp_path, undisturbed)


def test_a_slow_model_is_heard_from_after_every_step(tmp_path):
    watcher = StopAfter(12)
    train(tmp_path, report=watcher.report, should_stop=watcher.requested)
    assert [progress.step for progress in watcher.seen] == list(range(1, 13))


def test_a_run_that_was_asked_to_stop_before_its_first_step_is_saved_and_resumes(tmp_path, undisturbed):
    assert train(tmp_path, should_stop=lambda: True) == fit.Outcome(False, 0.0, {})
    assert checkpoint.steps(tmp_path / CHECKPOINTS) == [0]
    train(tmp_path)
    assert_same_result(tmp_path, undisturbed)


@pytest.mark.parametrize("moment", ["before the checkpoint", "after the checkpoint", "before the test row"])
def test_a_run_that_died_around_a_save_resumes_bit_identical(tmp_path, undisturbed, monkeypatch, moment):
    original = {"save": checkpoint.save, "write": Metrics.write}

    def save(folder, step, *args, **options):
        if step == EPOCHS * STEPS_PER_EPOCH and moment == "before the checkpoint":
            raise KeyboardInterrupt
        original["save"](folder, step, *args, **options)
        if step == STEPS_PER_EPOCH and moment == "after the checkpoint":
            raise KeyboardInterrupt

    def write(self, step, epoch, split, values):
        if split == "test" and moment == "before the test row":
            raise KeyboardInterrupt
        original["write"](self, step, epoch, split, values)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        patch.setattr(Metrics, "write", write)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert rows(tmp_path) != rows(undisturbed)
    train(tmp_path)
    assert_same_result(tmp_path, undisturbed)


def test_a_finished_run_prolonged_equals_a_longer_run_from_the_start(tmp_path, undisturbed):
    train(tmp_path, config(epochs=1))
    assert train(tmp_path, config(epochs=EPOCHS)).finished
    assert_same_bits(state(tmp_path), state(undisturbed))
    # The shorter run's own result stays among its rows.
    of_the_shorter = [row for row in rows(tmp_path) if row["split"] == "test" and row["epoch"] == 1]
    assert len(of_the_shorter) == 1
    assert [row for row in rows(tmp_path) if row not in of_the_shorter] == rows(undisturbed)


def test_a_finished_run_that_is_started_again_trains_and_writes_nothing(tmp_path):
    outcome = train(tmp_path, config(epochs=1))
    before = rows(tmp_path), state(tmp_path)
    assert train(tmp_path, config(epochs=1)) == outcome
    assert rows(tmp_path) == before[0]
    assert_same_bits(state(tmp_path), before[1])


def test_every_epoch_has_a_row_for_train_and_validation_and_the_end_one_for_test(undisturbed):
    written = [(row["split"], row["step"], row["epoch"]) for row in read_metrics(undisturbed)]
    epochs = [(split, e * STEPS_PER_EPOCH, e) for e in range(1, EPOCHS + 1) for split in ("train", "validation")]
    assert written == [*epochs, ("test", EPOCHS * STEPS_PER_EPOCH, EPOCHS)]
    for row in read_metrics(undisturbed):
        assert row["control"] == pytest.approx(row["reconstruction"] - row["kl"], rel=1e-5)


def test_the_best_checkpoint_is_chosen_by_the_validation_bound_and_kept(tmp_path, monkeypatch):
    bounds = iter([-30.0, -10.0, -20.0, -25.0, -99.0])
    monkeypatch.setattr(Program, "validate", lambda self, *args: {"bound": np.array([next(bounds)])})
    outcome = train(tmp_path, config(epochs=4), keep_last=1, keep_best=1)
    folder = tmp_path / CHECKPOINTS
    assert checkpoint.steps(folder) == [2 * STEPS_PER_EPOCH, 4 * STEPS_PER_EPOCH]
    assert checkpoint.best_step(folder) == 2 * STEPS_PER_EPOCH
    assert checkpoint.score(folder, 2 * STEPS_PER_EPOCH) == -10.0
    assert outcome.test == {"control": -99.0}


def test_checkpoints_that_waited_leave_the_folder_that_those_after_each_epoch_leave(tmp_path):
    found = []
    for save_every in (0.0, 1e9):
        workdir = tmp_path / f"{save_every}"
        train(workdir, config(epochs=5), keep_last=1, keep_best=2, save_every=save_every)
        folder = workdir / CHECKPOINTS
        found.append(
            {step: (checkpoint.score(folder, step), state(workdir, step)) for step in checkpoint.steps(folder)}
        )
    assert len(found[0]) >= 2
    assert {step: one for step, (one, _) in found[0].items()} == {step: one for step, (one, _) in found[1].items()}
    assert_same_bits(found[0], found[1])


def test_few_epochs_are_held_however_many_are_to_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "MOST_HELD", 2)
    written = []

    def report(progress):
        if progress.epoch_ended:
            written.append(len(checkpoint.steps(tmp_path / CHECKPOINTS)))

    train(tmp_path, config(epochs=6), keep_last=99, save_every=1e9, report=report)
    assert written == [1, 1, 1, 4, 4, 4]
    assert len(checkpoint.steps(tmp_path / CHECKPOINTS)) == 6


def test_a_run_killed_before_its_epochs_were_written_resumes_bit_for_bit(tmp_path, undisturbed):
    def killed(progress):
        if progress.step >= 2 * STEPS_PER_EPOCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, save_every=1e9, report=killed)
    assert checkpoint.steps(tmp_path / CHECKPOINTS) == [STEPS_PER_EPOCH]
    train(tmp_path, save_every=1e9)
    assert_same_result(tmp_path, undisturbed)


def test_a_run_that_fails_leaves_its_last_epochs(tmp_path, monkeypatch):
    bounds = iter([-30.0, -20.0, np.nan])
    monkeypatch.setattr(Program, "validate", lambda self, *args: {"bound": np.array([next(bounds)])})
    with pytest.raises(TrainingFailed):
        train(tmp_path, config(epochs=4), save_every=1e9)
    assert checkpoint.steps(tmp_path / CHECKPOINTS) == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]


def test_without_validation_images_the_curve_is_of_the_test_split_and_chooses_nothing(tmp_path):
    outcome = train(tmp_path, config(epochs=2, validation=0))
    written = [row for row in rows(tmp_path) if row["split"] != "train"]
    assert [row["split"] for row in written] == ["test", "test"]
    assert outcome.test["control"] == written[-1]["control"]
    folder = tmp_path / CHECKPOINTS
    assert [checkpoint.score(folder, step) for step in checkpoint.steps(folder)] == [None, None]


def test_init_from_starts_from_the_other_runs_parameters_with_a_new_optimizer(tmp_path, undisturbed):
    configuration = config(seed=5, init_from=undisturbed, ema_decay=0.9, average_weights=True)
    train(tmp_path, configuration, should_stop=lambda: True)
    first, source = state(tmp_path, 0), state(undisturbed)
    assert_same_bits(first.params, source.params)
    assert_same_bits(first.average, source.params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(first.optimizer_state))


def test_a_run_that_began_from_another_resumes_without_it(tmp_path):
    other, workdir = tmp_path / "other", tmp_path / "workdir"
    train(other, config(epochs=1))
    configuration = config(epochs=1, init_from=other)
    train_until(workdir, 5, configuration)
    (other / CONFIG).unlink()
    assert train(workdir, configuration).finished


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": (17,)}, r"Dense_0'\]\['bias'\] has the shape \(16,\), not \(17,\), and \d more"),
        ({"hidden_sizes": (16, 16)}, r"has the shape .*, not .*; use the same network"),
    ],
)
def test_parameters_of_another_shape_are_refused_before_anything_is_written(tmp_path, undisturbed, changes, message):
    with pytest.raises(RunError, match=message):
        fit.fit(tmp_path / "new", config(init_from=undisturbed, **changes), digits())
    assert not (tmp_path / "new").exists()


def test_init_from_a_folder_without_a_run_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RunError, match="nowhere holds no run"):
        fit.fit(tmp_path / "new", config(init_from=tmp_path / "nowhere"), digits())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "num_devices", "message"),
    [
        ({"batch_size": 1295}, 1, "1295 cannot be filled from 1294 training images; use `batch_size=1294` or less"),
        ({"batch_size": 50}, 4, "50 cannot be shared by 4 devices; use a `batch_size` that is a multiple of 4"),
        ({"latent_dim": 10**12}, 1, "GB of memory; use smaller `hidden_sizes`, `channels` or `latent_dim`"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, changes, num_devices, message):
    with pytest.raises(RunError, match=message):
        fit.fit(tmp_path / "new", config(**changes), digits(), devices=jax.devices()[:num_devices])
    assert not (tmp_path / "new").exists()


def failure(workdir, configuration):
    with pytest.raises(TrainingFailed) as caught:
        train(workdir, configuration)
    assert "\n" not in str(caught.value)
    return str(caught.value), json.loads((workdir / FAILURE).read_text())


def test_a_bound_that_is_not_finite_stops_the_run_and_says_where_and_after_what(tmp_path):
    message, report = failure(tmp_path, config(objective="elbo", learning_rate=1e30))
    step = report["step"]
    assert f"not finite at step {step} (bound" in message
    assert f"{tmp_path / FAILURE}" in message
    assert step < STEPS_PER_EPOCH
    assert report["recent_steps"] == list(range(step + 1))
    assert all(len(report[f"recent_{name}"]) == step + 1 for name in training.Recent._fields)
    assert None not in report["recent_bound"][:-1]
    assert None in (report["recent_bound"][-1], report["recent_gradient_norm"][-1])
    assert report["recent_learning_rate"][-1] == pytest.approx(1e30)
    order = training.epoch_order(jax.random.key(0), jax.numpy.int32(0), 1077, "epoch")
    assert report["batch_index"] == order[step * BATCH_SIZE :][:BATCH_SIZE].tolist()
    assert report["params_not_finite_after_this_step"]
    assert checkpoint.steps(tmp_path / CHECKPOINTS) == []


def test_a_failure_leaves_the_checkpoints_before_it_intact_and_names_the_last(tmp_path):
    # Adam goes 1e30 away at the first step of the second stage, the second epoch.
    factors = {"schedule": "stages", "stage_steps": (STEPS_PER_EPOCH, 1), "stage_factors": (1.0, 1e33)}
    message, report = failure(tmp_path, config(**factors))
    assert report["step"] >= STEPS_PER_EPOCH
    assert len(report["recent_bound"]) == report["step"] + 1
    assert checkpoint.steps(tmp_path / CHECKPOINTS) == [STEPS_PER_EPOCH]
    assert f"from the last good checkpoint ({STEPS_PER_EPOCH}) with `init_from={tmp_path}" in message
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state(tmp_path).params))
    assert [row["step"] for row in rows(tmp_path)] == [STEPS_PER_EPOCH] * 2
    # Nothing is left to chance: the same run fails again at the same step.
    assert failure(tmp_path, config(**factors)) == (message, report)


def test_parameters_that_spoil_the_validation_bound_are_never_saved_as_a_checkpoint(tmp_path):
    # One step an epoch: the bound of the only step is computed before the parameters are ruined.
    message, report = failure(tmp_path, config(epochs=1, batch_size=1077, learning_rate=1e30))
    assert "the validation bound is not finite at step 0" in message
    assert math.isfinite(report["recent_bound"][-1])
    assert checkpoint.steps(tmp_path / CHECKPOINTS) == []


@pytest.fixture(scope="module")
def by_devices(tmp_path_factory):
    """Runs of an epoch on one device, on four, and on one and then on four."""
    folder, configuration = tmp_path_factory.mktemp("devices"), config(epochs=1, batch_size=100)
    for name, count in (("one", 1), ("four", 4)):
        assert train(folder / name, configuration, devices=jax.devices()[:count]).finished
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS_PER_CALL", 0.0)
        train_until(folder / "moved", 5, configuration)
    assert checkpoint.steps(folder / "moved" / CHECKPOINTS) == [5]
    assert train(folder / "moved", configuration, devices=jax.devices()[:4]).finished
    return folder


@pytest.mark.parametrize("other", ["four", "moved"])
def test_four_devices_compute_what_one_does_and_a_run_moves_to_them(by_devices, other):
    one, four = state(by_devices / "one"), state(by_devices / other)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(rows(by_devices / "one"), rows(by_devices / other), strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, abs=1e-5, rel=1e-5)


def test_averaged_weights_are_saved_and_are_what_load_run_returns(tmp_path):
    train_until(tmp_path, 5, config(epochs=1, seed=5, ema_decay=0.9, average_weights=True))
    last = state(tmp_path)
    params = load_run(tmp_path).params
    assert_same_bits(params, last.average)
    assert not np.array_equal(params["encoder"]["Dense_0"]["kernel"], last.params["encoder"]["Dense_0"]["kernel"])


def test_progress_counts_steps_and_its_pace_is_unknown_only_until_a_second_call(tmp_path):
    stop = StopAfter(None)
    train(tmp_path, config(epochs=2, batch_size=1077), report=stop.report)
    first, second = stop.seen
    assert (first.step, first.num_steps, first.epoch, first.epoch_ended) == (1, 2, 1.0, True)
    assert math.isnan(first.seconds_left)
    assert second.seconds_left == 0
    assert second.steps_per_second > 0
