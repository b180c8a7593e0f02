"""How a script starts, is asked to stop, and ends."""

from __future__ import annotations

import codecs
import contextlib
import datetime
import io
import logging as python_logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from experiments.command.stopping import SECONDS_OF_ENDING, SIGNALS, STOPPED, Stopped, StopRequest, end_within
from experiments.flags.parsing import UsageError, with_dashes
from vae import durable
from vae.configuration import ConfigurationError
from vae.places import expanded
from vae.runs import archive
from vae.sweeps import passwords

FLAGS = flags.FLAGS
DONE, BAD_USE, FAILED = 0, 1, 2  # exit codes, beside STOPPED
# The exit code of each error that its message explains. By name: to import all of them takes seconds.
ERRORS = {
    "vae.datasets.dataset.DataError": BAD_USE,
    "vae.hosts.HostsError": BAD_USE,
    "vae.judging.groups.ComparisonError": BAD_USE,
    "vae.models.checks.LikelihoodError": BAD_USE,
    "vae.models.memory.TooLarge": BAD_USE,
    "vae.models.model.ModelError": BAD_USE,
    "vae.objectives.objective.ObjectiveError": BAD_USE,
    "vae.runs.files.RunError": BAD_USE,
    "vae.runs.manifest.CheckpointError": BAD_USE,
    "vae.training.record.TrainingFailed": FAILED,
}

Main = Callable[[StopRequest], int]


def run(define_flags: Callable[[], None], main: Main) -> NoReturn:
    """Run a script as this process, and end it with its exit code, within seconds of its last line."""
    open_streams()
    hide_failed_threads()
    code = STOPPED
    for number in SIGNALS:  # before and after StopRequest; Python's own way is an error in whatever runs then
        signal.signal(number, lambda *_: os._exit(code))
    os.environ["MPLBACKEND"] = "agg"  # a notebook's is none of a script's
    define_flags()
    code = call(main, sys.argv)
    end_within(SECONDS_OF_ENDING + seconds_of_others(), code)  # threads of libraries may never end
    sys.exit(code)


def call(main: Main, argv: list[str]) -> int:
    """The exit code of a script's `main` with the command `argv`; its flags are defined already.

    Bad use and a failed run are one line, without a traceback. No line shows a password of the command.
    """
    with StopRequest() as stop:
        try:
            with warnings_as_lines():
                code = _guarded(main, argv, stop)
            sys.stdout.flush()
        except Stopped:
            code = told_to_stop(stop)
        except BrokenPipeError:  # as in `… | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = STOPPED
    return code


def _guarded(main: Main, argv: list[str], stop: StopRequest) -> int:
    def with_flags(rest: list[str]) -> int:
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # orbax describes every save
        if len(rest) > 1:
            raise UsageError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
        return main(stop)

    try:
        app.run(with_flags, argv=argv, flags_parser=parsed)
    except SystemExit as ended:  # app.run ends with it, and --help
        return int(ended.code or 0)
    except BrokenPipeError:
        raise
    except Exception as error:
        code = exit_code(error)
        if code is None and stop.asked:  # a library's own error, for want of what was stopped
            raise Stopped from error
        if code is None:
            sys.stderr.write(without_passwords(traceback.format_exc()))
            return BAD_USE
        print(shown(f"{'error' if code == BAD_USE else 'failed'}: {error}"), file=sys.stderr)
        return code
    raise AssertionError("app.run returned")


def open_streams() -> None:
    """Make standard output and error what any text can be printed to, also if they are closed or not UTF-8."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed, as by >&-; the next file that is opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    codecs.register_error("shown", _replaced)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="shown", line_buffering=True)  # a line is seen when it is written


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes of a path that is not UTF-8 as they are; a question mark for a letter that the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    is_byte = "\udc80" <= letter <= "\udcff"
    return bytes([ord(letter) - 0xDC00]) if is_byte else "?", error.start + 1


def seconds_of_others() -> float:
    """How long this process, at its end, waits for the others that it joined."""
    from vae import hosts

    return hosts.SHUTDOWN_SECONDS if hosts.num_processes() > 1 else 0.0


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Each RunWarning is a line on stderr, once."""
    from vae.runs.files import RunWarning

    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message, category, *where, **options):
            if issubclass(category, RunWarning):
                print(shown(f"warning: {message}"), file=sys.stderr)
            else:
                show_others(message, category, *where, **options)

        warnings.showwarning = show
        warnings.simplefilter("once", RunWarning)
        yield


def hide_failed_threads() -> None:
    """If the disk fails, orbax and tensorboardX raise that; no line that their threads and exit handlers fail later."""

    def is_of_a_failed_disk(error, owner) -> bool:
        of_tensorboard = str(getattr(owner, "__module__", "")).startswith("tensorboardX")
        return str(error) == "Event loop is closed" or (of_tensorboard and isinstance(error, OSError))

    def show_ignored(found):
        if not is_of_a_failed_disk(found.exc_value, found.object):
            sys.__unraisablehook__(found)

    def show_of_thread(found):
        if not is_of_a_failed_disk(found.exc_value, type(found.thread)):
            threading.__excepthook__(found)

    sys.unraisablehook, threading.excepthook = show_ignored, show_of_thread
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)


def parsed(argv: list[str]) -> list[str]:
    """What is left of the command once its flags were read; a mistake in them is told as absl tells it."""
    try:
        rest = FLAGS(argv)
        check_given()
        return rest
    except SystemExit:  # help was asked for, and given
        sys.exit(DONE)
    except (flags.Error, ValueError) as error:  # ValueError: --noflag=value
        if isinstance(error, UsageError):
            raise
        sys.stderr.write(f"FATAL Flags parsing error: {without_passwords(str(error))}\n")
        sys.stderr.write("Pass --helpshort or --helpfull to see help on flags.\n")
        sys.exit(BAD_USE)


def check_given() -> None:
    """Raises UsageError for a flag that is given without a value."""
    for name in FLAGS:
        flag = FLAGS[name]
        items = flag.value if isinstance(flag.value, list) else [flag.value]
        if flag.present and (not items or "" in items):
            raise UsageError(f"--{name} is given without a value, or with an empty one; write --{name}=value")


def shown(text: str) -> str:
    """`text` in one line, with names as flags, in letters that a terminal only shows: it may name a stranger's file."""
    letters = (c if c.isprintable() else repr(c)[1:-1] for c in without_passwords(with_dashes(text)))
    return "".join(letters)


def without_passwords(text: str) -> str:
    return passwords.hide(passwords.passwords_in(sys.argv), text)


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that its message explains; None of any other."""
    if isinstance(error, UsageError | ConfigurationError | OSError | MemoryError):
        return BAD_USE
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((ERRORS[name] for name in names if name in ERRORS), None)


def told_to_stop(stop: StopRequest) -> int:
    """Print how to resume after a stop; the exit code."""
    print(f"stopped{' and saved' if stop.file else ''}; {stop.how_to_resume()}")
    if stop.file:
        print(stop.file.parent)
    sys.stdout.flush()
    return STOPPED


def given_workdir(text: str | None) -> Path | None:
    """The folder that --workdir names, which need not exist; raises UsageError if nothing can be written there.

    None if it is not given: then a new one is made in the working folder, which must be writable.
    """
    path = expanded(text or ".")
    nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
    reason = None
    if "[" in str(path.absolute()):
        reason = "tensorstore, which writes the checkpoints, takes a path with [ for a pattern"
    elif not _is_utf8(str(path.absolute())):
        reason = "its name is not UTF-8"
    elif archive.is_packed(path):
        reason = f"it is a packed run, which is only read; unpack it with experiments.runs --unpack={path}"
    elif not nearest.is_dir():
        reason = f"{nearest} is no folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"{nearest} cannot be written to"
    if reason is not None:
        raise UsageError(f"{path} cannot be a run folder: {reason}; choose another --workdir")
    return path if text else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def new_workdir(name: str, folder: str = "runs") -> Path:
    """A new folder under `folder`, never one that exists."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = Path(folder) / f"{name}-{now}{suffix}"
        try:
            durable.make_folder(path, new=True)
            return path
        except FileExistsError:
            continue
    raise UsageError(f"{folder}/ is full of folders of this very second; pass --workdir")
