"""The storage of an Optuna study: a journal file, or a database that workers on several machines share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from sqlalchemy import create_engine, exc
from sqlalchemy.engine import make_url

from vae import durable
from vae.places import expanded
from vae.runs.files import RunError, RunWarning
from vae.sweeps import passwords

LAST_BYTES = 4096  # of a journal, in which its last line is
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)  # of lines of a journal
HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 120
CHECKSUM = "crc32"  # of a line of a journal without it; lines of older code and of Optuna have none
WRITE = "write postgresql://user@host/database, or a file; in a password @ is %40, / %2F, : %3A, ? %3F, # %23 and % %25"
ATTEMPTS = 20  # to create what other processes create at the same time
DATABASES = {
    "postgresql": "psycopg",
    "mysql": None,
    "mariadb": None,
}  # and the default driver


def open_storage(text: str) -> optuna.storages.BaseStorage:
    """A journal file, made if need be, or the database of an SQLAlchemy URL, with its tables.

    Any number of processes may call it at the same time. Raises RunError if it cannot be used; the message has no
    password.
    """
    if "://" in text:
        return _open_database(text)
    path = expanded(text).absolute()
    if passwords.passwords_in([text]) and not path.exists():
        raise RunError(f"`storage={without_password(text)}` is neither a URL nor a file; {WRITE}")
    return _open_journal(path)


def without_password(text: str) -> str:
    """`text` with *** for passwords; a URL in the form that SQLAlchemy gives it."""
    shown = passwords.without_password(text)
    try:
        # It quotes the asterisks of a query.
        return make_url(shown).render_as_string().replace("%2A%2A%2A", passwords.HIDDEN) if "://" in text else shown
    except (exc.ArgumentError, ValueError):
        return shown


class _FileLock(BaseJournalFileLock):
    """The system releases it if its holder is killed. Optuna's own locks would stay for half a minute.

    Whoever holds it appends to the journal. So a last line that a killed process or a full disk left incomplete, or
    that is damaged, is moved away first: what is appended behind it would be lost with it.
    """

    def __init__(self, journal: Path):
        self._journal, self._path = journal, journal.with_name(f"{journal.name}.lock")

    def acquire(self) -> bool:
        self._file = self._path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._journal.exists():
            self._cut()
        return True

    def _cut(self) -> None:
        with self._journal.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(first := max(0, size - LAST_BYTES))
            end = file.read()
            if first and b"\n" not in end[:-1]:  # the last line is longer
                file.seek(first := 0)
                end = file.read()
            start = end[:-1].rfind(b"\n") + 1
            if not end or (end.endswith(b"\n") and _is_intact(end[start:])):
                return
            whole = first + start
            file.seek(whole)
            aside = self._journal.with_name(f"{self._journal.name}.damaged")
            durable.append(aside, file.read().removesuffix(b"\n") + b"\n")
            file.truncate(whole)
            os.fsync(file.fileno())
        what = "in a damaged line" if end.endswith(b"\n") else "within a line"
        warnings.warn(f"{self._journal} ended {what}, which is now in {aside}", RunWarning, 2)

    def release(self) -> None:
        self._file.close()


class _Backend(JournalFileBackend):
    """Each line is an object that ends with the checksum of the rest, a key that Optuna does not look at."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([log | {CHECKSUM: _checksum(log)} for log in logs])

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for number, log in enumerate(super().read_logs(log_number_from), log_number_from + 1):
            if not _agrees(log):
                raise ValueError(f"line {number} has another checksum than when it was written")
            yield log


class _Journal(optuna.storages.JournalStorage):
    """Lines of others come at any time: one that is no line of Optuna is a RunError whenever it is read."""

    def __init__(self, backend: JournalFileBackend, path: Path):
        self._path = path
        super().__init__(backend)

    def _sync_with_backend(self) -> None:
        try:
            super()._sync_with_backend()
        except optuna.exceptions.OptunaError:  # what another worker has done meanwhile
            raise
        except DAMAGE as error:
            raise RunError(
                f"`storage={self._path}` is damaged ({_reason(error)}); put back a copy, or choose another file"
            ) from error


def _checksum(log: dict[str, Any]) -> str:
    # What json.loads makes of this text, json.dumps makes this text of.
    return f"{zlib.crc32(json.dumps(log).encode()):08x}"


def _agrees(log: dict[str, Any]) -> bool:
    """Whether a line has its checksum, which is taken out of it, or none."""
    found = log.pop(CHECKSUM, None)
    return found is None or found == _checksum(log)


def _is_intact(line: bytes) -> bool:
    try:
        return _agrees(json.loads(line))
    except DAMAGE:
        return False


def _open_journal(path: Path) -> optuna.storages.BaseStorage:
    if not path.parent.is_dir():
        raise RunError(f"`storage={path}`: there is no folder {path.parent}; make it, or choose another file")
    if path.exists() and not _is_journal(path):
        raise RunError(f"`storage={path}` is no journal of Optuna; choose another file")
    lock = _FileLock(path)
    lock.acquire()
    lock.release()
    opened = _Journal(_Backend(str(path), lock_obj=lock), path)
    durable.sync(path.parent)
    return opened


def _is_journal(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline()
    return first == b"" or (first.startswith(b'{"op_code":') and first.endswith(b"\n"))


def _open_database(text: str) -> optuna.storages.BaseStorage:
    shown = without_password(text)
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError) as error:
        raise RunError(f"`storage={shown}` is no URL; {WRITE}") from error
    if "@" in (url.host or "") or "@" in (url.database or ""):
        raise RunError(f"`storage={shown}` has several @; {WRITE}")
    kind, _, driver = url.drivername.partition("+")
    if kind == "sqlite":
        raise RunError(
            f"`storage={shown}`: SQLite does not allow several writers; use a journal file, `storage=/folder/x.journal`"
        )
    if kind not in DATABASES:
        raise RunError(f"`storage={shown}`: unknown database {kind!r}; one of {', '.join(DATABASES)}, or a file")
    if not driver and (default := DATABASES[kind]):
        url = url.set(drivername=f"{kind}+{default}")
    options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    try:
        engine = create_engine(url, **options)
        engine.connect().close()
        engine.dispose()
    except ImportError as error:
        named = driver or DATABASES[kind] or error.name
        package = "psycopg[binary]" if named == "psycopg" else named
        raise RunError(
            f"`storage={shown}` needs the driver {named}, which is not installed: pip install '{package}'"
        ) from error
    except (exc.SQLAlchemyError, ValueError) as error:
        raise RunError(f"`storage={shown}` cannot be reached: {_reason(error, text)}") from error
    # Optuna fills in what stands in braces.
    exact = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")

    def create():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the heartbeat
            backend = optuna.storages.RDBStorage(
                exact, options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
            )
            return optuna.storages.get_storage(backend)

    return whoever_comes_first(create, text)


def beat(storage: optuna.storages.BaseStorage, trial_id: int) -> None:
    """Tell a database that the worker of the trial lives."""
    if isinstance(storage, BaseHeartbeat):
        storage.record_heartbeat(trial_id)


def watch(storage: optuna.storages.BaseStorage, trial_id: int) -> None:
    """Let a database fail a waiting trial when its worker is no longer heard of: it asks this of RUNNING ones alone."""
    if isinstance(storage, BaseHeartbeat):
        storage.record_heartbeat(trial_id)  # its worker may have died before the first, without which none goes stale
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            storage.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING)


def whoever_comes_first(create, text: str) -> Any:
    """The result of `create` in the storage `text`; tries again if another process creates the same thing now."""
    shown = without_password(text)
    for attempt in range(ATTEMPTS):
        try:
            return create()
        except (exc.SQLAlchemyError, optuna.exceptions.OptunaError, AssertionError) as error:
            if attempt + 1 == ATTEMPTS:
                raise RunError(f"`storage={shown}` cannot be used: {_reason(error, text)}") from error
            time.sleep(random.SystemRandom().random() * 0.1 * (attempt + 1))
        except RuntimeError as error:  # tables of another version of Optuna
            raise RunError(f"`storage={shown}` cannot be used: {_reason(error, text)}") from error


def _reason(error: BaseException, text: str = "") -> str:
    """Why a storage failed, in a line, without the password of the URL `text`, which drivers quote."""
    reason = passwords.hide(
        passwords.passwords_in([text]), " ".join(str(getattr(error, "orig", None) or error.__cause__ or error).split())
    )
    return reason[:200]


@contextlib.contextmanager
def failures_in_a_line(text: str = "") -> Iterator[None]:
    """If the database of the URL `text` goes away, this raises RunError."""
    try:
        yield
    except (exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RunError(
            f"the study's storage failed ({_reason(error, text)}); the same command with this `workdir` resumes it"
        ) from error
