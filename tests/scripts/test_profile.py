"""--profile: a trace of steps that Perfetto and TensorBoard open, of a run alone and of a population."""

import gzip
import json
import re

import jax
import pytest

from experiments.command import profiling
from experiments.flags.options import Flags
from tests.script_runs import scripts

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=8", "--epochs=1", "--profile", "--workdir=x")
SWEEP = (*SMALL, "--nofigures", "--sweep=seed=0:2", "--strategy=map")
SEARCH = (*SMALL, "--nofigures", "--search=random", "--trials=2", "--sweep=learning_rate=log:1e-4:1e-2")


@pytest.mark.parametrize(("name", "given"), [("train", SMALL), ("sweep", SWEEP), ("sweep", SEARCH)])
def test_a_trace_of_a_few_steps_is_in_the_folder_and_its_place_is_told(name, given, scripts, tmp_path):
    code, out, err = scripts.call(tmp_path, name, *given)
    assert (code, err) == (0, "")
    (path,) = re.findall(r"^profile: (\S+)  \(for https://ui.perfetto.dev; or tensorboard --logdir=x/profile\)$", out,
                         re.MULTILINE)  # fmt: skip
    with gzip.open(tmp_path / path, "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any(one and one.startswith("while") for one in names), "no step of the compiled loop was traced"
    assert [one.suffix for one in (tmp_path / path).parent.iterdir() if one.suffix == ".pb"] == [".pb"]


def test_the_calls_after_the_first_one_are_traced_and_no_more(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: seen.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append("stop"))
    (tmp_path / profiling.FOLDER).mkdir()
    (tmp_path / profiling.FOLDER / "perfetto_trace.json.gz").touch()
    with profiling.Profile(Flags({"profile": True}, frozenset()), tmp_path) as profile:
        report = profile.watching(seen.append)
        for call in range(5):
            report(call)
    assert seen == [0, "start", 1, 2, "stop", 3, 4]
    with profiling.Profile(Flags({"profile": False}, frozenset()), tmp_path) as profile:
        assert profile.watching(print) is print


def test_a_run_without_steps_to_trace_is_refused_or_says_so(scripts, tmp_path):
    assert scripts.call(tmp_path, "train", *SMALL[:-2], "--workdir=x").code == 0
    line = scripts.refusal(tmp_path, "train", "--workdir=x", "--profile")
    assert line == "error: --profile traces steps, and the run in x is finished; raise --epochs"
    sweep = [flag for flag in SWEEP if flag not in ("--profile", "--workdir=x")]
    assert scripts.call(tmp_path, "sweep", *sweep, "--workdir=y").code == 0
    code, out, _ = scripts.call(tmp_path, "sweep", "--workdir=y", "--profile")
    assert code == 0
    assert "no profile: no step was left to take" in out


@pytest.mark.parametrize(("name", "given"), [("train", SMALL), ("sweep", SWEEP)])
def test_processes_that_train_together_are_not_profiled(name, given, scripts, tmp_path):
    line = scripts.refusal(tmp_path, name, *given, "--distributed")
    assert line == "error: --profile traces a single process; leave out --profile or --distributed"
