"""A packed run: a run folder with one checkpoint as one file, which is only read.

Its members: pack.json (the step, its score, and name, dtype and shape of each array, in the order in which their bytes
lie in arrays.bin, little-endian), and of the run folder config.json, metrics.jsonl, the evaluations of
that checkpoint, and failure.json.
"""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vae import durable, untrusted
from vae.runs import archive, checkpoint, folder
from vae.runs.files import RunError, is_count, packed, read_json, write_json
from vae.runs.folder import CHECKPOINTS
from vae.runs.manifest import check_fits, signature

HEAD, ARRAYS = "pack.json", "arrays.bin"
FORMAT = 1
SOURCE = "unpacked.json"  # in an unpacked folder: which packed run it is


class PackHead(NamedTuple):
    """What pack.json says: the step of the checkpoint, its score, and the dtype and shape of each array by name."""

    step: int
    score: float | None
    arrays: dict[str, str]


def write(path: Path, files: Mapping[str, bytes], step: int, score: float | None, tree: Any) -> str:
    """Write a packed run of `files` of a run folder and the arrays `tree`; its sha256. Raises RunError."""
    head = {"format": FORMAT, "step": step, "score": score, "arrays": signature(tree)}
    arrays = b"".join(_little(np.asarray(leaf)).tobytes() for leaf in jax.tree.leaves(tree))
    content = archive.encoded({**files, HEAD: json.dumps(head, indent=1).encode(), ARRAYS: arrays})
    if path.suffix != archive.SUFFIX:
        raise RunError(f"{path} cannot be a packed run: its name must end in {archive.SUFFIX}; choose another `output`")
    if path.exists():
        raise RunError(f"{path} exists; remove it, or choose another `output`")
    try:
        durable.make_folder(path.parent)
        durable.write(path, content)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}); choose another `output`") from error
    return archive.sha256_of(content)


def restore(path: Path, which: str | int | None, like: Any) -> Any:
    """The tree of the checkpoint in a packed run as numpy arrays; `like` is of the same structure.

    which: None, "last" or "best", which are all that checkpoint, or its step. Raises RunError if it is another, or if
    the file is damaged, and CheckpointError if names, shapes or dtypes differ from `like`.
    """
    members = packed(path)
    head = _head(path, members)
    if which == "best" and head.score is None:
        raise RunError(f"the checkpoint of {path} has no validation score; use the last one")
    if str(which) not in ("None", "last", "best", str(head.step)):
        raise RunError(f"{path} has no checkpoint {which!r}; use last, best or {head.step}")
    check_fits(path, head.arrays, like)
    return _arrays(path, head, members[ARRAYS], like)


def unpack(path: Path, to: Path, like: Any) -> None:
    """Make the run folder `to`, which must not exist, of a packed run; it is whole or absent. Raises as `restore`."""
    members, tree = packed(path), restore(path, "last", like)
    head = _head(path, members)
    folder.check_path(to)
    partial = to.with_name(f".{to.name}.{uuid.uuid4().hex}")
    try:
        durable.make_folder(partial, new=True)
        for name in members.keys() - {HEAD, ARRAYS}:
            durable.write(partial / name, members[name])
        write_json(partial / SOURCE, {"pack": path.name, "sha256": archive.sha256_of(path.read_bytes())})
        checkpoint.save(partial / CHECKPOINTS, head.step, tree, head.score)
        durable.rename(partial, to)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise RunError(
            f"{path} cannot be unpacked into {to} ({error.strerror}); unpack it elsewhere with experiments.runs "
            "`unpack` and `output`"
        ) from error


def unpacked_folder(path: Path) -> Path:
    """Where a packed run is unpacked if nothing else is said."""
    return path.with_suffix(".unpacked")


def is_of(workdir: Path, path: Path) -> bool:
    """Whether `workdir` was unpacked from the packed run `path`, and was not trained since; raises RunError."""
    members = packed(path)
    source = read_json(workdir / SOURCE) if (workdir / SOURCE).exists() else {}
    same = source.get("sha256") == archive.sha256_of(path.read_bytes())
    return same and checkpoint.steps(workdir / CHECKPOINTS) == [_head(path, members).step]


def _little(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"))


def _head(path: Path, members: Mapping[str, bytes]) -> PackHead:
    try:
        values = untrusted.parse_object(members[HEAD])
        step, score, arrays = values.get("step"), values.get("score"), values.get("arrays")
        if values.get("format") != FORMAT:
            raise ValueError(
                f"its format is {values.get('format')!r:.80}, and this code reads {FORMAT}; use newer code"
            )
        if not (isinstance(arrays, dict) and all(isinstance(text, str) for text in arrays.values())):
            raise ValueError("its arrays are no object of texts")
        if not isinstance(step, int) or not is_count(step) or type(score) not in (int, float, type(None)):
            raise ValueError("its step or its score is no number")
        return PackHead(step, score, arrays)
    except ValueError as error:
        raise RunError(f"{path} cannot be used as a packed run: {HEAD}: {error}") from error


def _arrays(path: Path, head: PackHead, content: bytes, like: Any) -> Any:
    """The tree of the arrays whose bytes follow each other as `head` says; their sizes are those of `like`."""
    leaves = {jax.tree_util.keystr(name): leaf for name, leaf in jax.tree_util.tree_leaves_with_path(like)}
    sizes = {name: math.prod(leaf.shape) * leaf.dtype.itemsize for name, leaf in leaves.items()}
    if sum(sizes.values()) != len(content):
        raise RunError(
            f"{path} cannot be used as a packed run: its arrays take {sum(sizes.values())} bytes, and {ARRAYS} has "
            f"{len(content)}"
        )
    found, start = {}, 0
    for name in head.arrays:
        dtype, shape = leaves[name].dtype, leaves[name].shape
        stored = np.frombuffer(content, dtype.newbyteorder("<"), math.prod(shape), start)
        found[name], start = stored.astype(dtype).reshape(shape), start + sizes[name]
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in leaves])
