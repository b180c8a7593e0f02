"""A study in a real PostgreSQL: made by many at once, shared by worker processes, and left by those that die."""

import contextlib
import math
import os
import signal
import time

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from tests.postgresql import postgresql
from tests.script_runs import scripts
from tests.workers import join_at_once
from vae.runs.files import read_json
from vae.sweeps import samplers, storage, study
from vae.sweeps.sweep_file import SWEEP

__all__ = ["postgresql", "scripts"]

RATES = {"learning_rate": FloatDistribution(1e-4, 1e-1, log=True)}
SPEC = samplers.Spec(RATES, "random", "none", "bound", population=2, epochs=1, seeds=(0,))
SMALL = ("--preset=digits", "--hidden_sizes=16", "--batch_size=400", "--strategy=map", "--nofigures", "--search=random",
         "--sweep=learning_rate=log:1e-3:1e-2")  # fmt: skip


@contextlib.contextmanager
def opening(url):
    opened = storage.open_storage(url)
    try:
        yield opened
    finally:
        opened._backend.engine.dispose()


def trials_of(url):
    with opening(url) as opened:
        return opened.get_all_trials(opened.get_study_id_from_name("digits-elbo"))


def count(trials, *states):
    return sum(trial.state in states for trial in trials)


def member(opened, identity, host, num_trials=8):
    study.join(opened, "s", {"--search": "random"})
    return study.StudyWorker(opened, "s", study.WorkerId(identity, "/absent", host), {"--search": "random"}, num_trials)


def ask(worker, wanted):
    return worker.ask(wanted, RATES, lambda number: samplers.sampler(SPEC, number), samplers.pruner("none", 1))


@pytest.mark.parametrize("num_workers", [4, *[pytest.param(8, marks=pytest.mark.soak)] * 4])
def test_processes_make_one_study_at_once(postgresql, num_workers):
    found = join_at_once(postgresql.new_database(), num_workers, [{"--search": "tpe"}])
    assert sorted(found) == [f"study 1, trial {number}" for number in range(num_workers)]


def test_a_trial_whose_worker_sends_no_heartbeat_is_failed_and_one_whose_worker_does_is_not(postgresql, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(study, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(storage, "GRACE_SECONDS", 2)
    with opening(postgresql.new_database()) as opened:
        dead, live, observer = (member(opened, name, "elsewhere") for name in ("dead", "live", "observer"))
        for worker in (dead, live):
            assert len(ask(worker, 2)) == 2
            worker.start(worker.trials()[-1])  # the other one waits
        # Another died between asking and its first heartbeat.
        unheard = create_trial(state=TrialState.WAITING, user_attrs={study.WORKER: dead.identity._asdict()})
        opened.create_new_trial(opened.get_study_id_from_name("s"), unheard)
        with live.beating():
            observer.free_the_dead(RATES)
            assert count(observer.trials(), TrialState.RUNNING) == 5
            time.sleep(3.2)
            observer.free_the_dead(RATES)
        freed = [trial.number for trial in observer.trials() if trial.state == TrialState.FAIL]
        assert freed == [0, 1, 4]
        assert observer.num_left() == 6


def test_no_more_trials_are_kept_than_asked_for_when_many_ask_for_the_last(postgresql):
    with opening(postgresql.new_database()) as opened:
        workers = [member(opened, str(i), "elsewhere", num_trials=3) for i in range(2)]
        assert [*ask(workers[0], 2), *ask(workers[1], 2)] == [0, 1, 2]
        assert [trial.state for trial in workers[0].trials()] == [TrialState.WAITING] * 3 + [TrialState.FAIL]


def test_the_lowest_of_all_values_that_a_diverged_trial_is_told_is_kept(postgresql):
    with opening(postgresql.new_database()) as opened:
        worker = member(opened, "a", "elsewhere")
        (number,) = ask(worker, 1)
        worker.start(worker.trials()[number])
        worker.trial(worker.study(), number).report(-math.inf, 1)
        worker.study().tell(number, state=TrialState.PRUNED)
        assert [(trial.value, trial.intermediate_values) for trial in worker.trials()] == [(-math.inf, {1: -math.inf})]


@pytest.fixture
def closing(monkeypatch):
    """After scripts that were called in this process: closes their connections, which would stay open until its end."""
    found, original = [], storage._open_database
    monkeypatch.setattr(storage, "_open_database", lambda text: found.append(original(text)) or found[-1])
    yield
    for opened in found:
        opened._backend.engine.dispose()


@pytest.mark.usefixtures("closing")
@pytest.mark.soak
def test_trials_of_a_killed_worker_are_made_up_for_by_another_and_dropped_when_it_comes_back(
    postgresql, scripts, tmp_path
):
    url = postgresql.new_database()
    flags = (*SMALL, "--epochs=30", "--trials=4", "--population=4", "--pruner=none", f"--storage={url}")
    script = scripts.start(tmp_path, "sweep", *flags, "--workdir=a")
    script.wait_for("epoch 2/")
    script.send(signal.SIGKILL)
    assert script.result().code == -signal.SIGKILL
    assert [trial.state for trial in trials_of(url)] == [TrialState.RUNNING] * 4
    code, _, err = scripts.call(tmp_path, "sweep", *flags, "--workdir=b")
    assert (code, err) == (0, "")
    states = [trial.state for trial in trials_of(url)]
    assert states == [TrialState.FAIL] * 4 + [TrialState.COMPLETE] * 4
    code, out, err = scripts.call(tmp_path, "sweep", "--workdir=a", "--nofigures")
    assert (code, err) == (0, "")
    assert [trial.state for trial in trials_of(url)] == states
    assert "epoch 30/" not in out


def test_two_workers_train_as_many_trials_as_asked_for_and_none_twice(postgresql, scripts, tmp_path):
    url = postgresql.new_database()
    # Many rounds: the worker that starts later gets some, too.
    flags = (*SMALL, "--epochs=2", "--trials=11", "--population=2", f"--storage={url}")
    started = [scripts.start(tmp_path, "sweep", *flags, f"--workdir={name}") for name in "ab"]
    for script in started:
        code, out, err = script.result(120)
        assert (code, err) == (0, ""), out
    trials = trials_of(url)
    assert count(trials, TrialState.COMPLETE, TrialState.PRUNED) == 11
    assert count(trials, TrialState.RUNNING) == 0
    folders = {name: {path.name for path in (tmp_path / name / "runs").iterdir()} for name in "ab"}
    assert not folders["a"] & folders["b"]
    assert folders["a"]
    assert folders["b"]
    told = {f"run-{trial.number:03}" for trial in trials if trial.state != TrialState.FAIL}
    assert told == folders["a"] | folders["b"]
    assert len({trial.params["learning_rate"] for trial in trials if trial.params}) == len(told)


@pytest.mark.usefixtures("closing")
def test_a_worker_with_other_flags_is_refused_with_the_difference(postgresql, scripts, tmp_path):
    url = postgresql.new_database()
    flags = (*SMALL, "--epochs=1", "--trials=4", "--population=4", f"--storage={url}")
    assert scripts.call(tmp_path, "sweep", *flags, "--workdir=a").code == 0
    message = scripts.refusal(tmp_path, "sweep", *flags, "--latent_dim=3")
    assert "the study digits-elbo is for something else: --latent_dim is 2, not 3; ask for the same" in message
    other = url.replace("postgres@/x", "postgres@/y")
    message = scripts.refusal(tmp_path, "sweep", *SMALL, f"--storage={other}")
    assert "cannot be reached" in message
    assert "does not exist" in message


@pytest.mark.usefixtures("closing")
def test_a_password_is_written_nowhere(postgresql, scripts, tmp_path):
    url = postgresql.new_database().replace("postgres@", "postgres:secret@")
    flags = (*SMALL, "--epochs=1", "--trials=4", "--population=4", f"--storage={url}", "--workdir=a")
    assert scripts.call(tmp_path, "sweep", *flags).code == 0
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"secret" in path.read_bytes()]
    assert ":***@" in read_json(tmp_path / "a" / SWEEP)["storage"]
    message = scripts.refusal(tmp_path, "sweep", "--workdir=a")
    assert "is not kept in a file; give --storage again" in message
    assert scripts.call(tmp_path, "sweep", "--workdir=a", "--nofigures", f"--storage={url}").code == 0
    assert os.environ.get("PGPASSWORD") is None
