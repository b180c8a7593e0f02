"""search.py, study.py, storage.py: trials are the runs trained alone, counted exactly, and lost by no dead worker."""

import fcntl
import functools
import itertools
import math
import os
from pathlib import Path
from typing import ClassVar
from unittest import mock

import jax
import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tests.marks import soaked
from tests.run_samples import assert_close_result, config, digits, rows, state, train
from tests.workers import join_at_once
from vae.runs import checkpoint, tensorboard
from vae.runs.config import read_config
from vae.runs.files import RunError, write_json
from vae.runs.folder import CHECKPOINTS
from vae.sweeps import planning, results, samplers, search, storage, study
from vae.sweeps.sweep_file import SWEEP
from vae.training import step as training
from vae.training.loop import PopulationRun
from vae.training.program import Program, cached_program
from vae.training.start import stored_splits

EPOCHS = 4
BASE = functools.partial(config, batch_size=350, epochs=EPOCHS)
RATES = {"learning_rate": FloatDistribution(1e-4, 3e-1, log=True)}
SPEC = samplers.Spec(RATES, "tpe", "none", "bound", population=4, epochs=EPOCHS, seeds=(0,))
ASKED = {"--search": "tpe"}


def member_of(workdir, opened=None, num_trials=8, identity="a", asked=ASKED):
    """What experiments.sweep does before it searches."""
    workdir.mkdir(exist_ok=True)
    opened = opened or storage.open_storage(str(workdir / "study.journal"))
    study.join(opened, "s", asked)
    if not (workdir / SWEEP).exists():
        write_json(workdir / SWEEP, {"search": "tpe", "runs": {}, "worker": identity})
    of = study.WorkerId(identity, str(workdir.absolute()), os.uname().nodename)
    return study.StudyWorker(opened, "s", of, asked, num_trials)


def make(params, **changes):
    return search.TrialRun(params, BASE(**(params | changes)), {"flags": {}})


ORIGINAL = search.ProgramCache


class Kept(search.ProgramCache):
    """Programs that are compiled once for all searches of this module."""

    compiled: ClassVar = {}

    def __init__(self, *args):
        super().__init__(*args)
        self._compiled, self._most = self.compiled, 8


def start(workdir, spec=SPEC, configure=make, member=None, programs=Kept, **options):
    """What experiments.sweep does with a Spec; the trials."""
    member = member or member_of(workdir, num_trials=options.pop("num_trials", 8))
    load = lambda config: digits(config.validation)  # noqa: E731
    with mock.patch.object(search, "ProgramCache", programs):
        search.search(workdir, member, spec, configure, load, devices=jax.devices()[:1], strategy="map", **options)
    return member.trials()


@pytest.fixture
def traces(monkeypatch):
    """Grows by one whenever the training of a program is traced; how much memory it takes is not asked."""
    cached_program.cache_clear()  # of other tests
    found, original = [], training.train_steps
    monkeypatch.setattr(training, "train_steps", lambda *args, **kw: found.append(1) or original(*args, **kw))
    monkeypatch.setattr(Program, "bytes_on_a_device", lambda self, *args: 0)
    return found


@pytest.fixture
def values_alone(monkeypatch):
    """For tests of many trials that look at no checkpoint."""
    monkeypatch.setattr(checkpoint, "save", lambda *args, **kw: None)
    monkeypatch.setattr(tensorboard, "write_rows", lambda workdir, rows: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "x"
    start(workdir)
    return workdir


def validation(workdir, trial):
    """The rows of a trial's run on the validation images."""
    return [row for row in rows(workdir / planning.RUNS / f"run-{trial.number:03}") if row["split"] == "validation"]


def trials_of(workdir):
    return member_of(workdir).trials()


def states(trials):
    return [trial.state.name for trial in trials]


def test_each_trial_is_the_run_trained_alone_and_its_value_the_last_validation_bound(tmp_path, undisturbed):
    trials = trials_of(undisturbed)
    assert states(trials) == ["COMPLETE"] * 8
    for trial in trials:
        written = [
            r["elbo"]
            for r in rows(undisturbed / planning.RUNS / f"run-{trial.number:03}")
            if r["split"] == "validation"
        ]
        assert trial.value == written[-1]
        assert list(trial.intermediate_values.values()) == written
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
    train(tmp_path / "alone", BASE(**trials[5].params))
    assert_close_result(tmp_path / "alone", undisturbed / planning.RUNS / "run-005")


@pytest.mark.usefixtures("values_alone")
def test_the_same_search_asks_for_the_same_trials(tmp_path, undisturbed):
    again = start(tmp_path / "x")
    assert [trial.params for trial in again] == [trial.params for trial in trials_of(undisturbed)]
    other = start(tmp_path / "y", SPEC._replace(seeds=(1,)), num_trials=4)
    assert not {t.params["learning_rate"] for t in other} & {t.params["learning_rate"] for t in again}


@pytest.mark.usefixtures("values_alone")
def test_there_are_as_many_trials_as_asked_for_and_one_program(tmp_path, traces):
    for num_trials, size, rounds in ((9, 4, [4, 4, 1]), (4, 16, [4])):
        workdir, sizes = tmp_path / f"{size}", []
        report = lambda p, sizes=sizes: sizes.append(p.training) if p.epoch == EPOCHS else None  # noqa: E731
        spec = SPEC._replace(population=size)
        trials = start(workdir, spec, num_trials=num_trials, report=report, programs=ORIGINAL)
        assert states(trials) == ["COMPLETE"] * num_trials
        assert sizes == rounds
        assert len(traces) == 1  # of the second search too: it needs no larger one
        assert sorted(path.name for path in (workdir / planning.RUNS).iterdir()) == [
            f"run-{i:03}" for i in range(num_trials)
        ]
        assert not list(workdir.glob("population/*"))


@pytest.mark.usefixtures("values_alone")
def test_trials_of_several_programs_compile_each_once(tmp_path, traces):
    space = {"latent_dim": IntDistribution(2, 3), **RATES}
    trials = start(tmp_path / "x", SPEC._replace(space=space), num_trials=12, programs=ORIGINAL)
    sizes = {sum(trial.params["latent_dim"] == 2 for trial in trials[first:][:4]) for first in (0, 4, 8)}
    assert len(sizes) > 1  # groups of several sizes, of two programs in three rounds
    assert len(traces) <= 4
    assert states(trials) == ["COMPLETE"] * 12
    for first in (0, 4, 8):
        two, three = ([t for t in trials[first:][:4] if t.params["latent_dim"] == size] for size in (2, 3))
        for one, other in itertools.product(two, three):  # of two shapes: one after the other
            earlier, later = sorted((one, other), key=lambda trial: trial.datetime_start)
            assert earlier.datetime_complete <= later.datetime_start


def test_the_clock_of_a_trial_starts_when_it_trains_and_not_when_it_is_asked_for(tmp_path):
    member = member_of(tmp_path, optuna.storages.InMemoryStorage())
    asked = member.ask(3, RATES, lambda number: samplers.sampler(SPEC, number), samplers.pruner("none", EPOCHS))
    assert [(t.state, t.datetime_start) for t in member.trials()] == [(TrialState.WAITING, None)] * 3
    assert member.num_left() == 5
    for number in asked:
        member.start(member.trials()[number])
        member.trial(member.study(), number).report(-90.0, 1)
        began = member.trials()[number].datetime_start
        member.start(member.trials()[number])
        assert member.trials()[number].datetime_start == began  # a resume
        member.study().tell(number, -90.0)
    moments = [(t.datetime_start, t.datetime_complete) for t in member.trials()]
    assert sorted(moments) == moments
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(moments))
    # Another worker may have begun a trial, for a database to watch it.
    (number,) = member.ask(1, RATES, lambda number: samplers.sampler(SPEC, number), samplers.pruner("none", EPOCHS))
    member.storage.set_trial_state_values(member.id_of(number), TrialState.RUNNING)
    watched = member.trials()[number].datetime_start
    member.start(member.trials()[number])
    assert member.trials()[number].datetime_start > watched
    assert member.trials()[number].state == TrialState.RUNNING


def test_a_trial_that_fails_before_it_trains_is_one_that_optuna_can_copy(tmp_path):
    member = member_of(tmp_path, optuna.storages.InMemoryStorage(), num_trials=1)
    template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={study.WORKER: member.identity._asdict()})
    member.storage.create_new_trial(0, template)  # older code was killed before it drew
    member.free_the_dead(RATES)
    (number,) = member.ask(1, RATES, lambda number: samplers.sampler(SPEC, number), samplers.pruner("none", EPOCHS))
    member.fail(member.id_of(number), "as if stale")
    optuna.create_study().add_trials(member.trials())
    assert states(member.trials()) == ["FAIL"] * 2
    assert member.num_left() == 1


def test_few_trials_of_a_shape_wait_for_each_other_in_the_program_of_one_run(traces, monkeypatch):
    """Unless they would take much longer than a program of all of them takes to compile."""
    load = lambda config: digits()  # noqa: E731
    (three,) = planning.grouped({str(seed): BASE(seed=seed, latent_dim=3) for seed in range(3)}, load)
    data = stored_splits(three.dataset, "fixed")["train"]
    programs = ORIGINAL(jax.devices()[:1], "auto", 8)
    assert programs.program_for(three, data, None).plan[:2] == ("loop", 1)
    assert len(traces) == 1
    (two,) = planning.grouped({str(seed): BASE(seed=seed, latent_dim=3) for seed in range(2)}, load)
    assert programs.program_for(two, data, None).plan[:2] == ("loop", 1)
    assert len(traces) == 1
    monkeypatch.setattr(planning, "WORTH_A_TRIAL", 0)
    chosen = mock.Mock(
        return_value=planning.PlannedProgram(None, Program(three.config.settings, jax.devices()[:1], 4, "map"))
    )
    monkeypatch.setattr(planning, "choose", chosen)
    assert ORIGINAL(jax.devices()[:1], "auto", 8).program_for(three, data, None).plan[:2] == ("map", 4)
    assert len(chosen.call_args[0][0].configs) == 4


@pytest.mark.parametrize("pruner", soaked(["median", "hyperband"], "hyperband"))
def test_pruned_trials_are_frozen_worse_than_the_others_and_can_be_gone_on_with(tmp_path, pruner):
    spec = SPEC._replace(sampler="random", pruner=pruner, population=6)
    trials = start(tmp_path / "x", spec, num_trials=12)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert pruned
    assert finished
    for trial in pruned:
        folder = tmp_path / "x" / planning.RUNS / f"run-{trial.number:03}"
        assert trial.last_step < EPOCHS
        assert rows(folder)[-1]["epoch"] == trial.last_step
        assert trial.value == trial.intermediate_values[trial.last_step]
        assert checkpoint.steps(folder / CHECKPOINTS)[-1] == trial.last_step * 3
    for trial in pruned if pruner == "median" else ():
        epoch = trial.last_step
        before = [other.intermediate_values[epoch] for other in finished if other.number < trial.number // 6 * 6]
        assert max(trial.intermediate_values.values()) < np.median(before)
    statuses = {row["run"]: row["status"] for row in results.rows(tmp_path / "x")}
    assert statuses == {f"run-{t.number:03}": "pruned" if t in pruned else "finished" for t in trials}
    folder = tmp_path / "x" / planning.RUNS / f"run-{pruned[0].number:03}"
    assert int(state(folder).step) == pruned[0].last_step * 3
    before = rows(folder)
    train(folder, read_config(folder))
    assert rows(folder)[: len(before)] == before
    train(tmp_path / "alone", read_config(folder))
    assert_close_result(tmp_path / "alone", folder)


@pytest.mark.usefixtures("values_alone")
def test_a_diverged_trial_is_told_the_lowest_value_and_a_sampler_learns_from_it(tmp_path):
    space = {"learning_rate": FloatDistribution(1e-4, 1e37, log=True)}
    trials = start(tmp_path / "x", SPEC._replace(space=space, population=8), num_trials=24)
    diverged = [trial for trial in trials if trial.user_attrs.get(study.DIVERGED)]
    assert {trial.state for trial in diverged} == {TrialState.PRUNED}
    assert {trial.value for trial in diverged} == {-math.inf}
    folders = {f"run-{trial.number:03}" for trial in diverged}
    assert folders == {row["run"] for row in results.rows(tmp_path / "x") if row["status"] == "diverged"}
    early, late = (sum(trial in diverged for trial in part) for part in (trials[:8], trials[16:]))
    assert early >= 3
    assert late < early


@pytest.mark.usefixtures("values_alone")
def test_a_sampler_comes_closer_to_the_best_learning_rate_than_chance(tmp_path):
    """From 1e-6 to 1e0 a VAE of few epochs learns next to nothing below 1e-4."""
    space = {"learning_rate": FloatDistribution(1e-6, 1.0, log=True)}
    medians = {}
    for name in ("random", "tpe", "cmaes"):
        spec = SPEC._replace(space=space, sampler=name, population=8, epochs=2)
        trials = start(tmp_path / name, spec, functools.partial(make, epochs=2), num_trials=24)
        medians[name] = np.median([trial.value for trial in trials[8:]])
    assert medians["tpe"] > medians["random"]
    assert medians["cmaes"] > medians["random"]


@pytest.mark.usefixtures("values_alone")
def test_the_elbo_is_compared_where_it_is_asked_for(tmp_path):
    space = {"beta": FloatDistribution(0.5, 4.0)}
    spec = SPEC._replace(space=space, metric="elbo")
    trials = start(
        tmp_path / "x", spec, lambda params: make(params, objective="beta", learning_rate=1e-2), num_trials=3
    )
    for trial in trials:
        last = [
            r for r in rows(tmp_path / "x" / planning.RUNS / f"run-{trial.number:03}") if r["split"] == "validation"
        ][-1]
        assert trial.value == last["reconstruction"] - last["kl"]
        assert trial.value != last["beta"]


@pytest.mark.usefixtures("values_alone")
def test_lists_are_categories_of_their_texts(tmp_path):
    space = {"learning_rate": CategoricalDistribution(["1e-3", "1e-2"])}
    spec = SPEC._replace(space=space, sampler="random")
    configure = lambda params: make({"learning_rate": float(params["learning_rate"])})  # noqa: E731
    trials = start(tmp_path / "x", spec, configure, num_trials=4)
    assert {trial.params["learning_rate"] for trial in trials} == {"1e-3", "1e-2"}


@pytest.mark.parametrize("stop_at", [3, 6])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, undisturbed, stop_at):
    seen = []
    stop = lambda: len(seen) >= stop_at  # noqa: E731
    trials = start(tmp_path / "x", report=lambda p: seen.append(p.epoch) if p.epoch_ended else None, should_stop=stop)
    assert states(trials).count("RUNNING") == 4
    trials = start(tmp_path / "x")
    assert [(t.params, t.value) for t in trials] == [(t.params, t.value) for t in trials_of(undisturbed)]
    assert results.write(tmp_path / "x").read_bytes() == results.write(undisturbed).read_bytes()


@pytest.mark.usefixtures("values_alone")
def test_a_round_whose_trials_the_study_has_lost_is_one_line(tmp_path):
    seen = []
    start(tmp_path / "x", report=seen.append, should_stop=lambda: len(seen) > 1)
    assert search.stored(tmp_path / "x")["trials"] == [0, 1, 2, 3]
    (tmp_path / "x" / "study.journal").unlink()
    with pytest.raises(RunError, match=r"the study s has no trial 0, which .*sweep.json says is in training"):
        start(tmp_path / "x")


class Killed(BaseException):
    """As if the process had ended here."""


PRUNED = SPEC._replace(sampler="random", pruner="median", population=5)


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """The folder of the search for PRUNED that nobody killed."""
    workdir = tmp_path_factory.mktemp("never_killed") / "x"
    start(workdir, PRUNED, num_trials=10)
    return workdir


@pytest.mark.parametrize("moment", soaked(["asked", "pruned", "told"], "pruned", "told"))
def test_a_search_killed_between_two_writes_goes_on_as_if_it_had_not_been(never_killed, tmp_path, monkeypatch, moment):
    original = {"asked": search.Rounds._store, "pruned": PopulationRun._leave, "told": search.TrialReporter.ended}[
        moment
    ]
    calls = []

    def interrupted(self, *args):
        calls.append(1)
        if moment == "asked":
            raise Killed
        if moment == "pruned" and not args[0]:
            return original(self, *args)
        if moment == "told":
            original(self, *args)
        raise Killed

    owner = {"asked": search.Rounds, "pruned": PopulationRun, "told": search.TrialReporter}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(owner, original.__name__, interrupted)
        with pytest.raises(Killed):
            start(tmp_path / "x", PRUNED, num_trials=10, save_every=0.0)
    trials = start(tmp_path / "x", PRUNED, num_trials=10)
    whole = trials_of(never_killed)
    assert [(t.params, t.value, t.state) for t in trials] == [(t.params, t.value, t.state) for t in whole]
    assert results.write(tmp_path / "x").read_bytes() == results.write(never_killed).read_bytes()
    for folder in (never_killed / planning.RUNS).iterdir():
        assert rows(tmp_path / "x" / planning.RUNS / folder.name) == rows(folder)


TWO = RATES | {"depth": IntDistribution(1, 1), "beta": FloatDistribution(0.5, 2.0)}


@pytest.mark.parametrize("kind", ["random", "tpe", "cmaes"])
def test_what_a_worker_had_drawn_when_it_was_killed_changes_no_later_draw(tmp_path, kind):
    """Two rounds of trials; in the second, the worker is killed after each of its writes."""
    spec = SPEC._replace(space=TWO, sampler=kind)

    def worker():
        return member_of(tmp_path, opened, num_trials=20)

    def ask(member):
        wanted = min(5, len(member.asked_before()) + member.num_left())
        return member.ask(wanted, TWO, lambda number: samplers.sampler(spec, number), samplers.pruner("none", 1))

    def drawn(killed_after):
        """The trials of the second round, drawn by as many processes as it takes to write so much in each."""
        opened_study = worker().study()
        for _ in range(3):  # more than TPE's first ten
            for number, params in ask(member := worker()).items():
                member.start(member.trials()[number])
                opened_study.tell(number, -abs(math.log(params["learning_rate"] * 100)) - params["beta"])
        while True:
            writes, original = [], opened.create_new_trial

            def write(*args, original=original, writes=writes):
                if len(writes) == killed_after:
                    raise Killed
                return writes.append(original(*args)) or writes[-1]

            with mock.patch.object(opened, "create_new_trial", write):
                try:
                    return ask(worker())
                except Killed:
                    continue

    found = []
    for killed_after in (math.inf, 1, 2, 3, 4):
        opened = optuna.storages.InMemoryStorage()
        found.append(drawn(killed_after))
    assert len({params["beta"] for params in found[0].values()}) == 5
    assert found == [found[0]] * 5


def other_worker(tmp_path, member, locked):
    """A worker that has asked for two trials and either lives or does not."""
    folder = tmp_path / "other"
    other = member_of(folder, member.storage, num_trials=member.num_trials, identity="b")
    (folder / ".lock").touch()
    file = (folder / ".lock").open()
    if locked:
        fcntl.flock(file, fcntl.LOCK_EX)
    numbers = other.ask(2, RATES, lambda number: samplers.sampler(SPEC, number), samplers.pruner("none", EPOCHS))
    return other, list(numbers), file


@pytest.mark.usefixtures("values_alone")
@pytest.mark.parametrize("locked", [True, False])
def test_trials_of_a_dead_worker_are_made_up_for_and_those_of_a_live_one_are_not(tmp_path, locked):
    member = member_of(tmp_path / "x", num_trials=4)
    _, numbers, file = other_worker(tmp_path, member, locked)
    with file:
        trials = start(tmp_path / "x", member=member)
    assert numbers == [0, 1]
    assert states(trials[:2]) == (["WAITING"] * 2 if locked else ["FAIL"] * 2)
    assert states(trials).count("COMPLETE") == (2 if locked else 4)
    assert len(trials) == (4 if locked else 6)


def test_a_worker_of_another_host_or_folder_of_the_same_name_is_not_taken_for_dead(tmp_path):
    member = member_of(tmp_path / "x")
    (tmp_path / "x" / ".lock").touch()
    assert study.is_dead(member.identity)
    assert not study.is_dead(member.identity._replace(host="elsewhere", id="other"))
    assert study.is_dead(member.identity._replace(id="other"))  # its folder was here, and is gone
    assert study.is_dead(member.identity._replace(host="elsewhere"))  # its folder is here, and nobody holds it


@pytest.mark.usefixtures("values_alone")
def test_a_trial_that_others_failed_while_it_trained_is_dropped_and_made_up_for(tmp_path):
    member = member_of(tmp_path / "x", num_trials=4)
    seen = []

    def report(progress):
        if progress.epoch_ended and not seen:
            seen.append(member.fail(member.trials()[1]._trial_id, "as if stale"))

    trials = start(tmp_path / "x", member=member, report=report)
    assert states(trials) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert rows(tmp_path / "x" / planning.RUNS / "run-001")[-1]["epoch"] < EPOCHS
    status = {row["run"]: row["status"] for row in results.rows(tmp_path / "x")}
    assert status["run-001"] == "waiting"


def test_eight_processes_make_one_study_in_a_journal_at_once(tmp_path):
    found = join_at_once(str(tmp_path / "journal"), 8, [ASKED])
    assert sorted(found) == [f"study 0, trial {number}" for number in range(8)]


def test_what_workers_disagree_about_is_refused_with_each_difference(tmp_path):
    member_of(tmp_path / "x", asked={"--search": "tpe", "--latent_dim": 2, "--beta": 1.0})
    with pytest.raises(RunError, match=r"--beta is 1\.0, not 2\.0; --latent_dim is 2, not None; ask for the same"):
        member_of(tmp_path / "x", asked={"--search": "tpe", "--beta": 2.0})
    opened = storage.open_storage(str(tmp_path / "x" / "study.journal"))
    for name, directions in {"small": ["minimize"], "two": ["maximize", "maximize"], "none": []}.items():
        opened.create_new_study([getattr(optuna.study.StudyDirection, one.upper()) for one in directions], name)
        with pytest.raises(RunError, match=f"the study {name} does not maximise one value"):
            study.join(opened, name, ASKED)
    optuna.create_study(storage=opened, study_name="other", direction="maximize").ask()
    with pytest.raises(RunError, match="not made by this program"):
        study.join(opened, "other", ASKED)


@pytest.mark.parametrize("content", [b"a text\n", b"{}", b'{"op_code":0'])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path, content):
    path = Path(tmp_path / "file")
    path.write_bytes(content)
    with pytest.raises(RunError, match="is no journal of Optuna"):
        storage.open_storage(str(path))
    assert path.read_bytes() == content
