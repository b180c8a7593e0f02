"""experiments.sweep as a process: axes, runs that equal runs alone, divergence, kills, and one line for a mistake."""

import csv
import json
import math
import random
import shlex
import shutil
import signal
from unittest import mock

import numpy as np
import pytest

from tests.run_samples import assert_close_result, assert_same_result, rows, state
from tests.script_runs import scripts
from vae.api import load_run
from vae.judging import evaluations
from vae.runs import checkpoint
from vae.runs import config as runs_config
from vae.runs.config import read_config
from vae.runs.files import read_json, write_json
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.runs.metrics import read_metrics
from vae.sweeps import chunks, planning, results
from vae.sweeps.sweep_file import SWEEP as SWEEP_FILE
from vae.training.record import FAILURE

__all__ = ["scripts"]

# As many validation images as there are test images: one compiled program serves both.
SMALL = ("--preset=digits", "--hidden_sizes=16", "--batch_size=175", "--validation=360")
SWEEP = (*SMALL, "--strategy=map", "--nofigures", "--workdir=x")
RATES = ("0.001", "0.01")


def table(workdir):
    with (workdir / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scripts):
    """A folder with the finished sweep x of two seeds and two learning rates."""
    folder = tmp_path_factory.mktemp("finished")
    axes = ("--sweep=seed=0:2", f"--sweep=learning_rate={','.join(RATES)}", "--epochs=2")
    code, out, err = scripts.call(folder, "sweep", *SWEEP, *axes)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "x"
    assert "4 runs as one program; 2 cpu device(s)" in out or "as one program" in out
    return folder


def test_every_run_is_the_run_that_experiments_train_makes_of_the_same_flags(scripts, finished, tmp_path):
    for row in table(finished / "x"):
        among = finished / "x" / "runs" / row["run"]
        if row["run"] in ("run-001", "run-002"):  # the two that would be mistaken for each other
            flags = (f"--seed={row['seed']}", f"--learning_rate={row['learning_rate']}", f"--workdir={row['run']}")
            assert scripts.call(tmp_path, "train", *SMALL, "--epochs=2", *flags).code == 0
            alone = tmp_path / row["run"]
            assert read_config(alone) == read_config(among)
            assert_close_result(alone, among)
        last = {r["split"]: r for r in rows(among)}
        assert row["status"] == "finished"
        for split, metric in (("train", "elbo"), ("validation", "kl"), ("test", "reconstruction")):
            assert float(row[f"{split}_{metric}"]) == last[split][metric]


def test_a_run_of_a_sweep_is_evaluated_generated_from_and_prolonged_like_any_other(scripts, finished, tmp_path):
    assert len(load_run(finished / "x/runs/run-003").params) == 3
    for script, flags in (("evaluate", ("--num_samples=2", "--num_examples=5")), ("generate", ("--num_images=4",))):
        code, _, err = scripts.call(finished, script, "--workdir=x/runs/run-003", *flags)
        assert (code, err) == (0, "")
    code, out, err = scripts.call(finished, "train", "--workdir=x/runs/run-002", "--epochs=3")
    assert (code, err) == (0, "")
    assert "epoch 3/3" in out
    assert int(state(finished / "x/runs/run-002").step) == 3 * 6
    listed = scripts.call(finished, "runs", "--folder=x").out.splitlines()
    assert listed[0].split()[:4] == ["run", "learning_rate", "dataset", "objective"] or "seed" in listed[0]
    assert len(listed) == 5


def test_a_finished_sweep_trains_nothing_again_and_takes_the_stored_flags(scripts, finished, tmp_path):
    before = (finished / "x/results.csv").read_bytes(), rows(finished / "x/runs/run-000")
    code, out, err = scripts.call(tmp_path, "sweep", f"--workdir={finished / 'x'}", "--nofigures")
    assert (code, err) == (0, "")
    assert "epoch" not in out
    assert rows(finished / "x/runs/run-000") == before[1]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (
            ("--sweep=seed=3:15:3", "--sweep=hidden_sizes=16/8,4"),
            [(seed, sizes) for seed in ("3", "6", "9", "12") for sizes in ("16", "8,4")],
        ),
        (
            ("--zip", "--sweep=learning_rate=log:1e-4:1e-1:4", "--sweep=seed=linear:2:5:4"),
            [("0.0001", "2"), ("0.001", "3"), ("0.01", "4"), ("0.1", "5")],
        ),
        (("--sweep=objective=elbo,iwae", "--sweep=scale=learned"), None),
    ],
)
def test_axes_span_a_grid_or_are_paired(scripts, tmp_path, flags, wanted):
    base = tuple(flag for flag in SWEEP if "hidden_sizes" not in flag or "hidden_sizes" not in str(flags))
    if wanted is None:
        message = scripts.refusal(tmp_path, "sweep", *base, *flags)
        assert "run objective=elbo, scale=learned: --scale has no effect with --likelihood=bernoulli" in message
        return
    code, _, err = scripts.call(tmp_path, "sweep", *base, "--epochs=1", *flags)
    assert (code, err) == (0, "")
    names = list(table(tmp_path / "x")[0])[2:4]
    assert [tuple(row[name] for name in names) for row in table(tmp_path / "x")] == wanted


def test_a_random_subset_of_the_grid_is_the_same_at_every_start(scripts, tmp_path):
    flags = (*SWEEP, "--epochs=1", "--sweep=seed=0:50", "--sweep=learning_rate=log:1e-4:1e-2:50", "--random=4")
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert scripts.call(tmp_path / name, "sweep", *flags).code == 0
        drawn.append([(row["seed"], row["learning_rate"]) for row in table(tmp_path / name / "x")])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 4
    assert len({seed for seed, _ in drawn[0]}) > 1


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        ((), "nothing is swept; write --sweep=name=values, as in --sweep=seed=0:8"),
        (("--sweep=seed",), "--sweep=seed is no axis; write --sweep=name=values"),
        (("--sweep=sed=0:8",), "unknown training flag 'sed'; did you mean 'seed'? One of: activation, "),
        (("--sweep=devices=1,2",), "unknown training flag 'devices'"),
        (("--sweep=seed=0:8", "--sweep=seed=8:9"), "--sweep=seed is given 2 times; list all values in one"),
        (("--sweep=seed=0:8", "--seed=1"), "--seed has no effect with --sweep=seed=…; leave one of them out"),
        (("--sweep=seed=8:0",), "a range is first:end or first:end:step"),
        (("--sweep=seed=0:x",), "a range is first:end or first:end:step"),
        (("--sweep=seed=0:8:0",), "a range is first:end or first:end:step"),
        (("--sweep=seed=-1,1",), "'-1': must be a whole number at least 0 and at most 2147483647"),
        (("--sweep=seed=1,1",), "--sweep=seed=1,1 has the value 1 twice"),
        (("--sweep=learning_rate=1e-3,nan",), "'nan': must be a finite float32 number above 0"),
        (("--sweep=learning_rate=1e-3,x",), "'x': must be a finite float32 number above 0"),
        (("--sweep=learning_rate=log:0:1:3",), "write log:first:last:count with finite positive numbers"),
        (("--sweep=learning_rate=log:1e-3:1e-2",), "write log:first:last:count"),
        (("--sweep=learning_rate=linear:1e-3:nan:4",), "write linear:first:last:count with finite numbers"),
        (("--sweep=learning_rate=linear:1e-3:1e-2:1",), "a count from 2 to 10000"),
        (("--sweep=objective=elbo,iwea",), "'iwea': unknown objective 'iwea'; did you mean 'iwae'?"),
        (("--sweep=network=mlp,cnv",), "'cnv': unknown network 'cnv'; did you mean 'conv'?"),
        (("--sweep=alpha=0,0.5",), "run alpha=0.0: --alpha has no effect with --objective=elbo"),
        (("--sweep=channels=8/16",), "run channels=8: --channels has no effect with --network=mlp"),
        (("--sweep=seed=0:3", "--random=3"), "--random=3 has no effect: the grid has 3 runs"),
        (
            ("--sweep=seed=0:3", "--sweep=latent_dim=1,2", "--zip"),
            "as many of them: seed 3, latent_dim 2",
        ),
        (("--sweep=seed=0:3", "--zip", "--random=2"), "--random has no effect with --zip"),
        (
            ("--sweep=seed=0:5000", "--sweep=latent_dim=1:9"),
            "40000 runs, more than 10000; draw some",
        ),
        (("--sweep=batch_size=1077,1078",), "cannot be filled from 1077 training images"),
        (("--sweep=dataset=digits,digts",), "unknown data set 'digts'; did you mean 'digits'?"),
        (("--sweep=num_groups=1,2",), "run num_groups=1: --num_groups has no effect with --objective=elbo"),
        (("--sweep=seed=0:2", "--strategy=fast"), "unknown strategy 'fast'"),
    ],
    ids=str,
)
def test_a_mistake_in_an_axis_is_one_line_and_leaves_nothing(scripts, tmp_path, flags, fragment):
    base = [flag for flag in SMALL if not any(f"--sweep={flag[2:].split('=')[0]}=" in other for other in flags)]
    assert fragment in scripts.refusal(tmp_path, "sweep", *base, *flags)


def test_a_folder_with_another_sweep_or_a_run_is_refused_with_the_differences(scripts, finished, tmp_path):
    base = ("--workdir=x", "--nofigures")
    message = scripts.refusal(finished, "sweep", *base, "--sweep=seed=0:3")  # at the default learning rate, 0.001
    assert (
        "the sweep has the run seed=0, learning_rate=0.01, and 1 more, which this command leaves out, and a sweep can "
        "only grow; keep all that was asked for (--sweep=seed=0:2 --sweep=learning_rate=0.001,0.01) and add to it"
    ) in message
    grown = ("--sweep=seed=0:3", f"--sweep=learning_rate={','.join(RATES)}")
    for flags, fragment in (
        (("--epochs=3",), "x holds another sweep: --epochs is 2, not 3; choose another --workdir"),
        (("--batch_size=100",), "x holds another sweep: batch_size is 175, not 100; "),
        (("--strategy=vmap",), "x holds another sweep: --strategy is map, not vmap; choose another --workdir"),
        (("--random=4",), "x holds another sweep: --random is None, not 4; choose another --workdir"),
    ):
        assert fragment in scripts.refusal(finished, "sweep", *base, *grown, *flags)
    message = scripts.refusal(finished, "sweep", *base, "--latent_dim=3", "--epochs=9", "--strategy=map")
    assert "x holds another sweep: --epochs is 2, not 9; latent_dim is 2, not 3; choose another --workdir" in message
    assert "--strategy is map, not vmap" in scripts.refusal(finished, "sweep", *base, "--strategy=vmap")
    assert "x holds a sweep, which experiments.sweep trains" in scripts.refusal(finished, "train", "--workdir=x")
    message = scripts.refusal(finished, "sweep", "--workdir=x/runs/run-000", "--sweep=seed=0:2")
    assert "x/runs/run-000 holds a single run, which experiments.train resumes; choose another --workdir" in message


GROW = ("sweep", "--workdir=x", "--nofigures", "--sweep=seed=3,1,0", f"--sweep=learning_rate={','.join(RATES)}")


@pytest.fixture(scope="module")
def grown(tmp_path_factory, scripts, finished):
    """A folder with a copy of the finished sweep, `before`, which x is after a third seed, and what that printed."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(finished / "x", folder / "before")
    shutil.copytree(finished / "x", folder / "x")
    code, out, err = scripts.call(folder, *GROW)
    assert (code, err) == (0, "")
    return folder, out


def test_a_finished_sweep_grows_by_its_new_runs_alone(scripts, grown):
    folder, out = grown
    assert "the sweep grows: 2 new runs beside the 4 that it had" in out
    assert "epoch 1/2 of 2 runs: 4 of 6 finished" in out
    before, now = table(folder / "before"), table(folder / "x")
    assert [{name: row[name] for name in old} for row, old in zip(now, before, strict=False)] == before
    assert [(row["run"], row["path"], row["seed"], row["learning_rate"], row["status"]) for row in now[4:]] == [
        (f"run-00{4 + i}", f"runs/run-00{4 + i}", "3", rate, "finished") for i, rate in enumerate(RATES)
    ]
    for row in now:
        config = read_config(folder / "x" / row["path"])
        assert (config.seed, config.hyperparameters.learning_rate) == (int(row["seed"]), float(row["learning_rate"]))
    code, out, err = scripts.call(folder, "sweep", "--workdir=x", "--nofigures")
    assert (code, err) == (0, "")
    assert "grows" not in out
    assert "epoch" not in out
    assert table(folder / "x") == now


class Killed(BaseException):
    """As by kill -9."""


@pytest.mark.parametrize(
    ("owner", "name"),
    [(runs_config, "write_config"), pytest.param(planning, "choose", marks=pytest.mark.soak), (chunks, "delete")],
    ids=["sweep.json alone is written", "it is to be planned", "its runs are trained"],
)
def test_a_sweep_killed_while_it_grows_ends_as_if_it_had_not_been(scripts, grown, tmp_path, monkeypatch, owner, name):
    folder, _ = grown
    shutil.copytree(folder / "before", tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, mock.Mock(side_effect=Killed))
        with pytest.raises(Killed):
            scripts.call(tmp_path, *GROW)
    code, _, err = scripts.call(tmp_path, *GROW[:3])
    assert (code, err) == (0, "")
    assert_same_sweep(tmp_path / "x", folder / "x")


EVALUATE = ("evaluate", "--workdir=x", "--num_samples=4", "--num_examples=6")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, scripts, grown):
    """A folder with a copy of the grown sweep, `before`, which x is once it was evaluated, and what that printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    for name in ("before", "x"):
        shutil.copytree(grown[0] / "x", folder / name)
    code, out, err = scripts.call(folder, *EVALUATE)
    assert (code, err) == (0, "")
    return folder, out


def test_every_run_of_a_sweep_is_evaluated_as_alone_and_told_per_setting(scripts, evaluated, tmp_path):
    folder, out = evaluated
    shutil.copytree(folder / "before/runs/run-003", tmp_path / "alone")
    assert scripts.call(tmp_path, "evaluate", "--workdir=alone", *EVALUATE[2:])[::2] == (0, "")
    alone, among = (
        read_json(run / "evaluation_test_6.json") for run in (tmp_path / "alone", folder / "x/runs/run-003")
    )
    assert {k: v for k, v in alone.items() if k != "seconds"} == {k: v for k, v in among.items() if k != "seconds"}
    with (folder / "x/evaluation_test_6_settings.csv").open() as file:
        settings = {row["setting"]: row for row in csv.DictReader(file)}
    finished = [row for row in table(folder / "x") if row["evaluation_test_6_elbo"]]
    rate = RATES[1]  # one of the others may have been trained for longer
    of_setting = [row for row in finished if row["learning_rate"] == rate]
    row = settings[f"learning_rate={rate}"]
    assert (row["learning_rate"], row["seeds"], row["num_samples"]) == (rate, str(len(of_setting)), "4")
    for name in ("log_likelihood", "elbo", "kl", "active_units"):
        values = [float(one[f"evaluation_test_6_{name}"]) for one in of_setting]
        assert float(row[name]) == pytest.approx(np.mean(values))
        assert float(row[f"{name}_se"]) == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5)
    assert float(table(folder / "x")[3]["evaluation_test_6_log_likelihood"]) == alone["log_likelihood"]
    assert "test images choose nothing" in out
    assert "best setting" not in out


def evaluations_of(workdir):
    """What an evaluation wrote, without the clock, and the tables."""
    found = {path.name: path.read_bytes() for path in workdir.glob("*.csv")}
    for path in workdir.glob("runs/*/evaluation*.json"):
        found[str(path.relative_to(workdir))] = {k: v for k, v in read_json(path).items() if k != "seconds"}
    return found


@pytest.mark.parametrize(
    ("owner", "name", "nth"),
    [(evaluations, "write_json", 3), (evaluations, "write_arrays", 2), (results, "write", 1)],
    ids=["the values of images are written", "a run is done", "all runs are done"],
)
def test_an_evaluation_of_a_sweep_that_was_killed_resumes_without_what_is_done(
    scripts, evaluated, tmp_path, monkeypatch, owner, name, nth
):
    folder, _ = evaluated
    shutil.copytree(folder / "before", tmp_path / "x")
    original, calls = getattr(owner, name), []

    def killed(*args):
        calls.append(args)
        if len(calls) == nth:
            raise Killed
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            scripts.call(tmp_path, *EVALUATE)
    code, out, err = scripts.call(tmp_path, *EVALUATE)
    assert (code, err) == (0, "")
    assert out.count(", evaluated before") == {"write_json": 2, "write_arrays": 1, "write": 6}[name]
    assert evaluations_of(tmp_path / "x") == evaluations_of(folder / "x")


def test_runs_are_evaluated_by_their_names_and_by_patterns(scripts, evaluated, tmp_path):
    """Not those that diverged or are not at their end."""
    shutil.copytree(evaluated[0] / "x", tmp_path / "x")
    for i, name in enumerate(("run-000", "run-001", "run-003", "run-004")):
        shutil.copytree(tmp_path / "x/runs" / name, tmp_path / "other" / f"{'ab'[i % 2]}{i}")
    (tmp_path / "other/a0/failure.json").write_text("{}")
    config = read_json(tmp_path / "other/b3/config.json")
    write_json(tmp_path / "other/b3/config.json", config | {"epochs": 5})
    flags = ("evaluate", "--workdir=other/a*,other/b1,other/b3", *EVALUATE[2:])
    code, out, err = scripts.call(tmp_path, *flags)
    assert (code, err) == (0, "")
    assert "left out, diverged: 1 of 4 runs (other/a0)" in out
    assert "left out, not trained to the end: 1 of 4 runs (other/b3)" in out
    assert out.count(", evaluated before") == 2
    assert out.splitlines()[-1] == "other"
    with (tmp_path / "other/evaluation_test_6_settings.csv").open() as file:
        found = [(row["runs"], row["seeds"], bool(row["elbo"])) for row in csv.DictReader(file)]
    assert found == [("b1 a2", "2", True), ("a0", "1", False), ("b3", "1", False)]


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (("--workdir=y*",), "--workdir=y* holds no run (no config.json); train one with experiments.train"),
        (("--workdir=x,y",), "--workdir=y holds no run (no config.json); train one with experiments.train"),
        (("--workdir=x", "--also=ais"), "--also is for one run, not for several; leave it out"),
        (("--workdir=x", "--checkpoint=7"), "has no checkpoint '7'; use last, best or one of"),
    ],
    ids=str,
)
def test_a_mistake_in_an_evaluation_of_many_runs_is_one_line(scripts, grown, flags, fragment):
    assert fragment in scripts.refusal(grown[0], "evaluate", *flags, *EVALUATE[2:])


def test_another_sweep_is_refused_though_sweep_json_is_lost(scripts, finished, tmp_path):
    shutil.copytree(finished / "x", tmp_path / "x")
    (tmp_path / "x" / SWEEP_FILE).unlink()
    flags = (*SWEEP, "--epochs=2", "--sweep=seed=0:2", "--sweep=learning_rate=0.001,0.02")
    message = scripts.refusal(tmp_path, "sweep", *flags)
    assert "x/runs/run-001 holds another run: learning_rate is 0.01, not 0.02; choose another --workdir" in message
    write_json(tmp_path / "x" / SWEEP_FILE, {"runs": {}})  # as a comparison leaves it
    assert "holds the runs of a comparison whose plan.json is lost" in scripts.refusal(tmp_path, "sweep", *flags)


def test_a_resumed_sweep_says_that_bits_may_differ_and_a_next_line_that_can_be_pasted(scripts, finished, tmp_path):
    folder = tmp_path / "a b"
    shutil.copytree(finished / "x", folder)
    began = read_json(folder / SWEEP_FILE)
    began.pop("history", None)  # another test may have resumed it
    write_json(folder / SWEEP_FILE, began | {"versions": began["versions"] | {"jaxlib": "0.0.1"}})
    code, out, err = scripts.call(tmp_path, "sweep", "--workdir=a b", "--nofigures")
    assert code == 0
    assert err.startswith("warning: a b was trained under jaxlib 0.0.1, and resumes under jaxlib")
    assert scripts.call(tmp_path, "sweep", "--workdir=a b", "--nofigures")[::2] == (0, "")
    following = next(line for line in out.splitlines() if line.startswith("next: "))
    assert shlex.split(following, comments=True)[-1].startswith("--workdir=a b/runs/run-00")
    now = read_json(folder / SWEEP_FILE)
    assert (now["argv"], now["versions"]["jaxlib"]) == (began["argv"], "0.0.1")
    assert [one["versions"] for one in now["history"]] == [began["versions"]]


def test_what_a_kill_within_a_write_left_is_read_by_nobody(scripts, finished, tmp_path):
    shutil.copytree(finished / "x", tmp_path / "x")
    found = scripts.call(tmp_path, "runs", "--folder=x").out
    assert "run-000" in found
    table_before = (tmp_path / "x" / "results.csv").read_bytes()
    for path in [path for path in (tmp_path / "x").rglob("*.*") if path.is_file() and CHECKPOINTS not in path.parts]:
        path.with_name(f".{path.name}.{'0a' * 16}").write_text("{")
    assert scripts.call(tmp_path, "runs", "--folder=x").out == found
    assert scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures")[::2] == (0, "")
    assert (tmp_path / "x" / "results.csv").read_bytes() == table_before


def test_a_sweep_names_the_runs_without_a_test_bound_and_fails_if_none_has_one(scripts, finished, tmp_path):
    shutil.copytree(finished / "x", tmp_path / "x")
    for name in ("run-000", "run-001", "run-002", "run-003"):
        path = tmp_path / "x" / "runs" / name / METRICS
        rows = [row | ({"elbo": None} if row["split"] == "test" else {}) for row in read_metrics(path.parent)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if name == "run-000":
            code, out, err = scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures")
            assert (code, err) == (0, "")
            assert "test bound not finite: 1 of 4 runs (run-000)" in out
    code, _, err = scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures")
    assert code == 2
    assert err.startswith("failed: the test bound of all runs is not finite")


def nan_for_none(values):
    return [math.nan if value is None else value for value in values]


def test_a_run_that_diverges_is_marked_and_the_others_finish(scripts, finished, tmp_path):
    axes = ("--sweep=seed=0:2", "--sweep=learning_rate=0.001,1e30", "--epochs=2")
    code, out, err = scripts.call(tmp_path, "sweep", *SWEEP, *axes)
    assert (code, err) == (0, "")
    assert "diverged: 2 of 4 runs (run-001, run-003)" in out
    assert "2 diverged" in out
    assert [row["status"] for row in table(tmp_path / "x")] == ["finished", "diverged"] * 2
    assert_close_result(tmp_path / "x/runs/run-000", finished / "x/runs/run-000")
    failure = read_json(tmp_path / "x/runs/run-001" / FAILURE)
    code, _, err = scripts.call(tmp_path, "train", *SMALL, "--learning_rate=1e30", "--epochs=2", "--workdir=alone")
    assert code == 2
    alone = read_json(tmp_path / "alone" / FAILURE)
    for name in ("recent_gradient_norm", "recent_bound"):
        assert nan_for_none(alone.pop(name)) == pytest.approx(nan_for_none(failure.pop(name)), rel=1e-5, nan_ok=True)
    assert alone == failure
    assert not checkpoint.steps(tmp_path / "x/runs/run-001" / CHECKPOINTS)


def test_a_sweep_of_which_no_run_stayed_finite_failed(scripts, tmp_path):
    code, _, err = scripts.call(tmp_path, "sweep", *SWEEP, "--sweep=learning_rate=1e30,1e31,1e32,1e33", "--epochs=2")
    assert code == 2
    assert err.startswith("failed: none of the 4 runs stayed finite; what led to it is in x/runs/*/failure.json")
    assert err.count("\n") == 1


EPOCHS = 6
LONG = (*SWEEP, "--save_every=0", f"--epochs={EPOCHS}", "--sweep=seed=0:2", "--sweep=latent_dim=2,3",
        "--sweep=learning_rate=0.001,1e30")  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _, err = scripts.call(folder, "sweep", *LONG)
    assert (code, err) == (0, "")
    return folder / "x"


def assert_same_sweep(one, other):
    assert (one / "results.csv").read_bytes() == (other / "results.csv").read_bytes()
    for folder in sorted((one / "runs").iterdir()):
        same = other / "runs" / folder.name
        assert rows(folder) == rows(same)
        if (folder / CHECKPOINTS).exists():
            assert_same_result(folder, same)
    assert not (one / "population").exists()


@pytest.mark.soak
@pytest.mark.parametrize("num_kills", [1, 3])
def test_a_sweep_killed_at_random_moments_ends_with_the_same_results(scripts, undisturbed, tmp_path, num_kills):
    """Two programs, each of two runs that diverge and two that do not."""
    moments = random.Random(0)
    saved = []
    for kill in range(num_kills):
        script = scripts.start(tmp_path, "sweep", *LONG)
        script.wait_for(f"epoch {kill + 2}/")
        with pytest.raises(AssertionError, match="still running"):
            script.result(moments.uniform(0, 0.15))
        script.send(signal.SIGKILL)
        assert script.result().code == -signal.SIGKILL
        saved.append({path.name: checkpoint.steps(path) for path in (tmp_path / "x/population").glob("*")})
    assert any(saved)
    assert scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures").code == 0
    assert_same_sweep(tmp_path / "x", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_a_signal_saves_and_exits_with_75_and_the_sweep_goes_on_bit_exactly(scripts, undisturbed, tmp_path, number):
    script = scripts.start(tmp_path, "sweep", *LONG)
    script.wait_for("epoch 3/")
    script.send(number)
    code, out, err = script.result()
    assert (code, err) == (75, "\nsaving and stopping; once more to end at once\n")
    assert "stopped and saved; the same command with --workdir=x resumes it" in out
    assert out.splitlines()[-1] == "x"
    code, out, err = scripts.call(tmp_path, "sweep", "--workdir=x", "--nofigures")
    assert (code, err) == (0, "")
    assert "epoch 1/" not in out.split("finished", 1)[0]
    assert_same_sweep(tmp_path / "x", undisturbed)


def test_the_best_run_is_named_by_the_elbo_where_bounds_differ_and_for_each_likelihood(scripts, tmp_path):
    flags = ("--objective=beta", "--binarization=none", "--epochs=1", "--strategy=loop", "--devices=1")
    axes = ("--sweep=likelihood=bernoulli,continuous_bernoulli", "--sweep=beta=0.5,4")
    given = [flag for flag in SWEEP if "strategy" not in flag]
    code, out, err = scripts.call(tmp_path, "sweep", *given, *flags, *axes)
    assert (code, err) == (0, "")
    assert out.count("beta changes what the bound means: runs are compared by the ELBO") == 2
    for likelihood in ("bernoulli", "continuous_bernoulli"):
        elbos = {
            row["run"]: float(row["validation_reconstruction"]) - float(row["validation_kl"])
            for row in table(tmp_path / "x")
            if row["likelihood"] == likelihood
        }
        best = max(elbos, key=elbos.__getitem__)
        beta = next(row["beta"] for row in table(tmp_path / "x") if row["run"] == best)
        named = f"likelihood={likelihood}, beta={beta} ({elbos[best]:.2f}, 1 seed)"
        assert f"best setting by validation ELBO (likelihood={likelihood}): {named}" in out
        assert f"best validation ELBO (likelihood={likelihood}) so far {elbos[best]:.2f} (" in out
    assert all(f"epoch 1/1 of 2 runs: {done} of 4 finished, best" in out for done in (0, 2))
    assert "validation beta" not in out


def test_a_sweep_draws_what_it_reached(scripts, tmp_path):
    flags = (*SMALL, "--strategy=map", "--workdir=x", "--epochs=2", "--figures")
    axes = ("--sweep=learning_rate=0.001,0.01", "--sweep=adam_b1=0.8,0.9")
    code, out, err = scripts.call(tmp_path, "sweep", *flags, *axes)
    assert (code, err) == (0, "")
    drawn = {line.removeprefix("picture: x/figures/") for line in out.splitlines() if line.startswith("picture: ")}
    assert drawn == {
        "validation_against_learning_rate.png",
        "validation_against_adam_b1.png",
        "validation_over_learning_rate_and_adam_b1.png",
        "learning_curves.png",
    }
    assert all(path.stat().st_size for path in (tmp_path / "x/figures").iterdir())
