"""The run folder: the names of what is in it, and the lock that one process holds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vae import durable, hosts
from vae.runs.files import RunError

CONFIG, METRICS, EVALUATION, CHECKPOINTS, FIGURES = (
    "config.json",
    "metrics.jsonl",
    "evaluation.json",  # evaluation.npz has the values of each image
    "checkpoints",
    "figures",
)

HELD: dict[Path, int] = {}  # the folders whose lock this process holds, and the inode of the lock


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Hold the folder for this process; makes it if necessary. Raises RunError if another process holds it.

    If several processes were joined, the first one holds it for all.
    """
    with contextlib.ExitStack() as held:

        def acquire() -> None:
            held.enter_context(_lock_of_one(workdir))

        hosts.agreed(acquire)
        yield


def check_path(workdir: Path) -> None:
    """Raises RunError if checkpoints could not be kept in `workdir`."""
    if "[" in (path := str(workdir.absolute())) or "\\" in path:
        raise RunError(
            f"{workdir} cannot be a run folder: checkpoints cannot be kept below a path with [ or \\ in it, as in "
            f"{path}; choose another `workdir`"
        )


@contextlib.contextmanager
def _lock_of_one(workdir: Path) -> Iterator[None]:
    check_path(workdir)
    try:
        durable.make_folder(workdir)
        # Not through a link, which a stranger may have left: the file that it leads to would be emptied.
        created = os.open(workdir / ".lock", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        opened = os.fdopen(created, "a+")
    except OSError as error:
        raise RunError(f"{workdir} cannot be a run folder: {error.strerror}; choose another `workdir`") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunError(f"{workdir} is in use by {owner}; wait for it, or choose another `workdir`") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        HELD[workdir.absolute()] = os.fstat(file.fileno()).st_ino
        try:
            yield
            check_kept(workdir)
        finally:
            del HELD[workdir.absolute()]


def check_kept(workdir: Path) -> None:
    """Raises RunError if a folder whose lock this process holds was deleted or moved since."""
    inode = HELD.get(workdir.absolute())
    with contextlib.suppress(FileNotFoundError):
        if inode is None or inode == (workdir / ".lock").stat().st_ino:
            return
    raise RunError(f"{workdir} was deleted or moved while it was in use: nothing more is saved; start again")


@contextlib.contextmanager
def nothing_remade(*written: Path) -> Iterator[None]:
    """While folders are written: RunError if the one whose lock this process holds was moved or deleted meanwhile.

    What writes it may have made the folders above it again; they are removed, if nothing else is in them.
    """
    own = [path.absolute() for path in written]
    held = next((folder for folder in HELD if folder in own[0].parents), None)
    try:
        yield
    finally:
        if held is not None and not (held / ".lock").exists():
            found = [path for path in held.rglob("*") if not path.is_dir()]
            if all(any(one in path.parents for one in own) for path in found):
                shutil.rmtree(held, ignore_errors=True)
            check_kept(held)


def is_locked(workdir: Path) -> bool:
    """Whether a process holds the folder."""
    try:
        with open(os.open(workdir / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
