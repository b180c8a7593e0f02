"""Scripts called as functions in this process: a few milliseconds for one that refuses what it is given."""

import contextlib
import importlib
import io
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import array_record.python.array_record_data_source  # noqa: F401 - it defines flags, when it is imported first
import jax
from absl import flags

from experiments.command import devices, script
from experiments.flags import options

FLAGS = flags.FLAGS


class Result(NamedTuple):
    """How a script ended: exit code (minus the signal where one killed it), stdout, stderr."""

    code: int | None
    out: str
    err: str


def everything(folder: Path) -> dict[Path, bytes | None]:
    """Every file and folder under `folder`, and what is in the files; a lock's owner may change."""
    return {path: path.read_bytes() if path.is_file() and path.name != ".lock" else None for path in folder.rglob("*")}


def call(cwd: Path, name: str, *flags: str, **environment: str) -> Result:
    """How experiments.`name` ends with these `flags` in the folder `cwd`; the devices are those of this process."""
    argv = [f"experiments/{name}.py", *flags]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(devices, "configure"),
        mock.patch.object(devices, "start", _start),
        mock.patch("sys.argv", argv),
        _no_flags(),
    ):
        module = importlib.import_module(f"experiments.{name}")
        module.define_flags()
        options.note_unknown.cache_clear()
        code = script.call(module.main, argv)
    return Result(code, out.getvalue(), err.getvalue())


START = devices.start


def _start(num_devices: int, data_dir: str | None, *, one_per_core: bool = False, distributed: bool = False):
    """devices.start, with as many devices as the process of a script would have made of its CPU."""
    assert not distributed, "a cluster is of processes of their own: use Scripts.start"
    count = num_devices or (len(os.sched_getaffinity(0)) if one_per_core else 1)
    with mock.patch.object(jax, "local_devices", return_value=jax.local_devices()[:count]):
        return START(num_devices, data_dir, one_per_core=one_per_core)


def refusal(cwd: Path, name: str, *flags: str, **environment: str) -> str:
    """The message of a script that must end with exit code 1, one line for the user and no new file."""
    before = listing(cwd)
    code, _, err = call(cwd, name, *flags, **environment)
    assert code == 1, (flags, code, err)
    assert listing(cwd) == before, flags
    lines = err.splitlines()
    if lines[-1] == "Pass --helpshort or --helpfull to see help on flags.":  # absl's second line
        lines.pop()
    assert len(lines) == 1, (flags, err)
    assert lines[0].startswith(("error: ", "FATAL Flags parsing error: ")), (flags, err)
    return lines[0]


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder under `folder`, a file by size and time of change; a lock's owner may change."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {
        path: (0, 0) if stat.S_ISDIR(one.st_mode) or path.name == ".lock" else (one.st_size, one.st_mtime_ns)
        for path, one in found.items()
    }


@contextlib.contextmanager
def _no_flags() -> Iterator[None]:
    """Without any flag except absl's own; afterwards all are as before, and so is what absl does to logging."""
    handlers, level = list(logging.root.handlers), logging.root.level
    state = FLAGS.__dict__
    before = dict(state)
    of_libraries = {
        flag.name for module, own in FLAGS.flags_by_module_dict().items() if _is_librarys(module) for flag in own
    }
    state["__flags"] = {name: flag for name, flag in before["__flags"].items() if flag.name in of_libraries}
    for by in ("__flags_by_module", "__key_flags_by_module"):
        state[by] = {module: list(own) for module, own in before[by].items() if _is_librarys(module)}
    state["__flags_by_module_id"] = {}
    for name in of_libraries & set(FLAGS):
        FLAGS[name].unparse()
    FLAGS.unparse_flags()
    try:
        yield
    finally:
        state.update(before)
        logging.root.handlers[:], logging.root.level = handlers, level


def _is_librarys(module: str) -> bool:
    return module.startswith(("absl.", "array_record."))


@contextlib.contextmanager
def flags_of(name: str, *given: str) -> Iterator[Any]:
    """The module of a script, while its flags are defined, parsed from `given`."""
    with _no_flags():
        module = importlib.import_module(f"experiments.{name}")
        module.define_flags()
        FLAGS([name, *given])
        yield module


def defined(name: str) -> list[flags.Flag]:
    """The flags of a script, without those of libraries."""
    with flags_of(name):
        return [FLAGS[flag] for flag in FLAGS if not _is_librarys(FLAGS.find_module_defining_flag(flag))]
