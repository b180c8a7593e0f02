"""What hosts.agreed sends: JSON, which no process runs; errors arrive as they were raised. In one process."""

import json
import pickle

import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments.command.script import exit_code
from experiments.flags.parsing import UsageError
from tests.audit import audited
from vae import hosts
from vae.runs.checkpoint import CheckpointError
from vae.runs.files import RunError
from vae.training.record import TrainingFailed


@pytest.fixture
def processes(monkeypatch):
    """A function that lets process 0 agree on what `decide` does, and gives what process 1 gets, and the bytes sent."""
    sent = []

    def agree(decide, tamper=lambda content: content):
        sent.clear()
        monkeypatch.setattr(hosts, "num_processes", lambda: 2)
        monkeypatch.setattr(hosts, "is_first", lambda: True)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda x: sent.append(np.array(x)) or sent[-1])
        try:
            first = hosts.agreed(decide)
        except Exception as error:
            first = error
        content = tamper(sent[1].tobytes()[: int(sent[0])])
        answers = iter([np.int32(len(content)), np.frombuffer(content, np.uint8)])
        monkeypatch.setattr(hosts, "is_first", lambda: False)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda x: next(answers))
        try:
            return first, hosts.agreed(decide), content
        except Exception as error:
            return first, error, content

    return agree


def raising(error):
    def decide():
        raise error

    return decide


@pytest.mark.parametrize("value", [None, True, 0.1 + 0.2, "x" * 5000, [1, "ü"], {"by": {"0": [float("inf")]}}])
def test_what_is_agreed_is_sent_as_json_and_arrives_bit_by_bit(processes, value):
    first, other, content = processes(lambda: value)
    assert first == other == json.loads(content)["value"] == value


@pytest.mark.parametrize("kind", [RunError, CheckpointError, UsageError, TrainingFailed])
def test_an_error_for_the_user_is_the_same_on_every_process(processes, kind):
    first, other, _ = processes(raising(kind("one line: ü")))
    assert type(first) is type(other) is kind
    assert str(first) == str(other) == "one line: ü"


def test_an_error_of_the_system_ends_each_process_with_the_same_line(processes):
    first, other, _ = processes(raising(FileNotFoundError(2, "No such file", "x")))
    assert type(first) is FileNotFoundError
    assert type(other) is OSError
    assert str(first) == str(other)
    assert exit_code(first) == exit_code(other) == 1


def test_an_unknown_error_stays_an_error_with_its_text(processes):
    first, other, _ = processes(raising(ZeroDivisionError("by nothing")))
    assert type(first) is ZeroDivisionError  # with its traceback
    assert type(other) is hosts.HostsError
    assert str(other) == "process 0 failed: ZeroDivisionError: by nothing"
    assert isinstance(processes(lambda: object())[1], hosts.HostsError)  # no JSON


def test_nothing_that_arrives_is_unpickled(processes):
    with audited() as found:
        _, other, _ = processes(lambda: 1, tamper=lambda content: pickle.dumps(print))
    assert isinstance(other, ValueError)
    assert not found
