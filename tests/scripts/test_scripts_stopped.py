"""Runs that are stopped, interrupted and killed, and resume to the very bits of an undisturbed run; whole processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run_samples import assert_same_result, state
from tests.script_calls import everything
from tests.script_runs import scripts
from vae.runs import checkpoint
from vae.runs.folder import CHECKPOINTS

__all__ = ["scripts"]

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.stem for p in (ROOT / "experiments").glob("*.py") if "\n    script.run(" in p.read_text())
EPOCHS = 12  # most of their time is that of saving checkpoints
TRAINS = ": train "  # in the line of an epoch
FLAGS = ("--preset=digits", "--hidden_sizes=16", f"--epochs={EPOCHS}", "--save_every=0", "--workdir=x")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, out, err = scripts.call(folder, "train", *FLAGS)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "x"
    return folder / "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_a_signal_saves_and_exits_with_75_and_the_run_resumes_bit_identical(scripts, undisturbed, tmp_path, number):
    first = scripts.start(tmp_path, "train", *FLAGS)
    first.wait_for("epoch 2/")
    first.send(number)
    code, out, err = first.result()
    assert code == 75
    assert err == "\nsaving and stopping; once more to end at once\n"
    assert out.splitlines()[-1] == "x"
    assert "the same command with --workdir=x resumes it" in out
    stopped_at = checkpoint.steps(tmp_path / "x" / CHECKPOINTS)[-1]
    assert 2 * 40 <= stopped_at < EPOCHS * 40
    code, _, err = scripts.call(tmp_path, "train", "--workdir=x")
    assert (code, err) == (0, "")
    assert_same_result(tmp_path / "x", undisturbed)


@pytest.mark.parametrize("num_kills", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_a_run_killed_at_random_moments_resumes_bit_identical(scripts, undisturbed, tmp_path, num_kills):
    moments = random.Random(0)
    reached = []
    for _ in range(num_kills):
        script = scripts.start(tmp_path, "train", *FLAGS)
        script.wait_for(TRAINS)
        with pytest.raises(AssertionError, match="still running"):
            script.result(moments.uniform(0, 0.05))
        script.send(signal.SIGKILL)
        assert script.result().code == -signal.SIGKILL
        reached.append(checkpoint.steps(tmp_path / "x" / CHECKPOINTS)[-1])
    assert reached == sorted(set(reached))
    assert reached[-1] < EPOCHS * 40
    assert scripts.call(tmp_path, "train", "--workdir=x").code == 0
    assert_same_result(tmp_path / "x", undisturbed)
    assert {path.name for path in (tmp_path / "x" / CHECKPOINTS).iterdir()} == {
        path.name for path in (undisturbed / CHECKPOINTS).iterdir()
    }


@pytest.mark.parametrize("wanted", [1, pytest.param(5, marks=pytest.mark.soak)])
def test_a_run_killed_within_a_save_resumes_bit_identical(scripts, undisturbed, tmp_path, wanted):
    """Killed until `wanted` saves were caught half done, and five times at most: some end before the signal."""
    checkpoints = tmp_path / "x" / CHECKPOINTS
    caught = 0
    for _ in range(5):
        if caught == wanted:
            break
        script = scripts.start(tmp_path, "train", *FLAGS)
        script.wait_for(TRAINS)
        while not list(checkpoints.glob(".partial-*")):
            pass
        script.send(signal.SIGKILL)
        assert script.result().code == -signal.SIGKILL
        caught += bool(list(checkpoints.glob(".partial-*")))
    assert caught
    assert scripts.call(tmp_path, "train", "--workdir=x").code == 0
    assert not list(checkpoints.glob(".partial-*"))
    assert_same_result(tmp_path / "x", undisturbed)


def test_a_second_signal_ends_the_run_at_once_and_harms_nothing(scripts, undisturbed, tmp_path):
    script = scripts.start(tmp_path, "train", *FLAGS)
    script.wait_for("epoch 3/")
    script.send(signal.SIGINT)
    time.sleep(0.3)  # sooner it counts as the same one
    script.send(signal.SIGINT)
    code, _, err = script.result()
    assert code in (128 + signal.SIGINT, 75)  # it may have ended before
    assert "Traceback" not in err
    assert scripts.call(tmp_path, "train", "--workdir=x").code == 0
    assert_same_result(tmp_path / "x", undisturbed)


def test_a_folder_in_which_a_run_is_training_is_refused_by_the_name_of_its_process(scripts, tmp_path):
    first = scripts.start(tmp_path, "train", *FLAGS, "--epochs=1000")
    first.wait_for("epoch 1/")
    code, _, err = scripts.call(tmp_path, "train", "--workdir=x")
    assert code == 1
    assert err.startswith("error: x is in use by process ")
    assert err.count("\n") == 1
    first.send(signal.SIGKILL)
    first.result()


def test_a_failed_run_exits_with_2_and_its_advice_works(scripts, tmp_path):
    flags = ("--preset=digits", "--hidden_sizes=16", "--epochs=2")
    stages = ("--schedule=stages", "--stage_epochs=1,1", "--stage_factors=1,1e33", "--workdir=x")
    code, _, err = scripts.call(tmp_path, "train", *flags, *stages)
    assert code == 2
    assert err.startswith("failed: the bound or its gradient is not finite at step 4")
    assert "from the last good checkpoint (40) with --init_from=x" in err
    assert err.count("\n") == 1
    message = scripts.call(tmp_path, "train", "--workdir=x", "--learning_rate=1e-4").err
    assert "learning_rate is 0.001, not 0.0001; choose another --workdir (with --init_from=x" in message
    code, _, err = scripts.call(tmp_path, "train", *flags, "--workdir=y", "--init_from=x", "--learning_rate=1e-4")
    assert code == 0, err
    assert int(state(tmp_path / "y").step) == 80


def python(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """A new Python, which knows of the repository only what `environment` says."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=60
    )


def test_both_ways_of_starting_a_script_work_from_anywhere_and_share_a_run(tmp_path):
    data = {"VAE_DATA_DIR": str(tmp_path / "data")}
    flags = ("--preset=digits", "--hidden_sizes=16", "--nofigures")
    first = python(tmp_path, "-m", "experiments.train", *flags, "--epochs=1", PYTHONPATH=str(ROOT), **data)
    assert first.returncode == 0, first.stderr
    workdir = tmp_path / first.stdout.splitlines()[-1]
    assert workdir.parent == tmp_path / "runs"
    path = str(ROOT / "experiments" / "train.py")
    second = python(tmp_path, path, f"--workdir={workdir}", "--epochs=2", **data)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines()[-1] == str(workdir)
    assert int(state(workdir).step) == 80


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_the_flags_and_waits_for_no_heavy_import(tmp_path, script):
    ended = python(tmp_path, "-X", "importtime", str(ROOT / "experiments" / f"{script}.py"), "--helpshort")
    assert f"{script}.py:\n  --" in ended.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "absl" in imported
    heavy = {"jax", "flax", "optax", "orbax", "tensorflow_datasets", "numpy", "matplotlib", "scipy", "sklearn"}
    assert not imported & heavy
    assert everything(tmp_path) == {}


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    path = str(ROOT / "experiments" / "train.py")
    ended = python(tmp_path, path, "--preset=digits", JAX_PLATFORMS="cuda", VAE_DATA_DIR=str(tmp_path / "data"))
    if ended.returncode == 0:
        pytest.skip("there is a GPU")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: JAX_PLATFORMS=cuda: jax finds no such device here")
    assert "install jax for it" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_virtual_devices_share_a_batch_that_they_divide(scripts, tmp_path):
    flags = ("--preset=digits", "--hidden_sizes=16", "--epochs=1", "--batch_size=32", "--workdir=x")
    message = scripts.refusal(tmp_path, "train", *flags, "--devices=3")
    assert "a batch of 32 cannot be shared by 3 devices; use a --batch_size that is a multiple of 3" in message
    code, out, err = scripts.call(tmp_path, "train", *flags, "--devices=4")
    assert (code, err) == (0, "")
    assert "4 cpu device(s)" in out
