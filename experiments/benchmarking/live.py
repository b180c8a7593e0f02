"""Live processes that do a unit of work when they are told to, by a line on standard input.

They answer in lines of JSON on standard output; any other line is passed over. All but the one that works are stopped
(SIGSTOP), so that what a process does in the background is done in its own time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class NoAnswer(Exception):
    """A process that ended before it told what was asked; the line of its standard error that says why."""


class Live:
    """A process in a group of its own, paused except while it is asked; a context manager that ends it."""

    def __init__(self, command: Sequence[str], errors: Path, environment: Mapping[str, str]):
        self._errors = errors
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, cwd=ROOT,
                env=dict(environment), start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(OSError):
                stream.close()

    def told(self, what: str) -> dict[str, Any]:
        """The next answer that has the entry `what`; raises NoAnswer if there is none."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{") and what in (answer := json.loads(line)):
                return answer
        raise self._ended()

    def done(self) -> None:
        """Wait for its end; raises NoAnswer if it failed."""
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            pass
        if self._process.wait():
            raise self._ended()

    def ready(self) -> dict[str, Any]:
        """What it says of itself once it is compiled and has done a unit that does not count."""
        answer = self.told("ready")
        self._pause()
        return answer

    def unit(self) -> float:
        """Seconds of one unit of its work."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write("unit\n")
            self._process.stdin.flush()
        seconds = self.told("seconds")["seconds"]
        self._pause()
        return seconds

    def held_out(self) -> float | None:
        """The bound on held-out images that it ends with; None of what trains nothing."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.told("held_out")["held_out"]

    def _ended(self) -> NoAnswer:
        code = self._process.wait()
        lines = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|error)\b.*:", line)]
        return NoAnswer([f"it ended with exit code {code}", *lines[-1:], *errors][-1].strip())

    def _pause(self) -> None:
        """Stop it; it runs no more when this returns."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
