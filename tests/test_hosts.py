"""hosts.py: one command as several processes that talk over 127.0.0.1 does what it does as one; real processes."""

import contextlib
import csv
import json
import multiprocessing
import os
import signal
import socket

import jax
import numpy as np
import pytest

from tests.run_samples import rows
from tests.script_calls import everything
from tests.script_runs import scripts
from vae import hosts
from vae.api import load_run
from vae.runs import checkpoint
from vae.runs.folder import lock
from vae.training.loop import Pace

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=16", "--batch_size=201", "--nofigures", "--workdir=x")
SWEEP = (*SMALL, "--epochs=1", "--zip", "--sweep=seed=0:3", "--sweep=learning_rate=0.001,0.01,1e30")
EPOCHS = 14
LONG = (*SMALL, f"--epochs={EPOCHS}", "--strategy=map", "--sweep=seed=0:2", "--save_every=0")


def by_hand(number, num_processes, port):
    address = f"127.0.0.1:{port}"
    return {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": num_processes, "JAX_PROCESS_ID": number}


def by_slurm(number, num_processes, port):
    """What srun sets; the port alone is ours, since jax would derive it from the number of the job."""
    job = {"SLURM_JOB_ID": 1, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": num_processes}
    return job | {"SLURM_PROCID": number, "SLURM_LOCALID": number, "JAX_COORDINATOR_PORT": port}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def joined(scripts, num_processes, cwd, name, *flags, started_by=by_hand):
    """The same command `num_processes` times, to be joined; none of them outlives the test."""
    port, started = free_port(), []
    try:
        for number in range(num_processes):
            variables = {key: str(value) for key, value in started_by(number, num_processes, port).items()}
            started.append(scripts.start(cwd, name, *flags, "--distributed", **variables))
        yield started
    finally:
        for script in started:
            script.end()


def together(scripts, num_processes, cwd, name, *flags, started_by=by_hand):
    """The results of a joined command that ends by itself."""
    with joined(scripts, num_processes, cwd, name, *flags, started_by=started_by) as started:
        return [script.result() for script in started]


def assert_done(results):
    first, *others = results
    assert [(result.code, result.err) for result in results] == [(0, "")] * len(results)
    assert first.out.splitlines()[-1] == "x"
    assert not [line for other in others for line in other.out.splitlines() if not line.startswith("preset ")]


def numbers(text):
    """The cells of a table, numbers as such."""
    for cell in text:
        try:
            yield float(cell)
        except ValueError:
            yield cell


def assert_close_table(one, other, tolerance=1e-5):
    tables = [list(csv.reader((folder / "results.csv").read_text().splitlines())) for folder in (one, other)]
    assert len(tables[0]) == len(tables[1])
    for row, same in zip(*tables, strict=True):
        assert list(numbers(row)) == [
            pytest.approx(cell, rel=tolerance) if isinstance(cell, float) else cell for cell in numbers(same)
        ]


def names(folder):
    """The files under a folder, without those whose names are random or times."""
    return {path.relative_to(folder) for path in everything(folder) if path.parent.name not in ("d", "tensorboard")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, scripts):
    """A sweep by one process with four devices."""
    folder = tmp_path_factory.mktemp("alone")
    code, _, err = scripts.call(folder, "sweep", *SWEEP, "--strategy=map", "--devices=4")
    assert (code, err) == (0, "")
    return folder / "x"


@pytest.mark.soak
@pytest.mark.parametrize(("num_processes", "num_devices", "strategy"), [(2, 2, "auto"), (4, 1, "map")])
def test_a_sweep_by_several_processes_is_that_by_one(scripts, alone, tmp_path, num_processes, num_devices, strategy):
    """Three runs, of which one diverges; batches that cannot be shared. One set of files, those of a single process."""
    flags = (*SWEEP, f"--strategy={strategy}", f"--devices={num_devices}")
    assert_done(together(scripts, num_processes, tmp_path, "sweep", *flags))
    assert_close_table(tmp_path / "x", alone)
    assert names(tmp_path / "x") == names(alone)
    for folder in sorted((alone / "runs").iterdir()):
        assert len(rows(tmp_path / "x" / "runs" / folder.name)) == len(rows(folder))
        assert len(list((tmp_path / "x" / "runs" / folder.name / "tensorboard").iterdir())) == 1
    stored = [json.loads((folder / "sweep.json").read_text())["devices"] for folder in (tmp_path / "x", alone)]
    assert stored == [num_devices, 4]


@pytest.mark.soak
def test_batches_shared_by_the_devices_of_several_processes_train_as_by_those_of_one(scripts, tmp_path):
    """The processes find each other by what srun sets; without --distributed a task of a job joins nothing.

    Two epochs: after the first checkpoint, the processes must agree on how often each has saved and read.
    """
    flags = (*SMALL, "--epochs=2", "--batch_size=200")
    assert_done(together(scripts, 2, tmp_path, "train", *flags, "--figures", "--devices=2", started_by=by_slurm))
    (tmp_path / "alone").mkdir()
    task = {key: str(value) for key, value in by_slurm(0, 2, 1).items()}
    assert scripts.start(tmp_path / "alone", "train", *flags, "--devices=4", **task).result().code == 0
    several, one = rows(tmp_path / "x"), rows(tmp_path / "alone/x")
    assert len(several) == len(one) == 5
    for row, same in zip(several, one, strict=True):
        assert row.pop("split") == same.pop("split")
        row.pop("seconds", None)
        same.pop("seconds", None)
        assert row == pytest.approx(same, rel=1e-5)
    drawn = {path.name for path in (tmp_path / "x/figures").iterdir()}
    assert "samples.png" in drawn
    assert len(load_run(tmp_path / "x").params) == 3


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert scripts.call(folder, "sweep", *LONG, "--devices=2").code == 0
    return folder / "x"


@pytest.mark.soak
def test_sigterm_to_one_process_saves_and_ends_all_with_75_and_the_sweep_goes_on(scripts, undisturbed, tmp_path):
    with joined(scripts, 2, tmp_path, "sweep", *LONG, "--devices=1") as started:
        started[0].wait_for("epoch 2/")
        started[1].send(signal.SIGTERM)
        results = [script.result() for script in started]
    assert [result.code for result in results] == [75, 75]
    assert [result.err for result in results] == ["", "\nsaving and stopping; once more to end at once\n"]
    assert results[0].out.splitlines()[-1] == "x"
    assert checkpoint.steps(tmp_path / "x/population/0-0")[-1] < EPOCHS * 6
    assert_done(together(scripts, 2, tmp_path, "sweep", *LONG, "--devices=1"))
    assert (tmp_path / "x/results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()


@pytest.mark.soak
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(scripts, undisturbed, tmp_path, killed):
    """By one process with two devices: a sweep is not tied to how many processes there are."""
    with joined(scripts, 2, tmp_path, "sweep", *LONG, "--devices=1") as started:
        started[0].wait_for("epoch 2/")
        started[killed].send(signal.SIGKILL)
        assert started[killed].result().code == -signal.SIGKILL
        assert started[1 - killed].result().code not in (0, 75)
    assert checkpoint.steps(tmp_path / "x/population/0-0")
    assert not (tmp_path / "x/results.csv").exists()
    assert scripts.call(tmp_path, "sweep", *LONG, "--devices=2").code == 0
    assert (tmp_path / "x/results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()


def test_nothing_to_join_is_one_line_and_leaves_nothing(scripts, tmp_path):
    for name, flags in (("train", SMALL), ("sweep", (*SMALL, "--sweep=seed=0:2"))):
        code, _, message = scripts.start(tmp_path, name, *flags, "--distributed").result()
        assert (code, list(tmp_path.iterdir()), message.count("\n")) == (1, [], 1), message
        assert "--distributed: nothing could be joined (coordinator_address should be defined.)" in message
        assert "set JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID" in message


def test_a_mistake_and_a_folder_in_use_are_one_line_of_each_process(scripts, tmp_path):
    with lock(tmp_path / "x"):
        before = everything(tmp_path)
        for flags, fragment in (
            (("--strategy=loop",), "--strategy=loop keeps each run on a device of a single process, and this sweep"),
            ((), "x is in use by process "),
        ):
            results = together(scripts, 2, tmp_path, "sweep", *SMALL, "--sweep=seed=0:2", *flags)
            for result in results:
                assert result.code == 1, result.err
                assert result.err.startswith(f"error: {fragment}")
                assert result.err.count("\n") == 1
        assert everything(tmp_path) == before


def what_is_agreed(number, port, path):
    os.environ |= {key: str(value) for key, value in by_hand(number, 2, port).items()}
    jax.config.update("jax_num_cpu_devices", 2)
    hosts.join()
    pace = Pace(1.0)
    for seconds in (1.0, 0.01 * (number + 1), 0.02 * (number + 1)):
        pace.saw(1, seconds)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("run",))
    places = [jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("run",), ())]
    trees = hosts.gather([hosts.place({"a": np.array([0.0, np.nan, 2.0, 3.0])}, place) for place in places])
    found = {
        "first": hosts.is_first(),
        "agreed": hosts.agreed(lambda: {"by": number, "long": "x" * 5000}),
        "any": [hosts.any_of(number == 1), hosts.any_of(False)],
        "steps": pace.steps_per_call,
        "trees": [np.nan_to_num(tree["a"], nan=-1).tolist() for tree in trees],
    }
    path.write_text(json.dumps(found))


def test_processes_agree_on_what_the_first_decides_and_see_whole_arrays(tmp_path):
    """Clocks differ, and the number of steps in a call does not; NaN is placed like any other number."""
    context, port = multiprocessing.get_context("forkserver"), free_port()
    paths = [tmp_path / str(number) for number in range(2)]
    started = [context.Process(target=what_is_agreed, args=(n, port, path)) for n, path in enumerate(paths)]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(60)
    finally:
        for process in started:
            process.kill()
            process.join()
    found = [json.loads(path.read_text()) for path in paths]
    assert [one.pop("first") for one in found] == [True, False]
    assert found[0] == found[1]
    assert found[0]["agreed"] == {"by": 0, "long": "x" * 5000}
    assert found[0]["any"] == [True, False]
    assert found[0]["trees"] == [[0, -1, 2, 3]] * 2
    assert found[0]["steps"] == 50
