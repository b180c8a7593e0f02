"""Early stopping: a run with patience ends by its validation bounds alone, and is its best checkpoint."""

import shutil
from functools import partial

import numpy as np
import pytest

from tests import run_samples
from tests.run_samples import STEPS_PER_EPOCH, assert_same_bits, assert_same_result, rows, state, train
from vae import api
from vae.configuration import ConfigurationError
from vae.runs import checkpoint
from vae.runs.ending import first_end
from vae.runs.files import RunError, RunWarning
from vae.runs.folder import CHECKPOINTS
from vae.runs.metrics import read_metrics
from vae.runs.standing import Standing, standing
from vae.training import fit, loop, resuming
from vae.training.loop import PopulationRun
from vae.training.program import Program

PATIENCE, EPOCHS = 2, 9
# Of epochs 0, 1, …: a run of patience 2 ends after epoch 6, and its best one is 4; of patience 4 after 12, and it is 8.
BOUNDS = np.array([-99.0, -9, -8, -8.5, -7, -7, -7.5, -8, -6, -7, -7, -7, -7], np.float32)
OUTCOME = fit.Outcome(True, 6.0, {"elbo": -7.0}, 4.0)
config = partial(run_samples.config, epochs=EPOCHS, patience=PATIENCE)


def at(epoch: int) -> int:
    return epoch * STEPS_PER_EPOCH


@pytest.fixture(scope="module", autouse=True)
def by_epoch():
    """The validation bound after each epoch is that of BOUNDS, and the test bound too: it says what was tested."""

    def validate(self, inputs, states, data):
        return {"bound": np.array([BOUNDS[int(one.step) // STEPS_PER_EPOCH] for one in states])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "validate", validate)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "x"
    assert train(workdir, config()) == OUTCOME
    return workdir


def by_numpy(bounds: np.ndarray, patience: int) -> int | None:
    """The first epoch n of 1, 2, … whose bounds up to n have their highest, the first of equals, `patience` before."""
    found = [n for n in range(1, len(bounds) + 1) if n - (np.argmax(bounds[:n]) + 1) >= patience]
    return found[0] if found else None


@pytest.mark.parametrize("patience", [1, 2, 3, 7])
def test_training_ends_after_the_first_epoch_whose_best_is_patience_epochs_before(patience):
    rng = np.random.default_rng(patience)
    for _ in range(50):
        bounds = rng.integers(-4, 5, 30) + np.log(np.arange(1, 31)) * rng.integers(0, 4)
        expected = by_numpy(bounds, patience)
        assert first_end({10 * n: one for n, one in enumerate(bounds, 1)}, 10 * patience) == (
            expected and 10 * expected
        )


def test_without_patience_training_never_ends_by_its_bounds():
    assert first_end(dict(enumerate(BOUNDS.tolist())), 0) is None


def test_a_run_ends_when_its_patience_does_and_is_tested_at_its_best(whole):
    written = [(row["step"], row["split"]) for row in read_metrics(whole)]
    assert written == [(at(e), split) for e in range(1, 7) for split in ("train", "validation")] + [(at(4), "test")]
    assert checkpoint.steps(whole / CHECKPOINTS) == [at(4), at(5), at(6)]
    assert standing(whole, config(), read_metrics(whole)) == Standing(6.0, True, 4.0)
    assert api.load_run(whole).step == at(4)
    assert api.load_run(whole, "last").step == at(6)


def test_a_run_that_stopped_early_and_is_started_again_trains_and_writes_nothing(tmp_path, whole):
    workdir = shutil.copytree(whole, tmp_path / "x")
    assert train(workdir, config()) == OUTCOME
    assert_same_result(workdir, whole)


def test_a_run_whose_patience_lasts_to_its_last_epoch_is_tested_at_its_best_too(tmp_path):
    assert train(tmp_path, config(patience=4, epochs=7)) == (True, 7.0, {"elbo": -7.0}, 4.0)
    assert standing(tmp_path, config(patience=4, epochs=7), read_metrics(tmp_path)) == Standing(7.0, True, 4.0)


class Stop:
    """Asks to stop at `step`, or dies there without a word."""

    def __init__(self, step: int, *, dies: bool = False):
        self.asks, self._step, self._dies = False, step, dies

    def report(self, progress) -> None:
        self.asks = progress.step >= self._step
        if self.asks and self._dies:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_and_killed_anywhere_ends_bit_identical(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    for step in (at(2) + 3, at(4)):
        stop = Stop(step)
        assert not train(tmp_path, config(), report=stop.report, should_stop=lambda s=stop: s.asks).finished
    finished = []
    for _ in range(2):  # with the last epoch in memory alone, and before the test row
        died = Stop(at(6), dies=True)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, config(), report=died.report, save_every=1e9)
        finished.append(standing(tmp_path, config(), read_metrics(tmp_path)).finished)
    assert finished == [False, True]
    train(tmp_path, config())
    assert_same_result(tmp_path, whole)
    assert_same_bits(api.load_run(tmp_path).params, api.load_run(whole).params)


def test_more_patience_trains_a_run_further_to_the_bits_of_one_that_had_it_from_the_start(tmp_path):
    train(tmp_path / "more", config(patience=4, epochs=14))
    train(tmp_path / "x", config(epochs=14))
    outcome = train(tmp_path / "x", config(patience=4, epochs=14))
    assert outcome == (True, 12.0, {"elbo": -6.0}, 8.0)
    assert_same_bits(state(tmp_path / "x"), state(tmp_path / "more"))
    assert [row for row in rows(tmp_path / "x") if row["split"] != "test"] == [
        row for row in rows(tmp_path / "more") if row["split"] != "test"
    ]


def test_less_patience_than_a_run_was_trained_with_is_refused(tmp_path):
    train(tmp_path, config(patience=4))
    with pytest.raises(RunError, match="for 9 epochs already, and with `patience=2` it ends after 6; ask for more"):
        resuming.check(tmp_path, config(patience=2), run_samples.digits(run_samples.VALIDATION))
    resuming.check(tmp_path, config(patience=0), run_samples.digits(run_samples.VALIDATION))


def test_a_damaged_best_checkpoint_is_set_aside_and_the_next_best_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    stop = Stop(at(6) - 1)
    train(tmp_path, config(), report=stop.report, should_stop=lambda: stop.asks, keep_best=2)
    path = next(path for path in (tmp_path / CHECKPOINTS / str(at(4)) / checkpoint.STATE).rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.warns(RunWarning, match=f"{at(4)}.damaged, and training does without it"):
        outcome = train(tmp_path, config(), keep_best=2)
    assert outcome == (True, 7.0, {"elbo": -7.0}, 5.0)


def test_in_memory_the_parameters_are_those_of_the_best_epoch(whole):
    dataset = run_samples.digits(run_samples.VALIDATION)
    record = fit.fit_in_memory(config(), dataset)
    assert_same_bits(record.state, state(whole, at(4)))
    assert fit.fit_in_memory(config(patience=0, epochs=5), dataset).state.step == at(5)
    stop = Stop(at(6) - 1)
    record = fit.fit_in_memory(config(), dataset, report=stop.report, should_stop=lambda: stop.asks)
    assert record.state.step == at(4)


def test_without_patience_no_state_is_held(tmp_path, monkeypatch):
    for name in ("_first_best", "_hold_best"):
        monkeypatch.setattr(PopulationRun, name, None)
    assert train(tmp_path, config(patience=0, epochs=1)).best_epoch is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": -1}, "`patience=-1`: must be a whole number at least 0"),
        ({"patience": 1.5}, "`patience=1.5`: must be a whole number at least 0"),
        (
            {"patience": 2, "validation": 0},
            "`patience=2` waits for a better bound .*, and `validation=0` holds none out",
        ),
        ({"patience": 2, "keep_best": 0}, "`patience=2` needs the best checkpoint, and `keep_best=0` keeps none"),
    ],
)
def test_a_patience_that_cannot_be_is_refused_before_data_are_loaded(options, message, monkeypatch):
    monkeypatch.setattr(api, "_load", None)
    with pytest.raises(ConfigurationError, match=message):
        api.train("digits", **options)


def test_a_data_set_without_validation_images_is_refused(tmp_path):
    dataset = run_samples.digits(0)
    with pytest.raises(RunError, match=r"`patience=2` waits for a better bound .*, and digits has none; hold some out"):
        fit.fit(tmp_path / "new", config(validation=None), dataset)
    assert not (tmp_path / "new").exists()
