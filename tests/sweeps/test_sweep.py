"""sweep.py and planning.py: how runs are grouped, cut and measured changes no result; each program is compiled once."""

import functools
import math
import shutil

import jax
import numpy as np
import pytest

from tests.disk import Disk
from tests.marks import soaked
from tests.run_samples import VALIDATION, assert_close_result, assert_same_bits, config, digits, rows, state, train
from vae import durable
from vae.datasets import images
from vae.runs import checkpoint
from vae.runs.config import write_config
from vae.runs.files import RunError, RunWarning, read_json, write_json
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.runs.manifest import MANIFEST
from vae.runs.metrics import Metrics
from vae.sweeps import chunks, planning, results, scoreboard, sweep
from vae.sweeps.sweep_file import SWEEP
from vae.training import loop
from vae.training import step as training
from vae.training.program import Program

STEPS_PER_EPOCH = 6
EPOCHS = 3
BASE = functools.partial(config, batch_size=175, epochs=EPOCHS)
RATES = (1e-3, 1e-2, 3e-3)


def configs(rates=RATES, **changes):
    return {f"{r:03}": BASE(seed=r, learning_rate=rate, **changes) for r, rate in enumerate(rates)}


DATA = digits(VALIDATION).train, images.moments(digits(VALIDATION).train.images)
DEVICES = BASE().settings, jax.devices()[:1]
(GROUP,) = planning.grouped(configs(), lambda config: digits(config.validation))


def start(workdir, runs=None, *, strategy="map", num_devices=1, **options):
    """What experiments.sweep does with Configs; whether all runs are done."""
    runs = runs or configs()
    grouped = planning.grouped(runs, lambda config: digits(config.validation))
    workdir.mkdir(exist_ok=True)
    if not (workdir / SWEEP).exists():
        write_json(workdir / SWEEP, {"sweep": [], "runs": {name: {} for name in runs}})
        for name, one in runs.items():
            (workdir / planning.RUNS / name).mkdir(parents=True)
            write_config(workdir / planning.RUNS / name, one)
    devices = jax.devices()[:num_devices]
    return sweep.sweep(workdir, grouped, devices=devices, strategy=strategy, **options)


def assert_same_sweep(one, other):
    assert results.write(one).read_bytes() == results.write(other).read_bytes()
    for folder in (one / planning.RUNS).iterdir():
        same = other / planning.RUNS / folder.name
        assert rows(folder) == rows(same)
        assert_same_bits(state(folder), state(same))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "x"
    assert start(workdir)
    return workdir


def test_rows_that_a_damage_cost_change_no_column_of_the_results(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "x")
    path = next((tmp_path / "x" / planning.RUNS).iterdir()) / METRICS
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    assert results.write(tmp_path / "x").read_bytes() == results.write(undisturbed).read_bytes()


def of_bytes(monkeypatch, bytes_of, memory):
    """A program needs `bytes_of` its number of runs on each device, of which there are `memory`."""
    monkeypatch.setattr(Program, "bytes_on_a_device", lambda self, *_: bytes_of(self.num_runs))
    monkeypatch.setattr(planning, "memory_of", lambda devices: memory)


def test_runs_that_differ_in_arrays_alone_are_one_group():
    runs = {
        "a": BASE(seed=0),
        "b": BASE(seed=1, learning_rate=0.1, alpha=0.3, adam_b1=0.8),
        "c": BASE(latent_dim=3),
        "d": BASE(latent_dim=3, seed=4),
        "e": BASE(schedule="stages", stage_steps=(1, 2), stage_factors=(1.0, 0.5)),
        "f": BASE(schedule="stages", stage_steps=(1,), stage_factors=(1.0,)),
        "g": BASE(epochs=EPOCHS + 1),
        "h": BASE(validation=0),
    }
    grouped = planning.grouped(runs, lambda config: digits(config.validation))
    assert ["".join(group.configs) for group in grouped] == ["ab", "cd", "e", "f", "g", "h"]
    assert [len(group.dataset.train.images) for group in grouped][-2:] == [1077, 1437]


def test_a_run_of_the_sweep_ends_as_the_run_alone(tmp_path, undisturbed):
    train(tmp_path / "alone", configs()["001"])
    assert_close_result(tmp_path / "alone", undisturbed / planning.RUNS / "001")


@pytest.mark.parametrize(("num_devices", "memory"), [(1, 25), pytest.param(2, 10, marks=pytest.mark.soak)])
def test_a_population_that_does_not_fit_is_cut_into_chunks_of_one_shape(
    tmp_path, undisturbed, monkeypatch, num_devices, memory
):
    of_bytes(monkeypatch, lambda num_runs: 10 * num_runs / num_devices - 1, memory)
    traces, original = [], training.train_steps
    monkeypatch.setattr(training, "train_steps", lambda *args, **kw: traces.append(1) or original(*args, **kw))
    at_work = []
    assert start(tmp_path / "x", num_devices=num_devices, report=lambda p: at_work.append((p.finished, p.training)))
    assert sorted(set(at_work)) == [(0, 2), (2, 1)]
    assert len(traces) == 1
    assert_same_sweep(tmp_path / "x", undisturbed)


@pytest.mark.parametrize(
    ("num_runs", "memory", "num_devices", "chunk_size"),
    [
        (64, 64, 1, 64),
        (64, 50, 1, 32),
        (64, 63, 1, 32),
        (10, 4, 1, 3),
        (10, 0.5, 1, 1),
        (64, 10, 8, 64),
        (64, 3, 8, 16),
    ],
)
def test_chunks_fit_in_memory_and_are_as_equal_as_can_be(monkeypatch, num_runs, memory, num_devices, chunk_size):
    of_bytes(monkeypatch, lambda n: math.ceil(n / num_devices), memory)
    runs = [BASE(seed=seed) for seed in range(num_runs)]
    program = planning.largest_program(runs, *DATA, jax.devices()[:num_devices], "map")
    assert program.num_runs == chunk_size


@pytest.mark.parametrize("fastest", ["vmap", "map"])
def test_the_strategy_that_was_measured_fastest_is_taken(monkeypatch, fastest):
    seconds = {"vmap": 2.0, "map": 2.0, fastest: 1.0}
    monkeypatch.setattr(planning, "largest_program", lambda *args: Program(*DEVICES, 3, args[-1]))
    monkeypatch.setattr(planning, "measure", lambda program, *_: seconds[program.strategy])
    chosen = planning.choose(GROUP, DATA[0], DEVICES[1], "auto")
    assert chosen.plan == planning.Plan(fastest, 3, 1.0)
    assert chosen.program.strategy == fastest


def test_a_plan_is_made_once_and_kept(tmp_path, monkeypatch):
    assert start(tmp_path / "x", should_stop=lambda: True) is False
    plan = read_json(tmp_path / "x" / SWEEP)["groups"]["0"]
    assert plan == {"strategy": "map", "chunk_size": 3, "seconds": None, "done": 0}
    monkeypatch.setattr(planning, "choose", None)
    assert start(tmp_path / "x")
    assert read_json(tmp_path / "x" / SWEEP)["groups"]["0"] == plan | {"done": 1}


def test_a_plan_that_an_older_search_wrote_is_read(tmp_path):
    plans = {"003": {"strategy": "map", "num_runs": 4, "done": 1}}
    write_json(tmp_path / SWEEP, {"runs": {}, "round": {"trials": [3], "names": ["003"], "plans": plans}})
    of_round = planning.Plans(tmp_path, of_round=True)
    plan = of_round.load("003")
    assert (plan.strategy, plan.chunk_size, plan.done) == ("map", 4, 1)
    assert of_round.load("004") is None
    assert planning.Plans(tmp_path).load("003") is None
    of_round.store("004", plan._replace(done=2))
    stored = read_json(tmp_path / SWEEP)["round"]
    assert stored["plans"]["003"] == plans["003"]
    assert (stored["trials"], stored["plans"]["004"]["done"]) == ([3], 2)


def test_a_strategy_that_the_backend_lacks_is_not_taken(monkeypatch):
    original = Program.bytes_on_a_device

    def lacks_map(self, *args):
        if self.strategy == "map":
            raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: Unsupported\nelement type")
        return original(self, *args)

    monkeypatch.setattr(Program, "bytes_on_a_device", lacks_map)
    arguments = GROUP, DATA[0], DEVICES[1]
    plan = planning.choose(*arguments, "auto").plan
    assert (plan.strategy, plan.chunk_size) == ("vmap", 3)
    assert plan.seconds > 0
    with pytest.raises(RunError, match=r"map: UNIMPLEMENTED: Unsupported element type\); use `strategy=loop`"):
        planning.choose(*arguments, "map")


def test_a_second_strategy_is_not_tried_where_training_ends_sooner(monkeypatch):
    tried = []
    monkeypatch.setattr(planning, "largest_program", lambda *args: Program(*DEVICES, 3, args[-1]))
    monkeypatch.setattr(planning, "measure", lambda program, *_: tried.append(program.strategy) or 1e-9)
    chosen = planning.choose(GROUP, DATA[0], DEVICES[1], "auto")
    assert (chosen.plan.strategy, tried) == ("map", ["map"])


@pytest.mark.parametrize("strategy", soaked(["map", "vmap", "loop"], "vmap"))
def test_a_sweep_that_was_stopped_at_any_epoch_goes_on_bit_exactly(tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL_OF_MANY", 0.0)
    runs = configs((1e-3, 1e30, 1e-2), objective="geco", geco_reconstruction=-26.0)  # it has a state
    start(tmp_path / "whole", runs, strategy=strategy)
    seen = []
    for stop_after in (2, 9, 13):
        assert not start(
            tmp_path / "x", runs, strategy=strategy, report=seen.append, should_stop=lambda n=stop_after: len(seen) >= n
        )
    assert len(seen) == 13
    folder = tmp_path / "x" / chunks.POPULATION / "0-0"
    assert checkpoint.steps(folder)[-1] == 13
    assert start(tmp_path / "x", runs, strategy=strategy, report=seen.append)
    assert [round(progress.epoch * STEPS_PER_EPOCH) for progress in seen] == list(range(1, 1 + EPOCHS * 6))
    assert not folder.exists()
    assert results.write(tmp_path / "x").read_bytes() == results.write(tmp_path / "whole").read_bytes()
    for name in ("000", "002"):
        assert_same_bits(*(state(tmp_path / which / planning.RUNS / name) for which in ("x", "whole")))


def test_a_run_whose_held_out_bound_is_not_finite_is_frozen_also_after_a_restart(tmp_path, monkeypatch):
    original, train_steps, steps = Program.validate, Program.train_steps, []

    def watched(self, *args):
        states, seen = train_steps(self, *args)
        steps.append(seen.step.tolist())
        return states, seen

    def validate(self, members, states, data):
        values = original(self, members, states, data)
        values["bound"] = np.where(np.arange(3) == 2, np.nan, values["bound"])
        return values

    monkeypatch.setattr(Program, "validate", validate)
    monkeypatch.setattr(Program, "train_steps", watched)
    seen = []
    start(tmp_path / "x", save_every=0.0, report=seen.append, should_stop=lambda: bool(seen) and seen[-1].epoch >= 1)
    assert "validation bound" not in str(rows(tmp_path / "x" / planning.RUNS / "002"))
    assert read_json(tmp_path / "x" / planning.RUNS / "002" / "failure.json")["step"] == STEPS_PER_EPOCH - 1
    start(tmp_path / "x", report=seen.append)
    assert {progress.training for progress in seen if progress.epoch > 1} == {2}
    status = [row["status"] for row in results.rows(tmp_path / "x")]
    assert status == ["finished", "finished", "diverged"]
    assert [row["step"] for row in rows(tmp_path / "x" / planning.RUNS / "002")] == [STEPS_PER_EPOCH] * 2
    assert steps[-1] == [EPOCHS * STEPS_PER_EPOCH, EPOCHS * STEPS_PER_EPOCH, STEPS_PER_EPOCH]


def test_runs_start_from_the_parameters_of_another(tmp_path):
    train(tmp_path / "other", BASE(epochs=1))
    runs = configs(init_from=tmp_path / "other")
    start(tmp_path / "x", runs)
    train(tmp_path / "alone", runs["001"])
    assert_close_result(tmp_path / "alone", tmp_path / "x" / planning.RUNS / "001")


def board_of(tmp_path, runs):
    write_json(tmp_path / SWEEP, {"runs": {}})
    return scoreboard.Scoreboard(tmp_path, planning.grouped(runs, lambda config: digits()), lambda progress: None)


def test_the_best_so_far_is_by_the_last_bound_of_runs_of_one_bound(tmp_path):
    board = board_of(tmp_path, {"a": BASE(), "b": BASE(learning_rate=1e-2), "c": BASE(latent_dim=3)})
    for name, bound in (("a", -20.0), ("b", -10.0), ("c", -17.0), ("b", -15.0), ("a", math.nan)):
        board.saw(name, {"bound": bound, "reconstruction": 0.0, "kl": 0.0})
    assert board.best() == {"validation elbo": ("b", -15.0)}


def test_the_best_so_far_of_different_bounds_is_by_the_elbo_and_apart_by_likelihood(tmp_path):
    """The IWAE bound of two samples is above the ELBO whoever is better."""
    grey = {"binarization": "none", "likelihood": "normal"}
    board = board_of(tmp_path, {"a": BASE(), "b": BASE(objective="iwae", num_samples=2), "c": BASE(**grey)})
    for name, bound, reconstruction, kl in (("a", -20.0, -18.0, 2.0), ("b", -19.0, -17.0, 4.0), ("c", 9.0, 10.0, 1.0)):
        board.saw(name, {"bound": bound, "reconstruction": reconstruction, "kl": kl})
    assert board.best() == {
        "validation ELBO (binarization=fixed, likelihood=bernoulli)": ("a", -20.0),
        "validation elbo (binarization=none, likelihood=normal)": ("c", 9.0),
    }
    board.saw("b", {"bound": -19.0, "reconstruction": None, "kl": 4.0})
    board.saw("a", {"bound": -20.0, "reconstruction": math.nan, "kl": 4.0})
    assert list(board.best()) == ["validation elbo (binarization=none, likelihood=normal)"]


def test_what_is_set_at_the_end_of_an_epoch_is_set_in_a_sweep(tmp_path):
    """The optimal scale of a normal likelihood (Rybkin et al. 2021)."""
    runs = configs(likelihood="normal", scale="optimal", binarization="none")
    start(tmp_path / "x", runs)
    train(tmp_path / "alone", runs["001"])
    among = tmp_path / "x" / planning.RUNS / "001"
    assert_close_result(tmp_path / "alone", among)
    assert state(among).params["decoder"]["output"]["log_scale"] != 0


class Killed(BaseException):
    """As by kill -9."""


@pytest.mark.parametrize("save_every", soaked([0.0, 1e9], 1e9))
@pytest.mark.parametrize("moment", ["first test row", "last test row", "plan", "delete"])
def test_a_sweep_killed_in_its_last_moments_has_each_row_once(tmp_path, monkeypatch, undisturbed, moment, save_every):
    write, store, delete = Metrics.write, planning.Plans.store, chunks.delete
    tested = []

    def killed_writing(self, step, epoch, split, values):
        write(self, step, epoch, split, values)
        if split == "test" and moment.endswith("row"):
            tested.append(self)
            if len(tested) == (1 if moment.startswith("first") else len(RATES)):
                raise Killed

    def killed_storing(self, key, plan):
        if plan.done and moment == "plan":
            raise Killed
        store(self, key, plan)

    def killed_deleting(folder):
        if moment == "delete":
            raise Killed
        delete(folder)

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "write", killed_writing)
        patch.setattr(planning.Plans, "store", killed_storing)
        patch.setattr(chunks, "delete", killed_deleting)
        with pytest.raises(Killed):
            start(tmp_path / "x", save_every=save_every)
    assert start(tmp_path / "x", save_every=save_every)
    for folder in (tmp_path / "x" / planning.RUNS).iterdir():
        found = [(row["step"], row["split"]) for row in rows(folder)]
        assert len(found) == len(set(found))
        assert "test" in [split for _, split in found]
    assert_same_sweep(tmp_path / "x", undisturbed)


def test_a_damaged_checkpoint_of_a_population_is_set_aside_and_its_runs_resume_from_the_one_before(
    tmp_path, undisturbed
):
    reached = [0.0]
    assert not start(
        tmp_path / "x",
        save_every=0.0,
        report=lambda progress: reached.append(progress.epoch),
        should_stop=lambda: reached[-1] >= 2,
    )
    folder = tmp_path / "x" / chunks.POPULATION / "0-0"
    first, newest = checkpoint.steps(folder)
    (folder / str(newest) / MANIFEST).write_text("{}")
    with pytest.warns(RunWarning, match=rf"{newest} cannot be trusted: its file manifest\.json is damaged; it is now"):
        assert start(tmp_path / "x", save_every=0.0)
    assert first < newest
    assert_same_sweep(tmp_path / "x", undisturbed)


def reached(workdir) -> int:
    """The step from which a sweep resumes its two runs: that of the population, or of the runs if both are done."""
    population = [checkpoint.steps(path) for path in (workdir / chunks.POPULATION).glob("*")]
    alone = [checkpoint.steps(workdir / planning.RUNS / name / CHECKPOINTS) for name in ("000", "001")]
    return max([0, *(saved[-1] for saved in population if saved), min(max(saved, default=0) for saved in alone)])


def test_a_power_cut_at_any_moment_of_a_sweep_loses_no_checkpoint_that_was_there_before(tmp_path, monkeypatch):
    """The population's go once those of its runs are on the disk."""
    runs = configs(RATES[:2])
    workdir = tmp_path / "disk" / "x"
    (tmp_path / "disk").mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(patch, tmp_path / "disk")
        assert not start(workdir, runs, should_stop=lambda: True)  # makes the folders
        durable.sync_all([tmp_path / "disk", workdir, *workdir.rglob("*")])
        original, there = chunks.delete, []

        def deleted(folder):
            left = disk.survivors(disk.states[-1], tmp_path / f"deleted {len(there)}") / "x" / planning.RUNS
            there.append([checkpoint.steps(left / name / CHECKPOINTS) for name in runs])
            original(folder)

        patch.setattr(chunks, "delete", deleted)
        assert start(workdir, runs, save_every=0.0)
    assert there == [[[18], [18]]] * 2
    newest, seen = 0, []
    for number, one in enumerate(disk.states):
        left = disk.survivors(one, tmp_path / f"{number}") / "x"
        if left.exists():
            seen.append(reached(left))
            assert seen[-1] >= newest, "a checkpoint was lost that was there before"
            newest = seen[-1]
        shutil.rmtree(tmp_path / f"{number}")
    disk.close()
    assert set(seen) == {0, 6, 12, 18}
    assert disk.faults == []
