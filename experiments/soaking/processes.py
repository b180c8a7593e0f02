"""Scripts as processes of their own, forked from one that has imported jax already: they start in a fraction of it."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

HEAVY = [
    "experiments.flags.options",
    "vae.training.fit",
    "vae.evaluation.importance",
    "vae.sweeps.search",
    "vae.figures",
    "orbax.checkpoint",
    "tensorboardX",
]
LONGEST = 180.0  # seconds that a script of a soak may take
POLL = 0.001
# multiprocessing reads an exit code once, also of other processes than that which it starts: one thread at a time.
_ONE_AT_A_TIME = threading.Lock()


class Closed(RuntimeError):
    """The soak ends: nothing is started any more."""


class TooLong(RuntimeError):
    """A script that does not end; one line."""


class Command(NamedTuple):
    """A script's name and its flags."""

    name: str
    flags: Sequence[str]


class Ended(NamedTuple):
    """How a script ended: its exit code (minus the signal if one ended it), and what it printed."""

    code: int | None
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """The lines that tell of something that is lost, damaged or in doubt."""
        lines = [*self.err.splitlines(), *self.out.splitlines()]
        return [line for line in lines if line.startswith(("warning: ", "left out: "))]

    def refusal(self) -> str | None:
        """Why this is not one clear line and exit code 1 (2 for a failed run); None if it is."""
        others = [line for line in self.err.splitlines() if line.strip() and line not in self.told]
        lead = {1: "error: ", 2: "failed: "}.get(self.code or 0)
        if lead is None or len(others) != 1 or not others[0].startswith(lead):
            return f"exit code {self.code}, and on stderr: {self.err.strip()[-1500:]!r}"
        return None


class Process:
    """A running script, its output in files."""

    def __init__(self, process: Any, out: Path, err: Path):
        self._process, self._out, self._err = process, out, err
        self.pid: int = process.pid

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Until it has ended, `seconds` have passed or `until()` holds; whether it still runs."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not (until is not None and until()):
            if connection.wait([self._process.sentinel], left if until is None else POLL):
                return False
        return not connection.wait([self._process.sentinel], 0)

    def send(self, number: int) -> bool:
        """Send a signal; whether it still ran."""
        running = self.wait(0)
        if running:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self.pid, number)
        return running

    def kill(self) -> bool:
        """kill -9; whether it had not ended before."""
        self.send(signal.SIGKILL)
        return self.ended().code == -signal.SIGKILL

    def printed(self, pattern: str) -> list[str]:
        return re.findall(pattern, self._out.read_text())

    def ended(self, seconds: float = LONGEST) -> Ended:
        """How it ends; raises TooLong if it has not done so after `seconds`."""
        if self.wait(seconds):
            self.send(signal.SIGKILL)
            raise TooLong(f"still running after {seconds:g} seconds: {self._out.read_text()[-500:]!r}")
        with _ONE_AT_A_TIME:
            self._process.join()
            return Ended(self._process.exitcode, self._out.read_text(), self._err.read_text())


class Processes:
    """Starts scripts; prepared data, compiled programs and what they print are kept in `home`. A context manager."""

    def __init__(self, home: Path):
        self._home, self._count, self.closed = home, 0, False
        (home / "printed").mkdir(parents=True)
        self._running: list[Process] = []
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # of semaphores of those that were killed
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(HEAVY)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_) -> None:
        self.closed = True
        for process in self._running:
            process.send(signal.SIGKILL)

    def start(self, cwd: Path, command: Command, **environment: str) -> Process:
        """In the folder `cwd`. Raises Closed."""
        name, flags = command
        with _ONE_AT_A_TIME:
            if self.closed:
                raise Closed
            self._count += 1
            out, err = (self._home / "printed" / f"{self._count}.{stream}" for stream in ("out", "err"))
            out.touch()
            err.touch()
            variables = {"VAE_DATA_DIR": str(self._home / "data")} | environment
            argv = [f"experiments/{name}.py", *flags]
            process = self._context.Process(target=as_process, args=(name, argv, cwd, out, err, variables))
            process.start()
            started = Process(process, out, err)
            self._running = [one for one in self._running if one.wait(0)] + [started]
        return started

    def run(self, cwd: Path, command: Command, **environment: str) -> Ended:
        """Start it and wait for its end."""
        return self.start(cwd, command, **environment).ended()


def as_process(name: str, argv: Sequence[str], cwd: Path, out: Path, err: Path, environment: Mapping[str, str]) -> None:
    """What a forked process does: it is the script `name` with the command `argv`."""
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ |= environment
    sys.argv = list(argv)
    try:
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # as at the end of any process but those of multiprocessing: they leave a cluster
