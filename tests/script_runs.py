"""Scripts, called in this process or as processes of their own, forked from one that has imported jax already."""

import contextlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from experiments.soaking.processes import HEAVY, as_process
from tests import quick, script_calls  # noqa: F401
from tests.script_calls import Result


class Script:
    """A running script, its output in files."""

    def __init__(self, process, out: Path, err: Path):
        self._process, self._out, self._err = process, out, err

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def end(self) -> None:
        """Kill it where it still runs."""
        self._process.kill()
        self._process.join()

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until `text` was printed; fails where the script ends without it."""
        deadline = time.monotonic() + seconds
        while text not in self._out.read_text():
            assert self._process.is_alive(), self._err.read_text()
            assert time.monotonic() < deadline, f"{text!r} was not printed in {seconds} seconds"
            time.sleep(0.002)

    def result(self, seconds: float = 60) -> Result:
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still running after {seconds} seconds"
        return Result(self._process.exitcode, self._out.read_text(), self._err.read_text())


class Scripts:
    """Starts scripts with their prepared data and compiled programs under `home`."""

    def __init__(self, home: Path):
        self._home, self._count = home, 0
        self._environment = {"VAE_DATA_DIR": str(home / "data")}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.whole_programs", "tests.quick", *HEAVY])

    def start(self, cwd: Path, name: str, *flags: str, **environment: str) -> Script:
        """As a process of its own."""
        self._count += 1
        out, err = (self._home / f"{self._count}.{stream}" for stream in ("out", "err"))
        out.touch()
        err.touch()
        argv = [f"experiments/{name}.py", *_undrawn(name, flags)]
        process = self._context.Process(
            target=as_process, args=(name, argv, cwd, out, err, self._environment | environment)
        )
        process.start()
        return Script(process, out, err)

    def call(self, cwd: Path, name: str, *flags: str) -> Result:
        """In this process, where programs that another test has compiled are compiled."""
        return script_calls.call(cwd, name, *_undrawn(name, flags), **self._environment)

    def refusal(self, cwd: Path, name: str, *flags: str) -> str:
        """As `script_calls.refusal`."""
        return script_calls.refusal(cwd, name, *_undrawn(name, flags), **self._environment)


def _undrawn(name: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Figures take longer than the runs of these tests; one test asks for them."""
    return ("--nofigures", *flags) if name == "train" and "--figures" not in flags else flags


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("scripts"))
