"""Early stopping of many runs: each ends where it would alone, and all who ask are told that it is finished."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.command import many_runs
from experiments.flags import variants
from tests.run_samples import VALIDATION, assert_same_bits, digits, rows, state, train
from tests.sweeps.test_sweep import BASE, STEPS_PER_EPOCH, start
from vae.judging import by_setting, groups
from vae.runs import checkpoint
from vae.runs.config import read_config
from vae.runs.folder import CHECKPOINTS
from vae.runs.metrics import read_metrics, summary
from vae.runs.standing import Standing, standing
from vae.sweeps import chunks, comparing, planning, results
from vae.training import loop, resuming
from vae.training.keeper import PopulationKeeper
from vae.training.program import Program

EPOCHS, PATIENCE = 6, 2
# Of each seed after epochs 0, 1, …: they end after 3, 5 and, by --epochs, 6; the best are 1, 3 and 6.
BOUNDS = np.array(
    [
        [-99, -5, -6, -7, -1, -1, -1],
        [-99, -9, -8, -4, -4, -6, -1],
        [-99, -9, -8, -7, -6, -6, -5],
    ],
    np.float32,
)
ENDS, BEST = (3, 5, 6), (1, 3, 6)
RUNS = {f"{seed:03}": BASE(seed=seed, epochs=EPOCHS, patience=PATIENCE, latent_dim=3) for seed in range(3)}


@pytest.fixture(scope="module", autouse=True)
def by_epoch():
    """The bound of each held-out split is that of BOUNDS: of the test split it says what was tested."""

    def validate(self, inputs, states, data):
        inputs, states = self.layout.get(inputs), self.layout.get(states)
        return {"bound": BOUNDS[inputs.seed, states.step // STEPS_PER_EPOCH]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "validate", validate)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep by loop, of which nothing was stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "x"
    seen = []
    assert start(workdir, RUNS, strategy="loop", report=seen.append)
    assert [progress.training for progress in seen if progress.epoch_ended] == [3, 3, 2, 2, 1, 1]
    assert {progress.diverged for progress in seen} == {0}
    assert seen[-1].best == {"validation elbo": ("001", -4.0)}
    return workdir


def at(epoch: int) -> int:
    return epoch * STEPS_PER_EPOCH


def folder(workdir: Path, seed: int) -> Path:
    return workdir / planning.RUNS / f"{seed:03}"


@pytest.mark.parametrize("seed", range(3))
def test_a_run_of_a_sweep_ends_with_the_bits_of_the_run_alone(tmp_path, whole, seed):
    alone, among = tmp_path / "alone", folder(whole, seed)
    outcome = train(alone, RUNS[f"{seed:03}"], keep_last=1)
    assert (outcome.epoch, outcome.best_epoch) == (ENDS[seed], BEST[seed])
    assert outcome.test == {"elbo": BOUNDS[seed, BEST[seed]]}
    saved = sorted({at(BEST[seed]), at(ENDS[seed])})
    for one in (alone, among):
        assert checkpoint.steps(one / CHECKPOINTS) == saved
        assert checkpoint.score(one / CHECKPOINTS, at(BEST[seed])) == BOUNDS[seed, BEST[seed]]
    for step in saved:
        assert_same_bits(state(alone, step), state(among, step))
    assert rows(alone) == rows(among)
    assert rows(among)[-1] == {"step": at(BEST[seed]), "epoch": BEST[seed], "split": "test", **outcome.test}


def test_the_results_are_those_of_the_best_epochs(whole):
    found = results.rows(whole)
    assert [row["status"] for row in found] == ["finished"] * 3
    assert [(row["epoch"], row["best_epoch"]) for row in found] == list(zip(ENDS, BEST, strict=True))
    best = [float(BOUNDS[seed, epoch]) for seed, epoch in enumerate(BEST)]
    assert [row["validation_elbo"] for row in found] == [row["test_elbo"] for row in found] == best
    trained = [read_metrics(folder(whole, seed))[2 * epoch - 2]["elbo"] for seed, epoch in enumerate(BEST)]
    assert [row["train_elbo"] for row in found] == trained
    (one,) = results.ranked(found, RUNS)
    assert list(one.scores.values()) == best


def test_whoever_asks_is_told_that_a_run_that_stopped_early_is_finished(whole, monkeypatch):
    paths = [folder(whole, seed) for seed in range(3)]
    assert [standing(path, read_config(path), read_metrics(path)) for path in paths] == [
        Standing(float(end), True, float(best)) for end, best in zip(ENDS, BEST, strict=True)
    ]
    (group,), _ = groups.group(paths, variants.labels)
    assert list(group.folders) == [0, 1, 2]
    assert by_setting.table([group], {"x": dict.fromkeys(paths, 0.0)}).verdict is None
    monkeypatch.setattr(resuming, "check", lambda *args: None)
    runs = {name: comparing.ComparedRun(one, {}, {}) for name, one in RUNS.items()}
    (part,) = comparing.parts(whole, runs, lambda config: digits(VALIDATION))
    assert (part.begun, part.done) == (True, True)
    assert many_runs._finished(dict(zip(paths, RUNS.values(), strict=True))) == paths
    told = summary(paths[1])
    assert (told["epoch"], told["step"], told["validation"], told["test"]) == (5, at(3), -4.0, -4.0)


def test_a_run_without_its_last_checkpoint_is_finished_for_nobody(whole, tmp_path):
    """A kill may leave the rows of the last epoch, and the best checkpoint before the last one."""
    path = shutil.copytree(whole, tmp_path / "x") / planning.RUNS / "001"
    shutil.rmtree(path / CHECKPOINTS / str(at(5)))
    assert not standing(path, read_config(path), read_metrics(path)).finished
    with pytest.raises(groups.ComparisonError, match="is not finished: it is at epoch 3 of 6"):
        groups.group([path], variants.labels)
    assert [row["status"] for row in results.rows(tmp_path / "x")] == ["finished", "waiting", "finished"]


@pytest.mark.parametrize(("strategy", "num_devices"), [("map", 1), pytest.param("vmap", 2, marks=pytest.mark.soak)])
def test_a_population_that_was_stopped_anywhere_ends_bit_identical(tmp_path, monkeypatch, strategy, num_devices):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL_OF_MANY", 0.0)
    start(tmp_path / "whole", RUNS, strategy=strategy, num_devices=num_devices)
    seen = []
    for stop_after in (3, at(1) + 2, at(3), at(3) + 1, at(5)):
        assert not start(
            tmp_path / "x",
            RUNS,
            strategy=strategy,
            num_devices=num_devices,
            save_every=0.0,
            report=seen.append,
            should_stop=lambda n=stop_after: len(seen) >= n,
        )
        kept = PopulationKeeper(tmp_path / "x" / chunks.POPULATION / "0-0", 0.0).restore(RUNS["000"], 3)
        assert kept is not None
        assert kept.best is not None
    assert start(tmp_path / "x", RUNS, strategy=strategy, num_devices=num_devices, report=seen.append)
    assert [round(progress.epoch * STEPS_PER_EPOCH) for progress in seen] == list(range(1, 1 + at(EPOCHS)))
    assert results.write(tmp_path / "x").read_bytes() == results.write(tmp_path / "whole").read_bytes()
    for seed in range(3):
        one, other = folder(tmp_path / "x", seed), folder(tmp_path / "whole", seed)
        assert rows(one) == rows(other)
        for step in {at(BEST[seed]), at(ENDS[seed])}:
            assert_same_bits(state(one, step), state(other, step))


def test_a_population_ends_when_the_patience_of_all_is_over(tmp_path):
    runs = {name: one for name, one in RUNS.items() if name != "002"}
    seen = []
    start(tmp_path / "x", runs, report=seen.append)
    assert seen[-1].epoch == 5
    assert start(tmp_path / "x", runs, report=seen.append)
    assert seen[-1].epoch == 5


def test_runs_of_other_patience_are_other_groups():
    runs = RUNS | {"003": dataclasses.replace(RUNS["000"], patience=0)}
    assert [list(one.configs) for one in planning.grouped(runs, lambda config: digits(VALIDATION))] == [
        ["000", "001", "002"],
        ["003"],
    ]
