"""Whole commands: a sweep from its start to its end, and training from its start to its first step; cold and warm.

Cold: without a compiled program on the disk. Warm: the same command once more.
"""

from __future__ import annotations

import contextlib
import csv
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarking.live import ROOT, Live, NoAnswer
from experiments.benchmarking.works import SWEEP

STATES = ("cold", "warm")


def environment(compiled: str | os.PathLike | None = None) -> dict[str, str]:
    """Of a command, with its compiled programs in the folder `compiled`, whichever library makes them."""
    if compiled is None:
        return dict(os.environ)
    caches = {"JAX_COMPILATION_CACHE_DIR": f"{compiled}/jax", "TORCHINDUCTOR_CACHE_DIR": f"{compiled}/torch"}
    return os.environ | caches | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def start_of_ours(flags: Sequence[str], compiled: str) -> float:
    """Seconds until experiments.train shows its first step on a terminal."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.train", f"--workdir={folder}/run", *flags]
        screen, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 120))  # on one without columns nothing is shown
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal, cwd=ROOT,
            env=environment(compiled), start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        try:
            return _seen(screen, b"epoch ") - began
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(screen)


def _seen(screen: int, text: bytes) -> float:
    """When a terminal shows `text`; raises NoAnswer with its last line if it never does."""
    shown = b""
    while text not in shown:
        try:
            more = os.read(screen, 4096)
        except OSError:  # of a terminal that nothing writes to any more
            more = b""
        if not more:
            lines = shown.decode(errors="replace").split("\n")
            raise NoAnswer(next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a line"))
        shown += more
    return time.perf_counter()


def start_of_peer(command: Sequence[str], compiled: str) -> tuple[float, dict[str, Any]]:
    """Seconds until a peer's script says that its first step is done, and what it says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Live(command, Path(folder) / "errors", environment(compiled)) as process:
            answer = process.told("first_step")
            return time.perf_counter() - began, answer


def sweep_of_ours(flags: Sequence[str], compiled: str) -> tuple[float, float]:
    """Seconds of experiments.sweep, and the test bound of the run with the best validation bound."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.sweep", f"--workdir={folder}/sweep", *SWEEP, *flags]
        began = time.perf_counter()
        with Live(command, Path(folder) / "errors", environment(compiled)) as process:
            process.done()
        seconds = time.perf_counter() - began
        with open(f"{folder}/sweep/results.csv") as file:
            rows = [row for row in csv.DictReader(file) if row["status"] == "finished"]
    best = max(rows, key=lambda row: float(row["validation_elbo"]))
    return seconds, float(best["test_elbo"])


def sweep_of_peer(command: Sequence[str], compiled: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a peer's sweep, and what it says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Live(command, Path(folder) / "errors", environment(compiled)) as process:
            answer = process.told("held_out")
            process.done()
            return time.perf_counter() - began, answer
