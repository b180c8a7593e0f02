"""What was saved outlives a power cut: it is on the disk before it has its name, and before what it replaces goes."""

import ast
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.disk import Disk
from tests.run_samples import STEPS_PER_EPOCH, assert_same_result, config, train
from vae import durable, figures
from vae.datasets import cache
from vae.datasets.dataset import Split
from vae.runs import checkpoint
from vae.runs.config import read_config
from vae.runs.files import read_json, write_arrays, write_json
from vae.runs.folder import CHECKPOINTS, CONFIG
from vae.runs.metrics import read_metrics


@pytest.fixture
def disk(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    with monkeypatch.context() as patch:
        found = Disk(patch, tmp_path / "disk")
        yield found
    found.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    train(workdir, config(epochs=2))
    return workdir


def test_a_run_resumes_bit_for_bit_from_what_a_power_cut_leaves_at_any_moment(disk, tmp_path, undisturbed):
    workdir = tmp_path / "disk" / "x"
    train(workdir, config(epochs=2), keep_last=1, keep_best=0)  # the older checkpoint is deleted
    assert checkpoint.steps(workdir / CHECKPOINTS) == [50]
    assert disk.faults == []
    assert len(disk.states) > 20
    newest, seen, resumed = 0, set(), set()
    for number, state in enumerate(disk.states):
        left = disk.survivors(state, tmp_path / f"{number}") / "x"
        steps = checkpoint.steps(left / CHECKPOINTS)
        if (left / CONFIG).exists():
            assert read_config(left) == config(epochs=2)
        for step in steps:
            assert (left / CONFIG).exists()
            checkpoint.verify(left / CHECKPOINTS, step)
        last = max(steps, default=0)
        assert last >= newest, "a checkpoint was lost that was there before"
        if last:  # rows up to a checkpoint are there before it
            assert [r["step"] for r in read_metrics(left) if r["split"] == "validation"][: last // STEPS_PER_EPOCH] == [
                STEPS_PER_EPOCH * epoch for epoch in range(1, last // STEPS_PER_EPOCH + 1)
            ]
        newest = last
        seen.add(last)
        if last not in resumed and last:
            resumed.add(last)
            train(left, config(epochs=2))
            assert_same_result(left, undisturbed)
        shutil.rmtree(tmp_path / f"{number}")
    assert seen == {0, 25, 50}
    assert_same_result(disk.survivors(disk.states[-1], tmp_path / "end") / "x", undisturbed)


def test_everything_that_holds_results_is_written_in_one_durable_step(disk, tmp_path):
    folder = tmp_path / "disk"
    durable.make_folder(folder / "a" / "b")
    write_json(folder / "a" / "b" / "x.json", {"a": 1})
    write_arrays(folder / "x.npz", {"a": np.arange(3)})
    figures.save(figures.samples(np.zeros((4, 8, 8, 1)), "x"), folder / "figures" / "x.png")
    durable.append(folder / "log", b"1\n")
    durable.append(folder / "log", b"2\n")
    cache.publish(folder / "data" / "x", {"train": Split(np.zeros((2, 3, 3, 1), np.uint8))})
    assert disk.faults == []
    left = disk.survivors(disk.states[-1], tmp_path / "left")
    assert {str(path.relative_to(left)): path.read_bytes() for path in left.rglob("*") if path.is_file()} == {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert read_json(left / "a" / "b" / "x.json") == {"a": 1}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, number):
    write_json(tmp_path / "x.json", {"a": 1})

    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_json(tmp_path / "x.json", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_folder_that_a_file_system_cannot_sync_is_no_error_and_a_file_is(tmp_path, monkeypatch):
    (tmp_path / "file").touch()

    def unable(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unable)
    durable.sync(tmp_path)
    with pytest.raises(OSError, match="Invalid"):
        durable.sync(tmp_path / "file")


def test_no_other_code_writes_files():
    """Except locks, data sets, which are verified when they are read, experiments.soak, which breaks files, and
    experiments.benchmark, whose files for other processes are temporary."""
    root = Path(__file__).parents[2]
    found = set()
    for path in (*root.glob("vae/**/*.py"), *root.glob("experiments/**/*.py")):
        if path.parent.name in ("datasets", "soaking", "benchmarking", "peers"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            opens = name in ("open", "fdopen") and any(set(mode) & set("wax+") and len(mode) < 4 for mode in modes)
            if opens or name in ("write_text", "write_bytes", "mkdir", "makedirs", "rename", "savez"):
                owner = node.func.value if isinstance(node.func, ast.Attribute) else None
                if not (isinstance(owner, ast.Name) and owner.id == "durable"):
                    found.add((str(path.relative_to(root)), name))
    assert found == {
        ("vae/durable.py", "open"),
        ("vae/durable.py", "mkdir"),
        ("vae/durable.py", "rename"),
        ("vae/runs/checkpoint.py", "mkdir"),  # synced there
        ("vae/runs/checkpoint.py", "rename"),  # before deletion
        ("vae/runs/folder.py", "fdopen"),  # the lock
        ("vae/sweeps/storage.py", "open"),  # the lock
        ("experiments/command/script.py", "fdopen"),  # standard output and error
    }
