"""Run folders, sweeps and studies that are a stranger's or damaged: one line each, and nothing of them is run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from tests.audit import audited
from tests.run_samples import EVALUATED, digits
from vae import untrusted
from vae.api import load_run
from vae.datasets import DataError, cache
from vae.runs import checkpoint
from vae.runs.config import read_config
from vae.runs.files import RunError, RunWarning, read_json, write_arrays, write_json
from vae.runs.folder import CONFIG, EVALUATION, METRICS, is_locked, lock
from vae.runs.manifest import MANIFEST, sha256
from vae.runs.metrics import Metrics, read_evaluation, read_metrics
from vae.sweeps import folders, planning, results, samplers, search, storage, study
from vae.sweeps.sweep_file import SWEEP, read_sweep

WRONG = {
    "nested 100,000 deep": "[" * 100_000,
    "an object that is": '{"a":' * 100_000,
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "NaN": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "beyond float64": '{"a": 1e999}',
    "too many digits": '{"a": 1' + "0" * 5000 + "}",
    "a key twice": '{"seed": 1, "seed": 2}',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half": '{"a": ',
    "zeros": b"\0" * 100,
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_what_is_no_json_object_is_one_line_wherever_it_is_read(tmp_path, content):
    for path, error, read in (
        (tmp_path / CONFIG, RunError, lambda: load_run(tmp_path)),
        (tmp_path / SWEEP, RunError, lambda: results.rows(tmp_path)),
        (tmp_path / "7" / MANIFEST, checkpoint.CheckpointError, lambda: checkpoint.score(tmp_path, 7)),
        (tmp_path / "c" / cache.MANIFEST, DataError, lambda: cache.read(tmp_path / "c")),
    ):
        write(path, content)
        with pytest.raises(error, match="damaged") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    write(tmp_path / METRICS, content)
    with pytest.warns(RunWarning, match="is damaged in 1 of 1 lines"):
        assert read_metrics(tmp_path) == []


def test_strict_json_is_what_json_holds():
    values = {"a": [1, -0.1, 1e308, None, True, "ü/\n"], "b": {"a": {}}}
    assert untrusted.parse_json(json.dumps(values).encode()) == values
    assert untrusted.parse_json("[" * 300 + "]" * 300)


def test_a_pipe_for_a_config_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / CONFIG)
    with pytest.raises(RunError, match=r"config.json is no file"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", "a\\b", "a\0b", "a\nb", "\x1b[2J", 3, None])
def test_only_a_plain_name_becomes_a_path(tmp_path, name):
    with pytest.raises(ValueError, match="is not a plain name"):
        untrusted.plain_name(name)


def test_names_that_runs_have_are_plain():
    for name in ("000", "elbo-lr-0.001-seed-0", "iwae K=50, β=0.5", "..a", "数字"):
        assert untrusted.plain_name(name) == name


OUTSIDE = "../../../victim"


def plan_of_a_group(workdir):
    return planning.Plans(workdir).load("0")


@pytest.mark.parametrize(
    "about",
    [
        {"runs": {OUTSIDE: {}}},
        {"runs": {}, "round": {"names": [OUTSIDE], "trials": [0], "plans": {}}},
        {"runs": {}, "round": {"plans": {OUTSIDE: {"strategy": "map", "num_runs": 1, "done": 0}}}},
        {"runs": {}, "round": {"names": [["a"]], "trials": [0]}},
    ],
)
def test_a_name_in_sweep_json_leads_nowhere_else(tmp_path, about):
    write_json(tmp_path / SWEEP, about)
    for read in (results.write, plan_of_a_group, search.stored):
        with pytest.raises(RunError, match=r"sweep.json is damaged: .* is not a plain name; put the file back"):
            read(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [SWEEP]


@pytest.mark.parametrize(
    "about",
    [
        {"runs": []},
        {"runs": {"000": 3}},
        {"groups": {"0": {"strategy": "map", "chunk_size": 0, "done": 0}}},
        {"groups": {"0": {"strategy": "map", "chunk_size": "1", "done": 0}}},
        {"groups": {"0": 3}},
        {"flags": [1]},
        {"sweep": "seed=0:2"},
        {"runs": {"000": {}}, "parts": [2]},
        {"runs": {"000": {}}, "parts": [2, -1]},
        {"runs": {"000": {}}, "parts": "1"},
        {"round": {"names": ["000"], "trials": []}},
        {"round": {"names": ["000"], "trials": ["0"]}},
        {"round": {"plans": {"000": {"strategy": "map", "num_runs": 1.5, "done": 0}}}},
        {"round": {"plans": []}},
    ],
)
def test_a_sweep_json_of_other_types_is_one_line(tmp_path, about):
    write_json(tmp_path / SWEEP, {"runs": {}} | about)
    with pytest.raises(RunError, match=r"sweep.json is damaged: .*; put the file back, or choose another") as caught:
        read_sweep(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cache_reads_no_file_outside_its_folder(tmp_path):
    np.save(tmp_path / "x_images.npy", np.zeros((2, 3, 3, 1), np.uint8))
    checksum = sha256(tmp_path / "x_images.npy")
    write(tmp_path / "c" / cache.MANIFEST, json.dumps({"../x_images.npy": checksum}))
    with pytest.raises(DataError, match=r"manifest.json is damaged"):
        cache.read(tmp_path / "c")


class Payload:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (str(self._path), "w")


SPACE = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}


def cmaes(sampler, num_trials, opened, name="s"):
    """A study of `num_trials` told trials, and what it asks for next."""
    made = optuna.create_study(storage=opened, study_name=name, direction="maximize", sampler=sampler)
    asked = []
    for _ in range(num_trials):
        trial = made.ask(SPACE)
        asked.append(trial.params)
        made.tell(trial, -((trial.params["a"] - 0.3) ** 2) - trial.params["b"])
    return made, asked


SPEC = samplers.Spec(SPACE, "cmaes", "none", "bound", population=5, epochs=1, seeds=(0,))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_cmaes_goes_on_from_the_state_that_it_kept_as_optunas_own_does():
    seed = int(np.random.SeedSequence((0, 0)).generate_state(1)[0])
    theirs = optuna.samplers.CmaEsSampler(
        seed=seed, popsize=5, consider_pruned_trials=True, warn_independent_sampling=False
    )
    asked = [
        cmaes(sampler, 24, optuna.storages.InMemoryStorage())[1] for sampler in (samplers.sampler(SPEC, 0), theirs)
    ]
    assert asked[0] == asked[1]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    ("payload", "reason"), [(Payload, r"it holds .*\.open"), (Path, "it holds pathlib"), (dict, "it is a dict")]
)
def test_a_state_of_cmaes_in_a_study_runs_nothing(tmp_path, payload, reason):
    """Optuna pickles it into the study, which may be a stranger's journal, or shared with others."""
    opened = storage.open_storage(str(tmp_path / "journal"))
    made, _ = cmaes(samplers.sampler(SPEC, 0), 8, opened)
    trial = made.ask(SPACE)
    content = payload() if payload is dict else payload(tmp_path / "EXECUTED")
    opened.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", pickle.dumps(content).hex())
    made.tell(trial, -1.0)
    with pytest.raises(RunError, match=rf"CMA-ES in its trial 8 cannot be read \({reason}"):
        made.ask(SPACE)
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize("worker", [{"id": "b"}, "b", {"id": 1, "workdir": "x", "host": "y"}, ["id"]])
def test_a_trial_of_another_program_in_a_shared_study_is_one_line(tmp_path, worker):
    opened = storage.open_storage(str(tmp_path / "journal"))
    study.join(opened, "s", {})
    template = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={study.WORKER: worker})
    opened.create_new_trial(opened.get_study_id_from_name("s"), template)
    member = study.StudyWorker(opened, "s", study.WorkerId("a", str(tmp_path), "here"), {}, 3)
    with pytest.raises(RunError, match="trial 0 of the study was not made by this program; use another `study`"):
        member.free_the_dead({})


def test_the_folder_of_a_trial_of_a_shared_study_is_one_of_its_runs(tmp_path):
    from vae.sweeps.outcome import folder_of

    def trial(name, workdir="/data/x"):
        worker = study.WorkerId("a", workdir, "here")._asdict()
        return optuna.trial.create_trial(value=0.0, user_attrs={study.WORKER: worker, study.RUN: name})

    assert str(folder_of(trial("003"), tmp_path, "b")) == "/data/x/runs/003"
    assert folder_of(trial("003"), tmp_path, "a") == tmp_path / "runs" / "003"  # its folder was moved
    assert folder_of(trial(OUTSIDE), tmp_path, "a") is None
    assert folder_of(trial("3\n$(reboot)"), tmp_path, "a") is None
    assert folder_of(trial("003", "/data/\x1b[2J"), tmp_path, "a") is None


def test_the_journal_of_a_study_is_json(tmp_path):
    """No snapshot is unpickled."""
    path = tmp_path / "journal"
    cmaes(optuna.samplers.RandomSampler(0), 3, storage.open_storage(str(path)))
    shutil.copy(path, tmp_path / "copy")
    with audited() as found:
        opened = storage.open_storage(str(tmp_path / "copy"))
        assert len(opened.get_all_trials(opened.get_study_id_from_name("s"))) == 3
    assert not [what for event, what in found if event == "pickle.find_class"]


ROW: dict = {"step": 1, "epoch": 1.0, "split": "train", "elbo": -3.0, "kl": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "1"},
        {"step": -1},
        {"epoch": None},
        {"split": 3},
        {"elbo": "x"},
        {"elbo": True},
        {"kl": [1]},
        {"step": 1.5},
    ],
    ids=str,
)
def test_a_row_of_metrics_that_is_none_is_one_line_and_is_left_out(tmp_path, changes):
    later = ROW | {"step": 2}
    write(tmp_path / METRICS, "".join(json.dumps(row) + "\n" for row in (ROW, ROW | changes, later)))
    with pytest.warns(RunWarning, match=r"metrics.jsonl is damaged in 1 of 3 lines \(2\): left out") as caught:
        assert read_metrics(tmp_path) == [ROW, later]
    assert len(caught) == 1
    write(tmp_path / METRICS, json.dumps(ROW))
    assert read_metrics(tmp_path) == [ROW]


@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluation_of_other_kinds_is_one_line(tmp_path, name):
    write_json(tmp_path / EVALUATION, EVALUATED)
    assert read_evaluation(tmp_path / EVALUATION) == EVALUATED
    for wrong in ({name: "x"}, {name: ["x"]}, {name: True}):
        write_json(tmp_path / EVALUATION, EVALUATED | wrong)
        with pytest.raises(RunError, match=r"evaluation.json is damaged: it is no evaluation; remove it, and evalu"):
            read_evaluation(tmp_path / EVALUATION)
    lacking = {key: value for key, value in EVALUATED.items() if key != name}
    write_json(tmp_path / EVALUATION, lacking)
    if name != "kl_per_dimension":  # null where q has no closed form
        with pytest.raises(RunError, match="is damaged"):
            read_evaluation(tmp_path / EVALUATION)


def test_what_is_written_in_a_run_folder_goes_through_no_link(tmp_path):
    victim, workdir = tmp_path / "victim", tmp_path / "x"
    victim.write_text("mine")
    workdir.mkdir()
    (workdir / ".lock").symlink_to(victim)
    with pytest.raises(RunError, match="x cannot be a run folder"), lock(workdir):
        pass
    assert not is_locked(workdir)
    (workdir / ".lock").unlink()
    os.mkfifo(workdir / ".lock")
    assert not is_locked(workdir)
    victim.write_text("")
    for name in (CONFIG, METRICS, "a.npz"):
        (workdir / name).symlink_to(victim)
    write_json(workdir / CONFIG, {"a": 1})
    write_arrays(workdir / "a.npz", {"a": np.zeros(2)})
    metrics = Metrics(workdir, 0, watched=False)
    metrics.write(1, 1.0, "train", {"elbo": 1.0})
    assert victim.read_text() == ""
    assert read_json(workdir / CONFIG) == {"a": 1}


def test_a_run_of_a_sweep_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "x" / planning.RUNS).mkdir(parents=True)
    (tmp_path / "x" / planning.RUNS / "000").symlink_to(tmp_path / "victim")
    for check in (
        lambda: folders.check(tmp_path / "x", {}, lambda config: digits(), recorded=True),
        lambda: folders.check_listed(tmp_path / "x", {}),
    ):
        with pytest.raises(RunError, match=r"runs/000 is a link, and training would write where it leads"):
            check()
