"""How a script starts, is asked to stop, and ends."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import traceback
from pathlib import Path

from absl import flags

from experiments.flags.parsing import UsageError, with_dashes
from vae.configuration import ConfigurationError
from vae.sweeps import passwords

FLAGS = flags.FLAGS
DONE, BAD_USE, FAILED, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130  # exit codes


def run(main) -> None:
    """Run a script's `main` and exit with its code; bad use and a failed run are one line, without a traceback.

    No line shows a password of the command.
    """
    from absl import app, logging

    def guarded(argv):
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # orbax describes every save
        if len(argv) > 1:
            sys.exit(shown(f"error: unexpected argument {argv[1]!r}; flags are written --name=value"))
        try:
            code = main()
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = INTERRUPTED
        except BrokenPipeError:  # as in `… | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = STOPPED
        except Exception as error:
            code = exit_code(error)
            if code is None:
                sys.stderr.write(without_passwords(traceback.format_exc()))
                sys.exit(BAD_USE)
            print(shown(f"{'error' if code == BAD_USE else 'failed'}: {error}"), file=sys.stderr)
        sys.exit(code)

    app.run(guarded, flags_parser=parsed)


def parsed(argv: list[str]) -> list[str]:
    """What is left of the command once its flags were read; a mistake in them is told as absl tells it."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        sys.stderr.write(f"FATAL Flags parsing error: {without_passwords(str(error))}\n")
        sys.stderr.write("Pass --helpshort or --helpfull to see help on flags.\n")
        sys.exit(BAD_USE)


def shown(text: str) -> str:
    """`text` in one line, with names as flags, in letters that a terminal only shows: it may name a stranger's file."""
    letters = (c if c.isprintable() else repr(c)[1:-1] for c in without_passwords(with_dashes(text)))
    return "".join(letters)


def without_passwords(text: str) -> str:
    return passwords.hide(passwords.passwords_in(sys.argv), text)


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that its message explains; None of any other."""
    if isinstance(error, UsageError | ConfigurationError | OSError):
        return BAD_USE
    # Imported where something went wrong, not at every start: this takes seconds.
    from vae.datasets import DataError
    from vae.hosts import HostsError
    from vae.judging.groups import ComparisonError
    from vae.models.checks import LikelihoodError
    from vae.models.model import ModelError
    from vae.objectives import ObjectiveError
    from vae.runs.checkpoint import CheckpointError
    from vae.runs.files import RunError
    from vae.training.record import TrainingFailed

    of_a_run = DataError | LikelihoodError | ModelError | ObjectiveError | RunError | CheckpointError
    if isinstance(error, of_a_run | ComparisonError | HostsError):
        return BAD_USE
    if isinstance(error, TrainingFailed):
        return FAILED
    return None


class StopRequest:
    """Ctrl-C and SIGTERM ask the run to save and stop; a second one ends it at once."""

    def __init__(self):
        self._requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def requested(self) -> bool:
        return self._requested

    def _request(self, number, frame) -> None:
        self._requested = True
        signal.signal(number, signal.SIG_DFL)
        # Not print: it cannot be entered again, and may be what was interrupted.
        os.write(2, b"\nsaving and stopping; once more to end at once\n")


class Stopped(Exception):
    """Work that was asked to end early."""


def stopped(workdir: Path, after: str = "") -> int:
    """Print how to resume; the exit code."""
    print(f"stopped{after} and saved; the same command with --workdir={workdir} resumes it")
    print(workdir)
    return STOPPED


def new_workdir(name: str, folder: str = "runs") -> Path:
    """A new folder under `folder`, never one that exists."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = Path(folder) / f"{name}-{now}{suffix}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise UsageError(f"{folder}/ is full of folders of this very second; pass --workdir")
