"""Scripts on folders that a stranger made: no code of theirs is run, and no other folder is written to."""

import json
import shutil

import pytest

from tests.script_calls import everything
from tests.script_runs import scripts
from vae.runs.files import write_json
from vae.runs.folder import CONFIG
from vae.sweeps.sweep_file import PLAN, SWEEP

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=16", "--batch_size=200", "--epochs=1")
NAMED = "names the feature class 'tests.payload.X', whose code is not run; a prepared data set may have FeaturesDict, "


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scripts):
    """A folder with the runs x and y, which say that their data are in the folder cats, and with cats."""
    folder = tmp_path_factory.mktemp("finished")
    assert scripts.call(folder, "train", *SMALL, "--workdir=x").code == 0
    cats = folder / "cats"
    cats.mkdir()
    about = {"name": "cats", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    (cats / "dataset_info.json").write_text(json.dumps(about))
    (cats / "features.json").write_text('{"pythonClassName": "tests.payload.X", "featuresDict": {"features": {}}}')
    change(folder / "x" / CONFIG, {"dataset": str(cats), "flags": {"dataset": str(cats)}})
    shutil.copytree(folder / "x", folder / "y")
    change(folder / "y" / CONFIG, {"hyperparameters": {"learning_rate": 0.002}})
    flags = {"dataset": str(cats), "epochs": 1}
    sweep = {"sweep": ["seed=0:2"], "zip": False, "random": None, "strategy": "auto", "runs": {}, "flags": flags}
    search = {"search": "tpe", "sweep": ["learning_rate=log:1e-4:1e-2"], "trials": 2, "runs": {}, "flags": flags}
    search |= {"pruner": "none", "storage": None, "study": None}
    asked = {"objectives": ["elbo", "iwae"], "runs": [], "seeds": 1, "tune": [], "budget": "steps"}
    asked |= {"evaluation_samples": None, "evaluation_seed": None, "num_examples": None}
    for name, file, values in (
        ("sweep", SWEEP, sweep),
        ("search", SWEEP, search),
        ("plan", PLAN, {"asked": asked, "flags": flags}),
    ):
        (folder / name).mkdir()
        write_json(folder / name / file, values)
    return folder


def change(path, values):
    """Values of a JSON file; of objects in it, those that are named."""
    before = json.loads(path.read_text())
    write_json(path, before | {k: before[k] | v if isinstance(v, dict) else v for k, v in values.items()})


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("train", ("--dataset=./cats",)),
        ("train", ("--workdir=x",)),
        ("evaluate", ("--workdir=x",)),
        ("generate", ("--workdir=x",)),
        ("gradients", ("--workdir=x",)),
        ("compare", ("--runs=x,y",)),
        ("compare", ("--workdir=plan",)),
        ("sweep", ("--workdir=sweep",)),
        ("sweep", ("--workdir=search",)),
    ],
)
def test_no_code_that_the_data_of_a_run_name_is_run(scripts, finished, script, flags):
    """tests/payload.py would leave a file EXECUTED, which the refusal would see."""
    assert NAMED in scripts.refusal(finished, script, *flags)


def test_compiled_programs_come_from_no_folder_that_a_run_names(scripts, tmp_path):
    given = tmp_path / "given"
    unset = {"JAX_COMPILATION_CACHE_DIR": ""}
    script = scripts.start(tmp_path, "train", *SMALL, "--workdir=x", f"--data_dir={given}", **unset)
    assert script.result().code == 0
    assert (given / "compiled").is_dir()  # of this very command
    shutil.rmtree(given)
    assert json.loads((tmp_path / "x" / CONFIG).read_text())["flags"]["data_dir"] == str(given)
    assert scripts.start(tmp_path, "train", "--workdir=x", "--epochs=2", **unset).result().code == 0
    assert not given.exists()


def test_a_search_writes_into_no_folder_outside_its_own(scripts, finished, tmp_path):
    flags = (*SMALL, "--search=random", "--trials=2", "--population=2", "--sweep=learning_rate=log:1e-4:1e-2")
    flags += ("--strategy=loop", "--devices=1")
    shutil.copytree(finished / "x", tmp_path / "victim")
    assert scripts.call(tmp_path, "sweep", *flags, "--nofigures", "--workdir=x").code == 0
    names = ["../../../victim", "../../victim"]
    change(tmp_path / "x" / SWEEP, {"round": {"names": names, "trials": [0, 1], "plans": {}}})
    before = everything(tmp_path)
    assert "sweep.json is damaged: '../../../victim' is not a plain name" in scripts.refusal(
        tmp_path, "sweep", "--workdir=x"
    )
    change(tmp_path / "x" / SWEEP, {"round": {"names": [], "trials": []}, "runs": {"../../victim": {}}})
    assert "'../../victim' is not a plain name" in scripts.refusal(tmp_path, "sweep", "--workdir=x")
    assert {path: content for path, content in everything(tmp_path).items() if path.name != SWEEP} == {
        path: content for path, content in before.items() if path.name != SWEEP
    }


def test_a_run_whose_files_are_nested_deep_is_one_line(scripts, finished, tmp_path):
    for name, script in ((CONFIG, "evaluate"), (SWEEP, "sweep"), (PLAN, "compare")):
        (tmp_path / script).mkdir()
        (tmp_path / script / name).write_text("[" * 100_000)
        message = scripts.refusal(tmp_path, script, f"--workdir={script}")
        assert f"{script}/{name} is damaged: it is not valid JSON (it is nested too deeply)" in message


DAMAGED = "sweep.json is damaged: "


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        ("sweep", {"zip": "x"}, "the flag zip that was stored is 'x'"),
        ("sweep", {"strategy": 3}, "the flag strategy that was stored is '3'"),
        ("sweep", {"devices": 1e30}, "the flag devices that was stored is '1e+30'"),
        ("sweep", {"sweep": [3]}, DAMAGED + "its 'sweep' is no list of texts"),
        ("search", {"trials": "x"}, "the flag trials that was stored is 'x'"),
        ("search", {"sweep": [None]}, DAMAGED + "its 'sweep' is no list of texts"),
        ("search", {"devices": -1}, "the flag devices that was stored is '-1'"),
        ("plan", {"flags": []}, "plan.json is damaged: it is not the plan of a comparison"),
        ("plan", {"asked": None}, "plan.json is damaged: it is not the plan of a comparison"),
        ("plan", {"seconds_per_step": ["x"]}, "plan.json is damaged: it is not the plan of a comparison"),
        ("plan", {"epochs": 3}, "plan.json is damaged: it is not the plan of a comparison"),
        ("plan", {"asked": {"seeds": "x"}}, "the flag seeds that was stored is 'x'"),
        ("plan", {"asked": {"tune": 3}}, "plan.json is damaged: its 'tune' is no list of texts"),
    ],
)  # fmt: skip
def test_flags_that_a_file_gives_are_checked_as_those_of_a_command(
    scripts, finished, tmp_path, folder, changes, message
):
    shutil.copytree(finished / folder, tmp_path / "w")
    change(tmp_path / "w" / (PLAN if folder == "plan" else SWEEP), changes)
    script = "compare" if folder == "plan" else "sweep"
    assert message in scripts.refusal(tmp_path, script, "--workdir=w")


def test_a_journal_that_only_sweep_json_names_is_not_made(scripts, finished, tmp_path):
    shutil.copytree(finished / "search", tmp_path / "w")
    change(tmp_path / "w" / SWEEP, {"storage": str(tmp_path / "own"), "flags": {"dataset": "digits"}})
    message = scripts.refusal(tmp_path, "sweep", "--workdir=w")
    assert f"{tmp_path}/own, the journal that w/sweep.json names, is lost; put it back, or give --storage" in message
