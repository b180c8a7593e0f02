"""experiments.sweep --search as a process: what it prints and leaves, kills, signals, and one line for a mistake."""

import csv
import json
import random
import re
import shlex
import shutil
import signal

import optuna
import pytest

from tests.run_samples import assert_close_result, rows, state
from tests.script_runs import scripts
from vae.runs.config import read_config
from vae.runs.files import read_json, write_json
from vae.runs.folder import METRICS
from vae.runs.metrics import read_metrics
from vae.sweeps import results, storage
from vae.sweeps.sweep_file import SWEEP

__all__ = ["scripts"]

# As many validation images as there are test images: one compiled program serves both.
DIGITS = ("--preset=digits", "--batch_size=175", "--validation=360")
SMALL = (*DIGITS, "--hidden_sizes=8")
SEARCH = (*SMALL, "--strategy=map", "--nofigures", "--workdir=x")
RATES = "--sweep=learning_rate=log:1e-4:1e-1"


def table(workdir):
    with (workdir / "results.csv").open() as file:
        return list(csv.DictReader(file))


def trials_of(workdir):
    opened = storage.open_storage(str(workdir / "study.journal"))
    return opened.get_all_trials(opened.get_study_id_from_name("digits-elbo"))


def states(workdir):
    return [trial.state.name for trial in trials_of(workdir)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scripts):
    """A folder with the finished search x of 8 trials in rounds of 4."""
    folder = tmp_path_factory.mktemp("finished")
    axes = (RATES, "--sweep=hidden_sizes=8/8,4")
    flags = (*DIGITS, "--search=tpe", "--trials=8", "--population=4", "--epochs=3")
    code, out, err = scripts.call(folder, "sweep", *flags, *axes, "--strategy=map", "--workdir=x")
    assert (code, err) == (0, "")
    (folder / "out").write_text(out)
    return folder


def test_the_last_lines_name_the_best_trial_and_what_to_do_with_it(scripts, finished):
    *_, best, following, last = (finished / "out").read_text().splitlines()
    trials = trials_of(finished / "x")
    value, number = max((trial.value, trial.number) for trial in trials if trial.state.name == "COMPLETE")
    assert best.startswith(f"best validation elbo: {value:.2f} nats per image, trial {number} (learning_rate=")
    assert following == f"next: python -m experiments.evaluate --workdir=x/runs/run-{number:03}"
    assert last == "x"
    counts = [sum(row["status"] == status for row in table(finished / "x")) for status in ("finished", "pruned")]
    assert f"trials: {counts[0]} finished, {counts[1]} pruned, 0 diverged" in (finished / "out").read_text()
    assert sum(counts) == len(trials) == 8
    flags = ("--num_samples=2", "--num_examples=5")
    assert scripts.call(finished, "evaluate", following.split()[-1], *flags).code == 0
    names = {path.name for path in (finished / "x/figures").iterdir()}
    assert names == {"search.png", "search_against_learning_rate.png", "search_against_hidden_sizes.png"}


def test_a_search_says_how_many_programs_it_spans_and_logs_an_epoch_once(finished):
    """Two rounds of three epochs; trials of two shapes train one after the other."""
    out = (finished / "out").read_text()
    assert "the space spans 2 programs (2 of hidden_sizes): each is compiled when its first trial trains" in out
    assert 2 <= sum(" trials, epoch " in line for line in out.splitlines()) <= 2 * 3
    opened = storage.open_storage(str(finished / "x" / "study.journal"))
    assert [optuna.load_study(study_name=None, storage=opened).metric_names] == [["validation elbo"]]


def test_a_trial_is_the_run_that_experiments_train_makes_of_the_same_flags(scripts, finished, tmp_path):
    row = next(row for row in table(finished / "x") if row["status"] == "finished")
    flags = [f"--{name}={row[name]}" for name in ("learning_rate", "hidden_sizes")]
    small = (*DIGITS, "--epochs=3", "--workdir=alone")
    assert scripts.call(tmp_path, "train", *small, *flags).code == 0
    among = finished / "x/runs" / row["run"]
    assert read_config(tmp_path / "alone") == read_config(among)
    assert_close_result(tmp_path / "alone", among)


def test_a_finished_search_trains_nothing_again_and_goes_on_for_more_trials(scripts, finished, tmp_path):
    before = trials_of(finished / "x")
    code, out, err = scripts.call(tmp_path, "sweep", f"--workdir={finished / 'x'}", "--nofigures")
    assert (code, err) == (0, "")
    assert "epoch" not in out
    assert len(trials_of(finished / "x")) == len(before)
    code, _, err = scripts.call(tmp_path, "sweep", f"--workdir={finished / 'x'}", "--nofigures", "--trials=9")
    assert (code, err) == (0, "")
    assert [trial.params for trial in trials_of(finished / "x")[:8]] == [trial.params for trial in before]
    assert len(table(finished / "x")) == len(trials_of(finished / "x")) == 9


def test_a_pruned_run_is_gone_on_with_like_any_that_was_stopped(scripts, tmp_path):
    flags = (*SEARCH, "--search=random", "--trials=12", "--population=4", "--epochs=4", RATES)
    assert scripts.call(tmp_path, "sweep", *flags).code == 0
    row = next(row for row in table(tmp_path / "x") if row["status"] == "pruned")
    folder = tmp_path / "x/runs" / row["run"]
    code, out, err = scripts.call(tmp_path, "train", f"--workdir={folder}")
    assert (code, err) == (0, "")
    assert f"epoch {float(row['epoch']) + 1:.0f}/4" in out
    assert f"epoch {float(row['epoch']):.0f}/4" not in out
    assert int(state(folder).step) == 4 * 6


LONG = (*SEARCH, "--search=tpe", "--trials=8", "--population=4", "--save_every=0", "--epochs=6", "--pruner=none",
        "--sweep=learning_rate=log:1e-4:1e30")  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, out, err = scripts.call(folder, "sweep", *LONG)
    assert (code, err) == (0, "")
    assert "diverged" in out
    return folder / "x"


def assert_same_search(one, other):
    assert [(t.params, t.value, t.state) for t in trials_of(one)] == [
        (t.params, t.value, t.state) for t in trials_of(other)
    ]
    assert (one / "results.csv").read_bytes() == (other / "results.csv").read_bytes()
    for folder in sorted((one / "runs").iterdir()):
        assert rows(folder) == rows(other / "runs" / folder.name)
    assert not list((one / "population").glob("*"))


@pytest.mark.soak
@pytest.mark.parametrize("epochs", [(3,), (2, 3, 4)])
def test_a_search_killed_at_random_moments_ends_with_the_same_trials(scripts, undisturbed, tmp_path, epochs):
    moments = random.Random(0)
    for epoch in epochs:
        script = scripts.start(tmp_path, "sweep", *LONG)
        script.wait_for(f"epoch {epoch}/")
        with pytest.raises(AssertionError, match="still running"):
            script.result(moments.uniform(0, 0.05))
        script.send(signal.SIGKILL)
        assert script.result().code == -signal.SIGKILL
        assert "RUNNING" in states(tmp_path / "x")
    code, _, err = scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures")
    assert (code, err) == (0, "")
    assert_same_search(tmp_path / "x", undisturbed)


def test_sigterm_saves_and_exits_with_75_and_the_search_goes_on(scripts, undisturbed, tmp_path):
    script = scripts.start(tmp_path, "sweep", *LONG)
    script.wait_for("epoch 3/")
    script.send(signal.SIGTERM)
    code, out, err = script.result()
    assert (code, err) == (75, "\nsaving and stopping; once more to end at once\n")
    assert "stopped and saved; the same command with --workdir=x resumes it" in out
    assert scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures").code == 0
    assert_same_search(tmp_path / "x", undisturbed)


def test_another_worker_on_the_same_journal_makes_up_for_one_that_was_killed(scripts, tmp_path):
    # What another worker asks for is drawn from its own entropy: no trial may diverge, or all of them might.
    flags = [flag.replace("1e30", "1e-2") for flag in LONG]
    script = scripts.start(tmp_path, "sweep", *flags)
    script.wait_for("epoch 3/")
    script.send(signal.SIGKILL)
    assert script.result().code == -signal.SIGKILL
    left = [i for i, state in enumerate(states(tmp_path / "x")) if state == "RUNNING"]
    assert left
    others = [flag for flag in flags if flag != "--workdir=x"]
    journal = f"--storage={tmp_path / 'x/study.journal'}"
    code, _, err = scripts.call(tmp_path, "sweep", *others, "--workdir=y", journal)
    assert (code, err) == (0, "")
    found = states(tmp_path / "x")
    assert [i for i, state in enumerate(found) if state == "FAIL"] == left
    assert len(found) == 8 + len(left)
    assert "RUNNING" not in found


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (("--trials=8", "--sweep=seed=0:8"), "--trials has no effect without --search"),
        (("--pruner=none", "--sweep=seed=0:8"), "--pruner has no effect without --search"),
        (("--sweep=learning_rate=log:1e-4:1e-2",), "write log:first:last:count"),
        (("--search=tpe",), "nothing is searched; write --sweep=name=values"),
        (("--search=tp", RATES), "unknown search 'tp'; did you mean 'tpe'?"),
        (("--search=tpe", RATES, "--zip"), "--zip has no effect with --search"),
        (("--search=tpe", RATES, "--distributed"), "--distributed does not go with --search: several workers"),
        (("--search=tpe", RATES, "--random=3"), "--random has no effect with --search"),
        (("--search=tpe", RATES, "--trials=0"), "must be a whole number at least 1"),
        (("--search=tpe", "--sweep=seed=0:8"), "the best seed is luck; train the winner with several seeds"),
        (("--search=tpe", "--sweep=epochs=1:8"), "--sweep=epochs is no axis of a search"),
        (("--search=tpe", "--sweep=likelihood=bernoulli,normal"), "--sweep=likelihood is no axis of a search"),
        (("--search=tpe", "--sweep=dataset=digits,mnist"), "--sweep=dataset is no axis of a search"),
        (("--search=tpe", "--sweep=image_size=4,8"), "--sweep=image_size is no axis of a search"),
        (("--search=cmaes", "--sweep=activation=relu,tanh"), "--search=cmaes takes numbers, and --sweep=activation is"),
        (("--search=tpe", "--sweep=learning_rate=log:0:1"), "'0': must be a finite float32 number above 0"),
        (
            ("--search=tpe", "--sweep=adam_b1=log:0:0.5"),
            "write log:low:high with positive numbers, the lower one first",
        ),
        (("--search=tpe", "--sweep=learning_rate=linear:2:1"), "write linear:low:high with numbers, the lower one"),
        (("--search=tpe", "--sweep=adam_b1=linear:0:1"), "'1': must be a finite float32 number at least 0 and below 1"),
        (("--search=tpe", "--sweep=latent_dim=9:2"), "a range is first:end or first:end:step"),
        (("--search=tpe", "--sweep=latent_dim=0:9"), "'0': must be a whole number at least 1"),
        (("--search=tpe", "--sweep=beta=linear:0:4"), "run beta=0.0: --beta has no effect with --objective=elbo"),
        (("--search=tpe", "--sweep=batch_size=200:2000"), "cannot be filled from 1077 training images"),
        (("--search=tpe", RATES, "--validation=0"), "a search chooses by validation images, and there are none"),
        (
            ("--search=tpe", "--objective=beta", "--sweep=beta=linear:0.5:4", "--metric=bound"),
            "--metric=bound compares what is not comparable: beta changes what the bound means; use --metric=elbo",
        ),
        (("--search=tpe", RATES, "--storage=sqlite:///x.db"), "SQLite does not allow several writers; use a journal"),
        (("--search=tpe", RATES, "--storage=oracle://x/y"), "unknown database 'oracle'; one of postgresql, mysql"),
        (("--search=tpe", RATES, "--storage=absent/x.journal"), "there is no folder"),
        (("--search=tpe", RATES, "--storage=postgresql+absent://x/y"), "Can't load plugin"),
        (
            ("--search=tpe", RATES, "--storage=mysql+pymysql://me:secret@x/y"),
            "mysql+pymysql://me:***@x/y needs the driver pymysql, which is not installed: pip install 'pymysql'",
        ),
        (("--search=tpe", RATES, "--storage=postgresql://127.0.0.1:1/x"), "cannot be reached: "),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_leaves_nothing(scripts, tmp_path, flags, fragment):
    base = [flag for flag in SMALL if not any(f"--sweep={flag[2:].split('=')[0]}=" in other for other in flags)]
    assert fragment in scripts.refusal(tmp_path, "sweep", *base, *flags)


def test_a_folder_with_another_search_or_a_sweep_is_refused_with_the_differences(scripts, finished, tmp_path):
    message = scripts.refusal(finished, "sweep", "--workdir=x", "--nofigures", "--search=random", "--pruner=none")
    assert "x holds another search: --search is tpe, not random; --pruner is median, not none; choose" in message
    message = scripts.refusal(finished, "sweep", "--workdir=x", "--nofigures", "--latent_dim=3")
    assert "the study digits-elbo is for something else: --latent_dim is 2, not 3; ask for the same" in message
    assert "x holds a sweep, which experiments.sweep trains" in scripts.refusal(finished, "train", "--workdir=x")
    assert scripts.call(tmp_path, "sweep", *SEARCH, "--sweep=seed=0:4", "--epochs=1").code == 0
    message = scripts.refusal(tmp_path, "sweep", "--workdir=x", "--search=tpe", RATES)
    assert "x holds a sweep without --search; choose another --workdir" in message


@pytest.mark.parametrize(
    ("lost", "fragment"),
    [
        (SWEEP, "x/runs/run-000 holds a run that x/sweep.json does not name; put back the sweep.json that does"),
        ("study.journal", "study.journal, which holds the trials of these runs, is lost; put it back"),
    ],
)
def test_a_search_that_lost_what_it_knew_is_refused(scripts, finished, tmp_path, lost, fragment):
    shutil.copytree(finished / "x", tmp_path / "x")
    (tmp_path / "x" / lost).unlink()
    flags = (*SEARCH, "--search=random", RATES) if lost == SWEEP else ("--workdir=x",)
    assert fragment in scripts.refusal(tmp_path, "sweep", *flags)


def test_a_resumed_search_says_that_bits_may_differ_and_a_next_line_that_can_be_pasted(scripts, finished, tmp_path):
    folder = tmp_path / "a b"
    shutil.copytree(finished / "x", folder)
    began = read_json(folder / SWEEP)
    began.pop("history", None)  # another test may have resumed it
    write_json(folder / SWEEP, began | {"versions": began["versions"] | {"jaxlib": "0.0.1"}})
    code, out, err = scripts.call(tmp_path, "sweep", "--workdir=a b", "--nofigures")
    assert code == 0
    assert err.startswith("warning: a b was trained under jaxlib 0.0.1, and resumes under jaxlib")
    assert scripts.call(tmp_path, "sweep", "--workdir=a b", "--nofigures")[::2] == (0, "")
    following = next(line for line in out.splitlines() if line.startswith("next: "))
    assert shlex.split(following)[-1].startswith("--workdir=a b/runs/run-0")
    now = read_json(folder / SWEEP)
    assert (now["argv"], now["versions"]["jaxlib"]) == (began["argv"], "0.0.1")
    assert [one["versions"] for one in now["history"]] == [began["versions"]]


def test_a_search_names_the_trials_without_a_test_bound_and_fails_if_none_has_one(scripts, finished, tmp_path):
    shutil.copytree(finished / "x", tmp_path / "x")
    trials = [row["run"] for row in table(tmp_path / "x") if row["status"] == "finished"]
    for done, name in enumerate(trials, 1):
        path = tmp_path / "x" / "runs" / name / METRICS
        rows = [row | ({"elbo": None} if row["split"] == "test" else {}) for row in read_metrics(path.parent)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if done not in (1, len(trials)):
            continue
        code, out, err = scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures")
        if done < len(trials):
            assert (code, err) == (0, "")
            assert re.search(rf"test bound not finite: 1 of \d+ runs \({name}\)", out)
    assert code == 2
    assert err.startswith("failed: the test bound of all runs is not finite")


def test_a_finished_trial_that_lost_its_metrics_is_a_row_without_numbers(scripts, finished, tmp_path):
    shutil.copytree(finished / "x", tmp_path / "x")
    (tmp_path / "x" / "runs" / "run-000" / METRICS).unlink()
    row = results.rows(tmp_path / "x")[0]
    assert (row["run"], row["status"], row["epoch"]) == ("run-000", "finished", 0.0)


def test_what_changes_the_meaning_of_the_bound_is_compared_by_the_elbo(scripts, tmp_path):
    flags = (*SEARCH, "--search=random", "--trials=2", "--epochs=1", "--sweep=objective=elbo,iwae")
    code, out, err = scripts.call(tmp_path, "sweep", *flags)
    assert (code, err) == (0, "")
    assert "objective changes what the bound means: trials are compared by the ELBO" in out
    assert "best validation ELBO: " in out
