"""Checkpoints that are whole or absent: <folder>/<step>/{state/ (orbax), manifest.json}.

The folder of a step appears by one rename, after everything in it is on the disk and was read back; the manifest holds
the sha256 of every file and of itself, because orbax restores damaged arrays without an error.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae import durable, hosts
from vae.runs import manifest
from vae.runs.config import read_config
from vae.runs.ending import ranked
from vae.runs.files import RunError, RunWarning
from vae.runs.folder import CHECKPOINTS, nothing_remade
from vae.runs.manifest import (
    CheckpointError,
    DamagedError,
    GoneError,
    check_fits,
    instead,
    is_file,
    reading,
    sha256,
    steps,
    untrustworthy,
)
from vae.runs.metrics import Row

STATE = "state"
PARTIAL, DELETED, DAMAGED = ".partial-", ".deleted-", ".damaged"


def score(folder: Path, step: int) -> float | None:
    """The score that `step` was saved with: higher is better. None if there was none, or if it was not finite."""
    return manifest.read(folder / str(step))["score"]


def rows(folder: Path, step: int) -> list[list[Row]]:
    """The rows of metrics that `step` was saved with, of each run; empty if older code saved it."""
    return manifest.read(folder / str(step)).get("rows", [])


def best_step(folder: Path) -> int | None:
    """The step with the highest score (the first among equals); None if no step has a score."""
    found: dict[int, float | None] = {}
    for step in steps(folder):
        with contextlib.suppress(GoneError):
            found[step] = score(folder, step)
    return next(iter(ranked(found)), None)


def save(folder: Path, step: int, tree: Any, score: float | None = None, rows: Sequence[Sequence[Row]] = ()) -> None:
    """Write `tree` (arrays) as checkpoint `step`; returns when it is on the disk. A step that exists is left as it is.

    `rows` of metrics are kept beside it. All processes call it with the same arrays, since orbax makes them wait for
    each other; process 0 writes. The folder that holds `folder` must be there. Raises CheckpointError, or
    RunError if the run folder was moved or deleted.
    """
    from orbax.checkpoint import v1 as ocp

    final, partial = folder / str(step), folder / f"{PARTIAL}{step}"

    def begin() -> bool:
        if final.exists():
            return False
        if not folder.exists():  # not those above it: if they are gone, so is the run
            folder.mkdir()
            durable.sync(folder.parent)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()  # if orbax cannot make it, some of its threads wait for it without end
        return True

    def finish() -> None:
        durable.sync_all([partial, *partial.rglob("*")])
        manifest.write(partial, step, tree, score, rows)
        durable.rename(partial, final)

    with nothing_remade(partial, final):
        try:
            if hosts.agreed(begin):
                gathered = hosts.gather(tree)
                with _writing(), _quiet():
                    ocp.save(str(partial.absolute() / STATE), _stored(gathered))
                _check_read_back(partial, gathered)
                hosts.agreed(finish)
        except (OSError, ValueError) as error:  # tensorstore raises ValueError if the disk is full
            raise CheckpointError(
                f"checkpoint {final} cannot be written ({' '.join(str(error).split())[:200]}); make room or give "
                "permission, and start again: the run resumes from its last checkpoint"
            ) from error


def _check_read_back(path: Path, tree: Any) -> None:
    """Raises ValueError on all processes if one of them reads other arrays in `path` than those of `tree`, bit for bit.

    All of them read: orbax counts what each has done, and they would wait for each other in the next save.
    """
    fault = None
    try:
        found = jax.tree.leaves(_load(path, tree))
        for one, (name, saved) in zip(found, jax.tree_util.tree_leaves_with_path(tree), strict=True):
            if np.asarray(one).tobytes() != np.asarray(saved).tobytes():
                fault = f"{jax.tree_util.keystr(name)} is read back with other values"
    except (OSError, ValueError) as error:
        fault = str(error)
    if hosts.any_of(fault is not None):
        raise ValueError(fault or "another process cannot read it back")


def restore(folder: Path, step: int, like: Any) -> Any:
    """The tree of checkpoint `step` as numpy arrays, after its checksums were verified.

    `like` is a tree of the same structure (arrays or `jax.ShapeDtypeStruct`s).
    Raises DamagedError as `verify`, GoneError, and CheckpointError if it cannot be read, or if names, shapes or dtypes
    differ from `like`.
    """
    path = folder / str(step)
    verify(folder, step)
    check_fits(path, manifest.read(path)["arrays"], like)
    with reading(path):
        try:
            return _load(path, like, from_stranger=True)
        except Exception as error:  # orbax and tensorstore each have their own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CheckpointError(
                f"checkpoint {path} cannot be read, though its checksums agree: {reason}{instead(path)}"
            ) from error


def verify(folder: Path, step: int) -> None:
    """Raises DamagedError if a file of checkpoint `step` is missing or has another checksum."""
    path = folder / str(step)
    for name, expected in manifest.read(path)["sha256"].items():
        with reading(path):
            if not is_file(path / name):
                raise untrustworthy(path, name, "missing")
            if sha256(path / name) != expected:
                raise untrustworthy(path, name, "damaged")


def _load(path: Path, like: Any, *, from_stranger: bool = False) -> Any:
    """The arrays in the folder `path`; those `from_stranger` take the memory that their own heads claim: checked."""
    from orbax.checkpoint import v1 as ocp

    alone, here = ocp.Context(), ocp.multihost.process_index()  # reading waits for no other process
    alone.multiprocessing.primary_host, alone.multiprocessing.active_processes = here, {here}
    state = str((path / STATE).absolute())
    with alone, _quiet():
        if from_stranger:
            _check_heads(ocp.metadata(state).metadata, like)
        found = ocp.load(state, jax.tree.map(lambda a: np.empty(a.shape, a.dtype), _stored(like)))
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(found))


def _stored(tree: Any) -> Any:
    """`tree` as files have it: without the `OPTIONAL` fields of its tuples that are None, which older files lack."""

    def stored(node: Any) -> Any:
        if not hasattr(node, "OPTIONAL"):
            return node
        present = {n: v for n, v in node._asdict().items() if n not in node.OPTIONAL or v is not None}
        return collections.namedtuple(type(node).__name__, present)(**present)

    return jax.tree.map(stored, tree, is_leaf=lambda node: hasattr(node, "OPTIONAL"))


def _writing() -> Any:
    """Without compression: it takes a fifth of a save's processor time, for files that are a tenth shorter."""
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_compression = False
    return context


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """orbax and asyncio tell each error in hundreds of lines, and raise it too."""
    logging.getLogger("asyncio").addFilter(_is_news)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _is_news(record: logging.LogRecord) -> bool:
    """False of what asyncio tells, when its tasks are deleted, of arrays that are gone: the first was raised."""
    text = str(record.exc_info[1]) if record.exc_info else ""
    return "tensorstore" not in text and "OCDBT" not in text  # its file format


def _check_heads(heads: Any, like: Any) -> None:
    """Raises ValueError if the heads of arrays claim others than those of `like`, or parts larger than the whole."""
    # orbax gives tuples with names as dictionaries.
    found, wanted = (
        {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (heads, like))
    )
    for name, leaf in wanted.items():
        if name not in found or (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype):
            claimed = f"{found[name].dtype}{list(found[name].shape)}" if name in found else "absent"
            raise ValueError(f"its array {name} is {claimed}, not {leaf.dtype}{list(leaf.shape)}")
        if math.prod(found[name].storage_metadata.chunk_shape) > max(1, math.prod(leaf.shape)):
            raise ValueError(f"its array {name} is stored in parts larger than itself")


def prune(folder: Path, keep_last: int, keep_best: int) -> None:
    """Delete all checkpoints except the `keep_last` newest and the `keep_best` of the highest scores.

    One with a damaged manifest is set aside; one whose manifest cannot be read stays. A RunWarning says so.
    """
    if not hosts.is_first():
        return
    found = scores(folder)
    for step in found.keys() - kept(found, keep_last, keep_best):
        # Renamed first: a step's folder is never seen half-deleted.
        doomed = folder / f"{DELETED}{step}"
        os.rename(folder / str(step), doomed)
        shutil.rmtree(doomed)


def kept(scores: Mapping[int, float | None], keep_last: int, keep_best: int) -> set[int]:
    """Of the steps and their scores: the `keep_last` newest, and the `keep_best` of the highest scores."""
    return {*sorted(scores)[-keep_last:], *ranked(scores)[:keep_best]}


def scores(folder: Path) -> dict[int, float | None]:
    """The scores of the checkpoints whose manifests can be read; damaged ones are set aside, as `prune` says."""
    found: dict[int, float | None] = {}
    for step in steps(folder):
        try:
            found[step] = score(folder, step)
        except DamagedError as error:
            set_aside(folder, step, error)
        except CheckpointError as error:
            warnings.warn(str(error), RunWarning, 3)
    return found


def set_aside(folder: Path, step: int, error: DamagedError) -> None:
    """Rename a damaged checkpoint, so that it is none any more, with a RunWarning; nothing is deleted."""
    if not hosts.is_first():
        return
    names = (f"{step}{DAMAGED}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 1000))))
    aside = next(folder / name for name in names if not (folder / name).exists())
    durable.rename(folder / str(step), aside)
    what = str(error).partition(";")[0]
    warnings.warn(f"{what}; it is now {aside}, and training does without it", RunWarning, 2)


def clean(folder: Path) -> None:
    """Delete what an interrupted `save` or `prune` left behind."""
    if not hosts.is_first():
        return
    for path in [*folder.glob(f"{PARTIAL}*"), *folder.glob(f"{DELETED}*")]:
        shutil.rmtree(path)


def choose(workdir: Path, checkpoint: str | int | None = None) -> int:
    """The step of the "last" or "best" checkpoint of a run, or the given one if it exists; RunError if not.

    None: the best one of a run with patience, the last one of any other.
    """
    folder = workdir / CHECKPOINTS
    if checkpoint is None:
        checkpoint = "best" if read_config(workdir).patience else "last"
    saved = steps(folder)
    if not saved:
        raise RunError(f"{workdir} holds no checkpoint yet: train it first")
    if checkpoint == "last":
        return saved[-1]
    if checkpoint == "best":
        best = best_step(folder)
        if best is None:
            raise RunError(f"no checkpoint of {workdir} has a validation score; use the last one")
        return best
    if str(checkpoint).isdecimal() and int(checkpoint) in saved:
        return int(checkpoint)
    raise RunError(f"{workdir} has no checkpoint {checkpoint!r}; use last, best or one of {saved}")
