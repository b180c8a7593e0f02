"""Damage is found, told in a line, and costs no more than what was hit; what is not damage is not called so."""

import asyncio
import errno
import gc
import json
import os
import shutil
import threading
import time
import warnings

import jax
import numpy as np
import pytest

from tests.run_samples import EPOCHS, STEPS_PER_EPOCH, assert_same_result, config, rows, state, train
from vae.api import load_run
from vae.runs import checkpoint
from vae.runs.config import write_config
from vae.runs.files import RunError, RunWarning
from vae.runs.folder import CHECKPOINTS, METRICS, check_kept, lock
from vae.runs.manifest import MANIFEST, sha256
from vae.runs.metrics import DAMAGED, Metrics, read_metrics
from vae.training import start


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "x"
    train(workdir, keep_last=EPOCHS)
    return workdir


@pytest.fixture
def workdir(undisturbed, tmp_path):
    """A run with a checkpoint for each of its three epochs."""
    return shutil.copytree(undisturbed, tmp_path / "x")


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("begun") / "x"
    train(workdir, config(epochs=2), keep_last=EPOCHS)
    return workdir


@pytest.fixture
def begun(two_epochs, tmp_path):
    """A run of which two of three epochs are trained."""
    return shutil.copytree(two_epochs, tmp_path / "x")


def flip(path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_in_metrics_costs_at_most_the_two_rows_that_it_joins_and_changes_none(workdir):
    path = workdir / METRICS
    content, before = path.read_bytes(), read_metrics(workdir)
    assert len(before) == 2 * EPOCHS + 1
    rng = np.random.default_rng(0)
    newlines = [number for number, byte in enumerate(content) if byte == 10]
    for position in (0, len(content) - 1, newlines[0], *rng.integers(len(content), size=200)):
        path.write_bytes(content)
        flip(path, position, int(rng.integers(8)))
        with pytest.warns(RunWarning, match=r"metrics\.jsonl is damaged in [12] of [678] lines \(.*\): left out"):
            found = read_metrics(workdir)
        assert all(row in before for row in found)
        assert len(found) >= len(before) - 2


def test_a_damaged_row_is_kept_aside_when_the_run_resumes_and_comes_back_from_the_last_checkpoint(begun, undisturbed):
    path = begun / METRICS
    *earlier, damaged, last = path.read_bytes().splitlines(keepends=True)
    assert b'"step": 50, "epoch": 2.0, "split": "validation"' in damaged
    path.write_bytes(b"".join([*earlier, damaged.replace(b"-", b"+"), last]))
    with pytest.warns(RunWarning, match=r"kept in .*damaged\.jsonl; 1 came back from a checkpoint"):
        train(begun, keep_last=EPOCHS)
    assert (begun / DAMAGED).read_bytes() == damaged.replace(b"-", b"+")
    (begun / METRICS).write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if line != last))
    assert_same_result(begun, undisturbed)


def test_a_damaged_row_of_an_older_epoch_is_kept_aside_and_no_later_row_is_lost(workdir):
    flip(workdir / METRICS, 10)
    before = rows_without_warning(workdir)
    with pytest.warns(RunWarning, match=r"is damaged in 1 of 7 lines \(1\): kept in "):
        Metrics(workdir, EPOCHS * STEPS_PER_EPOCH, watched=False)
    assert read_metrics(workdir) == before
    assert len(before) == 2 * EPOCHS
    assert len((workdir / DAMAGED).read_bytes().splitlines()) == 1


def rows_without_warning(workdir):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        return read_metrics(workdir)


def test_metrics_that_are_lost_come_back_for_the_last_epoch_as_the_checkpoint_holds_it(begun):
    written = read_metrics(begun)
    (begun / METRICS).unlink()
    with pytest.warns(RunWarning, match=r"metrics\.jsonl is gone; 2 of its rows came back from a checkpoint"):
        train(begun)
    assert read_metrics(begun)[:2] == [row for row in written if row["step"] == 50 and row["split"] != "test"]


def test_a_row_is_written_once_however_often_it_was_written_before(workdir):
    path = workdir / METRICS
    before = read_metrics(workdir)
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])
    Metrics(workdir, EPOCHS * STEPS_PER_EPOCH, watched=False)
    assert read_metrics(workdir) == before


def test_metrics_that_lack_their_last_newline_are_continued_on_a_new_line(workdir):
    path, before = workdir / METRICS, read_metrics(workdir)
    path.write_bytes(path.read_bytes()[:-1])
    metrics = Metrics(workdir, EPOCHS * STEPS_PER_EPOCH, watched=False)
    metrics.write(100, 4.0, "train", {"elbo": -2.0})
    assert read_metrics(workdir)[:-1] == before


def newest(workdir):
    folder = workdir / CHECKPOINTS
    return folder / str(checkpoint.steps(folder)[-1])


@pytest.mark.parametrize("name", ["manifest.json", "state/state/_METADATA", "state/commit_success.txt", None])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_run_resumes_from_the_one_before(begun, undisturbed, name):
    path = newest(begun)
    largest = max(path.rglob("*"), key=lambda file: file.stat().st_size * file.is_file())
    damaged = largest if name is None else path / name
    flip(damaged, damaged.stat().st_size // 2)
    kept = damaged.read_bytes()
    with pytest.warns(RunWarning) as caught:
        train(begun, keep_last=EPOCHS)
    (message,) = {str(one.message) for one in caught}
    assert message.startswith(f"checkpoint {path} cannot be trusted: its file {damaged.relative_to(path)} is damaged; ")
    assert message.endswith(f"it is now {path}.damaged, and training does without it")
    assert (path.with_name("50.damaged") / damaged.relative_to(path)).read_bytes() == kept
    assert_same_state(begun, undisturbed)


def assert_same_state(workdir, undisturbed):
    """Also the rows, except for the test row of the two epochs."""
    last = EPOCHS * STEPS_PER_EPOCH
    assert [r for r in rows(workdir) if r["split"] != "test" or r["step"] == last] == rows(undisturbed)
    np.testing.assert_equal(state(workdir).params, state(undisturbed).params)


def test_all_checkpoints_damaged_is_told_and_training_begins_again(begun, undisturbed):
    for step in (25, 50):
        (begun / CHECKPOINTS / str(step) / MANIFEST).write_bytes(b"")
    with pytest.warns(RunWarning, match=r"manifest\.json is damaged; it is now .*\.damaged") as caught:
        train(begun, keep_last=EPOCHS)
    assert len(caught) == 2
    assert_same_state(begun, undisturbed)


def test_a_damaged_old_manifest_does_not_stop_training_and_is_told(begun, undisturbed):
    flip(begun / CHECKPOINTS / "25" / MANIFEST, 30)
    with pytest.warns(RunWarning, match=r"25 cannot be trusted: its file manifest\.json is damaged; it is now"):
        train(begun)
    assert (begun / CHECKPOINTS / "25.damaged").is_dir()
    assert_same_state(begun, undisturbed)


def test_an_evaluation_of_a_damaged_checkpoint_changes_nothing_and_says_how_to_read_another(workdir):
    flip(newest(workdir) / MANIFEST, 30)
    with pytest.raises(checkpoint.DamagedError, match=r"read another with `checkpoint=50` \(there are 25, 50\)"):
        load_run(workdir)
    assert load_run(workdir, 50).step == 50
    assert checkpoint.steps(workdir / CHECKPOINTS) == [25, 50, 75]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("which", ["manifest.json", "_METADATA"])
def test_what_cannot_be_read_is_not_called_damaged_and_stays(begun, monkeypatch, number, which):
    original = checkpoint.Path.open

    def failing(self, *args, **options):
        if self.name == which:
            raise OSError(number, os.strerror(number), str(self))
        return original(self, *args, **options)

    monkeypatch.setattr(checkpoint.Path, "open", failing)
    for read in (lambda: load_run(begun), lambda: train(begun)):
        with pytest.raises(checkpoint.CheckpointError, match=os.strerror(number)) as caught:
            read()
        assert not isinstance(caught.value, checkpoint.DamagedError)
        assert "nothing was changed" in str(caught.value)
        assert "damaged" not in str(caught.value)
    assert checkpoint.steps(begun / CHECKPOINTS) == [25, 50]


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_read_again_as_the_newest(workdir, monkeypatch):
    original, folder = sha256, workdir / CHECKPOINTS
    shutil.copytree(folder / "75", folder.parent / "newest")
    shutil.rmtree(folder / "75")

    def pruned(path):
        if (folder / "50").exists():
            (folder.parent / "newest").rename(folder / "75")
            shutil.rmtree(folder / "50")
        return original(path)

    monkeypatch.setattr(checkpoint, "sha256", pruned)
    assert load_run(workdir).step == 75
    with pytest.raises(RunError, match=r"has no checkpoint 50; use last, best or one of \[25, 75\]"):
        load_run(workdir, 50)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax, when a reading fails
def test_reading_beside_fast_training_never_fails(tmp_path):
    write_config(tmp_path, config())
    tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), start.abstract_state(config()))
    folder, ended = tmp_path / CHECKPOINTS, threading.Event()
    checkpoint.save(folder, 0, tree)

    def training():
        step = 1
        while not ended.is_set():
            shutil.copytree(folder / str(step - 1), folder / f".partial-{step}")
            os.rename(folder / f".partial-{step}", folder / str(step))
            checkpoint.prune(folder, keep_last=2, keep_best=0)
            step += 1
            time.sleep(0.03)  # less than a save takes

    thread = threading.Thread(target=training)
    thread.start()
    try:
        for _ in range(15):
            start.saved_state(tmp_path)
            checkpoint.best_step(folder)
    finally:
        ended.set()
        thread.join()


def test_asyncio_tells_nothing_of_arrays_that_could_not_be_read_and_all_else(workdir, caplog):
    """Which of orbax' tasks it forgets when the first one has failed is a matter of microseconds."""

    async def fail(message):
        raise ValueError(message)

    async def forgetful():
        for message in ("NOT_FOUND: a/zarr.json [tensorstore_spec='{}']", "DATA_LOSS: in OCDBT database", "another"):
            task = asyncio.ensure_future(fail(message))
            await asyncio.wait([task])

    start.saved_state(workdir)
    asyncio.run(forgetful())
    gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["another"]


def test_a_save_that_cannot_be_read_back_is_no_checkpoint(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    original = ocp.save
    monkeypatch.setattr(ocp, "save", lambda path, tree: original(path, tree | {"a": tree["a"] + 1}))
    with pytest.raises(checkpoint.CheckpointError, match=r"\['a'\] is read back with other values"):
        checkpoint.save(tmp_path / "c", 1, {"a": np.zeros(2), "b": np.ones(3)})
    assert checkpoint.steps(tmp_path / "c") == []


@pytest.mark.parametrize("name", ["[x]", "a[1", "a\\b"])
def test_a_folder_whose_checkpoints_could_not_be_read_is_refused_before_training(tmp_path, name):
    with pytest.raises(RunError, match=r"cannot be a run folder: checkpoints cannot be kept below a path with \[ or"):
        train(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a*b", "a?b", "{a}", "a b", "ü", "a]", "100%", "a#b", "a'b", "~a", "a:b"])
def test_other_characters_in_a_path_are_kept(tmp_path, name):
    (tmp_path / name).mkdir()
    checkpoint.save(tmp_path / name / "c", 1, {"a": np.arange(3)})
    np.testing.assert_equal(checkpoint.restore(tmp_path / name / "c", 1, {"a": np.zeros(3, int)})["a"], np.arange(3))


def test_nothing_is_called_saved_of_a_folder_that_was_deleted(tmp_path):
    workdir = tmp_path / "x"

    def delete(progress):
        if progress.epoch_ended:
            shutil.rmtree(workdir)

    with pytest.raises((checkpoint.CheckpointError, RunError), match="cannot be written"):
        train(workdir, report=delete)
    assert not workdir.exists()
    with lock(tmp_path / "y"):
        check_kept(tmp_path / "y")
    with pytest.raises(RunError, match="was deleted or moved while it was in use"), lock(workdir):
        shutil.rmtree(workdir)


def test_a_checkpoint_folder_that_turned_read_only_ends_the_save_and_no_thread_is_left(tmp_path, monkeypatch):
    original = os.mkdir

    def read_only(path, *args, **options):
        if ".partial-" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return original(path, *args, **options)

    monkeypatch.setattr(os, "mkdir", read_only)
    before = set(threading.enumerate())
    with pytest.raises(checkpoint.CheckpointError, match=r"cannot be written \(.*Read-only file system"):
        checkpoint.save(tmp_path / "c", 1, {"a": np.zeros(2)})
    assert {thread for thread in threading.enumerate() if not thread.daemon} <= before


def test_lines_of_older_code_have_no_checksum_and_are_read(tmp_path):
    row = {"step": 1, "epoch": 1.0, "split": "train", "elbo": -3.0}
    (tmp_path / METRICS).write_text(json.dumps(row) + "\n")
    metrics = Metrics(tmp_path, 1, watched=False)
    metrics.write(2, 2.0, "train", {"elbo": -2.0})
    assert [r["elbo"] for r in read_metrics(tmp_path)] == [-3.0, -2.0]
    assert ['"crc32": "' in line for line in (tmp_path / METRICS).read_text().splitlines()] == [False, True]
