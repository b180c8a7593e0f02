"""A study's journal outlives a full disk and a kill at any byte: what was told is kept, and work goes on."""

import builtins
import contextlib
import errno
import json
import math
import os
import re
import warnings

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.datasets.test_fuzz import CHANGES, VALUES, damaged, few, replaced
from vae.runs import fingerprint
from vae.runs.files import RunError, RunWarning
from vae.sweeps import outcome, samplers, space, storage, study
from vae.sweeps.space import Range

SPACE: samplers.Space = {"a": FloatDistribution(0, 1)}


def tell(opened, number: int) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(0)
    made = optuna.create_study(
        storage=opened, study_name="s", direction="maximize", load_if_exists=True, sampler=sampler
    )
    for _ in range(number):
        trial = made.ask(SPACE)
        made.tell(trial, trial.params["a"])
    return made


@pytest.mark.parametrize("cut", [1, 2, 30, 10_000])
def test_a_journal_that_ends_within_a_line_goes_on_without_it(tmp_path, cut):
    path = tmp_path / "journal"
    tell(storage.open_storage(str(path)), 3)
    content = path.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    left = content[: max(last + 1, len(content) - cut)]
    path.write_bytes(left)
    with pytest.warns(RunWarning, match=r"journal ended within a line, which is now in .*journal\.damaged"):
        opened = storage.open_storage(str(path))
    assert path.read_bytes() == content[:last]
    assert (tmp_path / "journal.damaged").read_bytes() == left[last:] + b"\n"
    tell(opened, 2)
    again = tell(storage.open_storage(str(path)), 0)
    assert sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in again.trials) == 4  # 3 - 1 that was cut + 2


def test_a_disk_that_is_full_within_an_append_costs_that_line_alone(tmp_path, monkeypatch):
    """Also for the workers that have the journal open."""
    path = tmp_path / "journal"
    here, elsewhere = (storage.open_storage(str(path)) for _ in range(2))
    tell(here, 2)
    tell(elsewhere, 1)
    original = builtins.open

    def full(file, mode="r", *args, **options):
        opened = original(file, mode, *args, **options)
        if str(file) == str(path) and mode == "ab":

            class Half:
                def __enter__(self):
                    return self

                def __exit__(self, *what):
                    opened.close()

                def write(self, content):
                    opened.write(content[: len(content) // 2])
                    opened.flush()
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Half()
        return opened

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", full)
        with pytest.raises(OSError, match="No space left"):
            tell(here, 1)
    assert not path.read_bytes().endswith(b"\n")
    with pytest.warns(RunWarning, match="ended within a line"):
        tell(elsewhere, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tell(storage.open_storage(str(path)), 0).trials) == 4


def believed(opened: optuna.storages.BaseStorage) -> str:
    studies = [(one.study_name, one.directions, one.user_attrs) for one in opened.get_all_studies()]
    return f"{studies} {[opened.get_all_trials(one._study_id) for one in opened.get_all_studies()]}"


def test_a_flipped_bit_of_a_journal_is_one_line_or_changes_nothing(tmp_path):
    path = tmp_path / "journal"
    opened = storage.open_storage(str(path))
    tell(opened, 1).set_user_attr("asked", {"é": -math.inf, "1": [0.1, None]})
    content, whole = path.read_bytes(), believed(opened)
    refused: list[str] = []
    told = 0
    for bit in range(0, 8 * len(content), 97):
        path.write_bytes(flipped(content, bit))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = believed(storage.open_storage(str(path)))
            except RunError as error:
                refused.append(str(error))
                continue
        told += len(caught)
        assert caught or found == whole, f"bit {bit % 8} of byte {bit // 8}"
    assert min(told, len(refused)) > 5
    assert not [message for message in refused if "\n" in message]


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_no_flipped_bit_of_a_line_changes_what_is_believed_of_it(tmp_path):
    path = tmp_path / "journal"
    tell(storage.open_storage(str(path)), 1)
    for line in path.read_bytes().splitlines():
        log = json.loads(line)
        del log["crc32"]
        for bit in range(8 * len(line)):
            for part in flipped(line, bit).split(b"\n"):
                assert not storage._is_intact(part) or json.loads(part) | log == json.loads(part)


def test_another_value_of_a_trial_is_named_by_its_line(tmp_path):
    path = tmp_path / "journal"
    tell(storage.open_storage(str(path)), 2)
    lines = path.read_bytes().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines, 1) if b'"values":[0.5' in line)
    path.write_bytes(b"".join(lines).replace(b'"values":[0.5', b'"values":[0.7'))
    with pytest.raises(RunError, match=rf"is damaged \(line {number} has another checksum than when it was written\)"):
        storage.open_storage(str(path))


def unchecked(content: bytes) -> bytes:
    """A journal as Optuna and older code write it."""
    return re.sub(rb',"crc32":"[0-9a-f]{8}"', b"", content)


def test_journals_with_and_without_checksums_are_read_alike_here_and_by_optuna(tmp_path, journal):
    path = tmp_path / "journal"
    found = []
    for content in (journal, unchecked(journal)):
        path.write_bytes(content)
        found += [believed(storage.open_storage(str(path))), believed(JournalStorage(JournalFileBackend(str(path))))]
    assert len(unchecked(journal)) < len(journal)
    assert found == found[:1] * 4
    tell(storage.open_storage(str(path)), 1)
    assert path.read_bytes().count(b"crc32") == 4
    assert believed(storage.open_storage(str(path))) == believed(JournalStorage(JournalFileBackend(str(path))))


IMAGES = {split: {"count": 3, "sha256": "a3", "labels": None} for split in fingerprint.SPLITS}
ASKED = {"--search": "tpe", "--dataset": "a", study.IMAGES: IMAGES}
IDENTITY = study.WorkerId("a", "/none/x", "here")
SPEC = samplers.Spec(SPACE, "tpe", "median", "bound", population=2, epochs=3, seeds=(0,))


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> bytes:
    """Of a study of three trials: one told, one pruned, one in training."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    opened = storage.open_storage(str(path))
    study.join(opened, "s", ASKED)
    worker = study.StudyWorker(opened, "s", IDENTITY, ASKED, 3)
    asked = worker.ask(3, SPACE, lambda number: samplers.sampler(SPEC, number), samplers.pruner("median", 3))
    for trial in worker.trials():
        worker.start(trial)
    for number, state in zip(asked, (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED), strict=False):
        trial = worker.trial(worker.study(), number)
        trial.report(-90.5, 1)
        trial.set_user_attr(study.RUN, f"{number:03}")
        worker.study().tell(number, -90.5 if state == optuna.trial.TrialState.COMPLETE else None, state)
    return path.read_bytes()


def searched(path) -> None:
    """All that experiments.sweep reads of a study: only RunError may come out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = storage.open_storage(str(path))
        study.join(opened, "s", ASKED)
        worker = study.StudyWorker(opened, "s", IDENTITY, ASKED, 5)
        worker.free_the_dead(SPACE)
        if worker.num_left() > 0:
            worker.ask(1, SPACE, lambda number: samplers.sampler(SPEC, number), samplers.pruner("median", 3))
        found = outcome.outcome(worker.trials(), SPACE)
        for trial in found.finished:
            outcome.folder_of(trial, path.parent, "a")
            space.point_of([Range("a", 0.0, 1.0)], trial.params)


def test_a_damaged_journal_is_an_error_of_the_run(tmp_path, journal):
    @few
    @given(st.sampled_from([journal, unchecked(journal)]), CHANGES)
    def check(content, changes):
        (tmp_path / "journal").write_bytes(damaged(content, changes))
        with contextlib.suppress(RunError):
            searched(tmp_path / "journal")

    (tmp_path / "journal").write_bytes(journal)
    searched(tmp_path / "journal")
    check()


LINES = st.one_of(
    st.tuples(st.just("value"), st.lists(st.integers(0, 100), min_size=1, max_size=3), VALUES),
    st.tuples(st.just("line"), st.none(), VALUES),
    st.tuples(st.just("lost"), st.none(), st.none()),
    st.tuples(st.just("twice"), st.none(), st.none()),
)


def test_lines_of_a_journal_that_are_a_strangers_are_an_error_of_the_run(tmp_path, journal):
    @few
    @given(st.lists(st.tuples(st.integers(0, 100), LINES), min_size=1, max_size=3))
    def check(changes):
        lines = [json.loads(line) for line in unchecked(journal).splitlines()]
        for place, (kind, path, new) in changes:
            at = place % len(lines)
            if kind == "value":
                lines[at] = replaced(lines[at], path, new)
            elif kind == "line":
                lines.insert(at, new)
            elif kind == "twice":
                lines.insert(at, lines[at])
            elif len(lines) > 1:
                del lines[at]
        content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (tmp_path / "journal").write_text(content)
        with contextlib.suppress(RunError):
            searched(tmp_path / "journal")

    check()
