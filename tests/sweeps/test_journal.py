"""A study's journal outlives a full disk and a kill at any byte: what was told is kept, and work goes on."""

import builtins
import errno
import os
import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from vae.runs.files import RunError, RunWarning
from vae.sweeps import storage

SPACE = {"a": FloatDistribution(0, 1)}


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


def test_a_flipped_bit_within_a_journal_is_one_line_or_changes_no_more_than_a_value(tmp_path):
    path = tmp_path / "journal"
    tell(storage.open_storage(str(path)), 3)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for position in rng.integers(len(content), size=100):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RunWarning)
            try:
                storage.open_storage(str(path))
            except RunError as error:
                refused.append(str(error))
    assert len(refused) > 20
    assert not [message for message in refused if "\n" in message]
