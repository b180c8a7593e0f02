"""How a script is asked to stop by Ctrl-C or SIGTERM, and how it ends in time.

A script ends with exit code 75 within about 10 seconds of the first signal, and at once with a second one.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

STOPPED = 75  # exit code
SIGNALS = signal.SIGINT, signal.SIGTERM
NOT_NOW = "_xla_gc_callback", "__del__"  # functions whose errors Python prints and forgets, as all in weakref.py
SECONDS_OF_WAITING = 0.02  # until it is seen whether they have ended
SECONDS = 8.0  # until work that does not come to its end is left as it is
SAME = 0.2  # seconds in which a second signal is the first one, once more: timeout(1) sends it twice
SECONDS_OF_LEAVING = 1.0  # in which the last lines of such work are printed
SECONDS_OF_ENDING = 3.0  # until a process ends, after its last line
SECONDS_OF_DELETING = 1.0  # in which a folder that another process deletes loses its last file


class Stopped(KeyboardInterrupt):
    """A script was asked to stop, and has nothing more to save."""


class StopRequest:
    """Hears Ctrl-C and SIGTERM; a context manager, after which the signals do again what they did before.

    While `polled`, training hears of a request from `requested`, saves and returns. Elsewhere nothing is to be saved,
    and Stopped is raised. A thread of its own sees to the time: the main thread may be in the compiler for minutes.
    `file`: what the same command resumes from, once it was written.
    """

    def __init__(self):
        self.file: Path | None = None
        self.asked = self._polled = self._heard = self._raised = False

    def __enter__(self) -> StopRequest:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._ask) for number in (*SIGNALS, signal.SIGALRM)}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._write)

    @contextlib.contextmanager
    def polled(self) -> Iterator[None]:
        """While training polls `requested`; then raises Stopped if asked to, TrainingFailed as `requested`."""
        self._polled = True
        try:
            yield
            self._check_folder()
            if self.asked:
                raise Stopped
        except Exception:
            self._check_folder(SECONDS_OF_DELETING)  # the reason for any other error
            raise
        finally:
            self._polled = False

    def requested(self) -> bool:
        """Whether to save and return now. Raises TrainingFailed if the folder has vanished meanwhile."""
        self._check_folder()
        self._heard = self._heard or self.asked
        return self.asked

    def how_to_resume(self) -> str:
        """What to do after a stop, for the user."""
        with_folder = f" with --workdir={shlex.quote(str(self.file.parent))}" if self.file else ""
        return f"the same command{with_folder} {'resumes it' if self.file else 'starts again'}"

    def _check_folder(self, patience: float = 0.0) -> None:
        from vae import hosts
        from vae.training.record import TrainingFailed

        if self.file is not None and hosts.is_first() and _is_gone(self.file, patience):
            raise TrainingFailed(
                f"{self.file} is gone: its folder was deleted or moved during training, and nothing more is saved; "
                "put the folder back and resume it, or start again"
            )

    def _ask(self, number, frame) -> None:
        self.asked = True
        if self._polled or self._raised:
            return
        if _can_raise(frame):
            self._raised = True
            raise Stopped
        signal.setitimer(signal.ITIMER_REAL, SECONDS_OF_WAITING)

    def _watch(self) -> None:
        """Hear the signals as they arrive, whatever the main thread does."""
        began = None
        while True:
            if began is None or select.select([self._read], [], [], 0.05)[0]:
                heard = os.read(self._read, 1)
                if not heard:  # the script has ended
                    os.close(self._read)
                    return
                if heard[0] not in SIGNALS:
                    continue
                if began is None:
                    began = time.monotonic()
                    told = "saving and stopping" if self._polled else "stopping"
                    # Not print: it may be what was interrupted.
                    os.write(2, f"\n{told}; once more to end at once\n".encode())
                elif time.monotonic() - began > SAME:
                    os._exit(128 + heard[0])
            # A save that has begun takes the time that it needs.
            if not self._heard and time.monotonic() - began > SECONDS:
                self._leave()

    def _leave(self) -> NoReturn:
        end_within(SECONDS_OF_LEAVING, STOPPED)
        print(f"stopped in the middle of its work; what was saved before is whole, and {self.how_to_resume()}")
        if self.file:
            print(self.file.parent)
        sys.stdout.flush()
        os._exit(STOPPED)


def _can_raise(frame: FrameType | None) -> bool:
    """Whether an error that is raised in `frame` gets out of it. A module of C++ may crash if its import fails."""
    while frame is not None:
        code = frame.f_code
        if code.co_name in NOT_NOW or code.co_filename.startswith(("<frozen importlib", weakref.__file__)):
            return False
        frame = frame.f_back
    return True


def _is_gone(path: Path, patience: float) -> bool:
    """Whether there is no such file, now or within `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # a file system that does not answer now
            return False
        if time.monotonic() >= until:
            return False
        time.sleep(0.02)


def end_within(seconds: float, code: int) -> None:
    """End this process with exit code `code` after `seconds`, whatever its other threads wait for."""
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()
