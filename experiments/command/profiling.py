"""--profile: a trace of a few training steps after compilation, which TensorBoard and Perfetto open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError

if TYPE_CHECKING:
    from vae.runs.config import Config

FOLDER = "profile"  # in the folder of a run or a sweep
# The first call of the compiled program compiles; the two after it are traced: one step, and up to eight.
FIRST_CALL, LAST_CALL = 1, 3


def check(flags: Flags) -> None:
    """Raises UsageError for --profile with what it cannot trace."""
    if flags.values["profile"] and flags.values["distributed"]:
        raise UsageError("--profile traces a single process; leave out --profile or --distributed")


def check_steps_left(flags: Flags, workdir: Path | None, config: Config) -> None:
    """Raises UsageError for --profile of a run that is finished."""
    from vae.runs.metrics import read_metrics
    from vae.runs.standing import standing

    if flags.values["profile"] and workdir is not None and standing(workdir, config, read_metrics(workdir)).finished:
        more = "--patience" if config.patience else "--epochs"
        raise UsageError(f"--profile traces steps, and the run in {workdir} is finished; raise {more}")


class Profile:
    """Traces training, whose `report` it watches: a context manager, which prints where the trace is.

    `workdir`: of the run or the sweep. Unless --profile is among the `flags`, nothing is traced.
    """

    def __init__(self, flags: Flags, workdir: Path):
        self._folder = workdir / FOLDER if flags.values["profile"] else None
        self._calls, self._tracing = 0, False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_) -> None:
        self._stop()
        if self._folder is not None and self._calls <= FIRST_CALL:
            print("no profile: no step was left to take after compilation; profile a run with more steps to take")

    def watching(self, report: Callable[[Any], None]) -> Callable[[Any], None]:
        """`report`, which is called after every call of the compiled program."""
        if self._folder is None:
            return report

        def watched(progress: Any) -> None:
            report(progress)
            self._calls += 1
            if self._calls == FIRST_CALL:
                self._start()
            elif self._calls == LAST_CALL:
                self._stop()

        return watched

    def _start(self) -> None:
        import jax

        jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        self._tracing = True

    def _stop(self) -> None:
        if not self._tracing or self._folder is None:
            return
        import jax

        self._tracing = False
        jax.profiler.stop_trace()
        if self._calls > FIRST_CALL:
            newest = max(self._folder.rglob("perfetto_trace.json.gz"))
            print(f"profile: {newest}  (for https://ui.perfetto.dev; or tensorboard --logdir={self._folder})")
