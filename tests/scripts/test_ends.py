"""How the process of a script ends: in time, with its exit code, and with a line that is true."""

import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.command import script, stopping
from tests.script_runs import scripts

__all__ = ["scripts"]

ROOT = Path(__file__).parents[2]
SMALL = ("--preset=digits", "--hidden_sizes=16", "--workdir=x")
LONG = (*SMALL, "--epochs=100000")
AXES = ("--sweep=seed=0:2", "--nofigures")
SEARCH = ("--search=random", "--trials=4", "--population=2", "--sweep=learning_rate=log:1e-4:1e-2", "--nofigures")
OBJECTIVES = ("--objectives=elbo elbo:learning_rate=2e-3", "--seeds=1")
SECONDS = 10.0  # the most that an end may take
QUICK = "stopping.SECONDS = script.SECONDS_OF_ENDING = 0.5; "  # in the body of `HOLDING`

# A script whose threads and handlers outlast it, as those of a library may.
HOLDING = """
import atexit, hashlib, signal, sys, threading, time
from experiments.command import script, stopping
from experiments.flags.parsing import UsageError

def main(stop):
    threading.Thread(target=time.sleep, args=(600,)).start()
    atexit.register(time.sleep, 600)
    print("begun", flush=True)
    {body}

script.run(lambda: None, main)
"""
WAITING = "time.sleep(600)"
COMPILING = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # as XLA's compiler: hears nothing, lets threads run


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float  # since the last signal, or since it began


def end_all(cwd: Path, bodies: list[str], *signals: tuple[float, int]) -> list[Ended]:
    """Scripts that do this, all at once; after so many seconds they get signals."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDING.format(body=body)],
            cwd=cwd,
            env=environment,
            text=True,
            stdout=pipe,
            stderr=pipe,
        )
        for body in bodies
    ]
    for process in processes:
        assert process.stdout.readline() == "begun\n"
    began = time.monotonic()
    for seconds, number in signals:
        time.sleep(seconds)
        assert all(process.poll() is None for process in processes)
        began = time.monotonic()
        for process in processes:
            process.send_signal(number)
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=60)
            found.append(Ended(process.returncode, out, err, time.monotonic() - began))
    finally:
        for process in processes:
            process.kill()
    return found


def test_a_process_ends_whatever_threads_of_libraries_wait_for(tmp_path):
    ends = {
        "raise UsageError('no such thing')": (1, "error: no such thing\n"),
        "raise OSError('disk full')": (1, "error: disk full\n"),
        "1 / 0": (1, "ZeroDivisionError: division by zero\n"),
        "return 0": (0, ""),
    }
    for ended, (code, line) in zip(end_all(tmp_path, [QUICK + body for body in ends]), ends.values(), strict=True):
        assert ended.code == code
        assert ended.err.endswith(line)
        assert ended.seconds < SECONDS


def test_a_signal_ends_what_has_nothing_to_save(tmp_path):
    for ended in end_all(tmp_path, [QUICK + WAITING, QUICK + COMPILING], (0.2, signal.SIGTERM)):
        assert ended.code == 75
        assert ended.err == "\nstopping; once more to end at once\n"
        assert "the same command starts again" in ended.out
        assert ended.seconds < SECONDS


@pytest.mark.parametrize(("name", "code"), script.ERRORS.items())
def test_an_error_is_known_by_the_name_of_its_class_and_so_is_one_of_its_kind(name, code):
    kind = pkgutil.resolve_name(name)
    assert script.exit_code(kind("why")) == code
    assert script.exit_code(type("Other", (kind,), {})("why")) == code
    assert script.exit_code(kind.__mro__[1]("why")) is None


def test_what_does_not_come_to_its_end_is_left_within_ten_seconds():
    assert stopping.SECONDS + stopping.SECONDS_OF_LEAVING < SECONDS
    assert stopping.SECONDS_OF_ENDING < SECONDS


def test_a_second_signal_ends_at_once(tmp_path):
    """With the code that was decided already, if there is one."""
    ends = end_all(tmp_path, [WAITING, COMPILING], (0.2, signal.SIGTERM), (0.5, signal.SIGTERM))
    assert [ended.code for ended in ends] == [stopping.STOPPED, 128 + signal.SIGTERM]
    assert all(ended.seconds < 2 for ended in ends)


def test_a_signal_after_the_last_line_ends_at_once_with_the_same_code_and_no_word(tmp_path):
    (ended,) = end_all(tmp_path, ["atexit.register(signal.raise_signal, signal.SIGINT); return 2"])
    assert (ended.code, ended.out, ended.err) == (2, "", "")


class Asking:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def finalized() -> threading.Event:
    one = threading.Event()
    weakref.finalize(one, signal.raise_signal, signal.SIGTERM)
    return one


@pytest.mark.parametrize(("asks", "made"), [("import asking", dict), ("del one", Asking), ("del one", finalized)])
def test_a_request_waits_until_an_error_can_be_heard(tmp_path, monkeypatch, capfd, asks, made):
    """An error in an import may crash a module of C++, and one in a finalizer is printed and forgotten."""
    (tmp_path / "asking.py").write_text("import signal; signal.raise_signal(signal.SIGTERM); print('whole')")
    monkeypatch.syspath_prepend(tmp_path)

    def ask():
        exec(asks, {"one": made()})
        time.sleep(SECONDS)

    with stopping.StopRequest() as stop, pytest.raises(stopping.Stopped):
        ask()
    assert stop.asked
    out, err = capfd.readouterr()
    assert out == ("whole\n" if "import" in asks else "")
    assert err == "\nstopping; once more to end at once\n"


@pytest.mark.parametrize(
    ("name", "flags", "moment", "seconds", "number"),
    [
        ("train", LONG, "model: ", 0.0, signal.SIGTERM),  # programs are compiled
        ("sweep", (*LONG, *AXES), "2 runs as", 0.0, signal.SIGTERM),
        ("sweep", (*LONG, *SEARCH), "search for ", 0.0, signal.SIGTERM),
        ("compare", (*LONG, *OBJECTIVES), "epoch 1/100000 of 2 runs", 0.0, signal.SIGINT),
        ("compare", (*SMALL, *OBJECTIVES, "--epochs=1", "--evaluation_samples=1000000"), "evaluating: ", 0.3,
         signal.SIGTERM),
    ],
)  # fmt: skip
def test_a_signal_saves_within_ten_seconds(scripts, tmp_path, name, flags, moment, seconds, number):
    process = scripts.start(tmp_path, name, *flags)
    process.wait_for(moment)
    time.sleep(seconds)
    process.send(number)
    began = time.monotonic()
    code, out, err = process.result()
    assert time.monotonic() - began < SECONDS
    assert code == 75, err
    *_, how, folder = out.splitlines()
    assert how.endswith("the same command with --workdir=x resumes it")
    assert folder == "x"


def test_a_run_whose_folder_vanished_says_so_and_ends(scripts, tmp_path):
    process = scripts.start(tmp_path, "train", *LONG)
    process.wait_for("epoch 2/")
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    began = time.monotonic()
    code, out, err = process.result()
    assert time.monotonic() - began < SECONDS
    assert code == 2
    assert "saved" not in out
    assert err.startswith("failed: x/config.json is gone: its folder was deleted or moved during training, and nothing")
    assert err.count("\n") == 1


def test_a_run_whose_folder_vanished_is_not_called_saved_when_it_is_stopped(scripts, tmp_path):
    process = scripts.start(tmp_path, "train", *LONG)
    process.wait_for("epoch 2/")
    shutil.move(tmp_path / "x", tmp_path / "y")
    process.send(signal.SIGTERM)
    code, out, err = process.result()
    assert code == 2
    assert "saved" not in out
    assert "failed: x/config.json is gone" in err


def test_timeout_of_the_shell_saves(scripts, tmp_path):
    """It sends its signal twice: to the process and to its group."""
    path = str(ROOT / "experiments" / "train.py")
    environment = os.environ | {"VAE_DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(
        ["timeout", "--preserve-status", "3", sys.executable, path, *LONG],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 75, ended.stderr
    assert "resumes it" in ended.stdout or "starts again" in ended.stdout
