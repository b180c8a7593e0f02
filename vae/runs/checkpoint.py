"""Checkpoints that are whole or absent: <folder>/<step>/{state/ (orbax), manifest.json}.

The folder of a step appears by one rename, after everything in it was written; the manifest holds the sha256 of every
file and of itself, because orbax restores damaged arrays without an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae import hosts, untrusted
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS

MANIFEST, STATE = "manifest.json", "state"
PARTIAL, DELETED = ".partial-", ".deleted-"


@hosts.shared
class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another shape; one line for the user."""


def steps(folder: Path) -> list[int]:
    """The steps that were saved in `folder`, ascending. A save that was interrupted is not among them."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def score(folder: Path, step: int) -> float | None:
    """The score that `step` was saved with: higher is better. None if there was none, or if it was not finite."""
    return _manifest(folder / str(step))["score"]


def best_step(folder: Path) -> int | None:
    """The step with the highest score (the latest among equals); None if no step has a score."""
    scored = [(value, step) for step in steps(folder) if (value := score(folder, step)) is not None]
    return max(scored)[1] if scored else None


def save(folder: Path, step: int, tree: Any, score: float | None = None) -> None:
    """Write `tree` (arrays) as checkpoint `step`; returns when it is complete. A step that exists is left as it is.

    All processes call it with the same arrays, since orbax makes them wait for each other; process 0 writes.
    """
    from orbax.checkpoint import v1 as ocp

    final, partial = folder / str(step), folder / f"{PARTIAL}{step}"

    def begin() -> bool:
        if final.exists():
            return False
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        return True

    def finish() -> None:
        manifest = {
            "step": step,
            "score": float(score) if score is not None and np.isfinite(score) else None,
            "arrays": _signature(tree),
            "sha256": {str(path.relative_to(partial)): _sha256(path) for path in _files(partial)},
        }
        manifest["sha256_of_this"] = _sha256_of_manifest(manifest)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        os.rename(partial, final)

    if not hosts.agreed(begin):
        return
    try:
        ocp.save(str(partial.absolute() / STATE), hosts.gather(tree))
    except (OSError, ValueError) as error:  # tensorstore raises ValueError if the disk is full
        raise CheckpointError(
            f"checkpoint {final} cannot be written ({' '.join(str(error).split())[:200]}); make room or give "
            "permission, and start again: the run resumes from its last checkpoint"
        ) from error
    hosts.agreed(finish)


def restore(folder: Path, step: int, like: Any) -> Any:
    """The tree of checkpoint `step` as numpy arrays, after its checksums were verified.

    `like` is a tree of the same structure (arrays or `jax.ShapeDtypeStruct`s).
    Raises CheckpointError if a file is missing or damaged, or if names, shapes or dtypes differ from `like`.
    """
    from orbax.checkpoint import v1 as ocp

    path = folder / str(step)
    manifest = _manifest(path)
    for name, expected in manifest["sha256"].items():
        file = path / name
        if not file.is_file() or _sha256(file) != expected:
            raise _untrusted(path, name, "damaged" if file.is_file() else "missing")
    found, wanted = manifest["arrays"], _signature(like)
    differences = [
        f"{name} is {found.get(name, 'absent')}, not {wanted.get(name, 'absent')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise CheckpointError(f"checkpoint {path} does not fit this model: " + "; ".join(differences[:5]))
    alone, here = ocp.Context(), ocp.multihost.process_index()  # reading waits for no other process
    alone.multiprocessing.primary_host, alone.multiprocessing.active_processes = here, {here}
    state = str((path / STATE).absolute())
    try:
        with alone:
            # A manifest may be a stranger's, too: an array takes the memory that its own head claims.
            _check_heads(ocp.metadata(state).metadata, like)
            return ocp.load(state, jax.tree.map(lambda a: np.empty(a.shape, a.dtype), like))
    except Exception as error:  # orbax and tensorstore each have their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"checkpoint {path} cannot be read, though its checksums agree: {reason}{_instead(path)}"
        ) from error


def _check_heads(heads: Any, like: Any) -> None:
    """Raises ValueError where the heads of arrays claim others than those of `like`, or parts larger than the whole."""
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
    """Delete all checkpoints but the `keep_last` newest and the `keep_best` of the highest scores."""
    if not hosts.is_first():
        return
    saved = steps(folder)
    ranked = sorted((value, step) for step in saved if (value := score(folder, step)) is not None)
    keep = set(saved[-keep_last:]) | {step for _, step in ranked[::-1][:keep_best]}
    for step in saved:
        if step not in keep:
            # Renamed first: a step's folder is never seen half-deleted.
            doomed = folder / f"{DELETED}{step}"
            os.rename(folder / str(step), doomed)
            shutil.rmtree(doomed)


def clean(folder: Path) -> None:
    """Delete what an interrupted `save` or `prune` left behind."""
    if not hosts.is_first():
        return
    for path in [*folder.glob(f"{PARTIAL}*"), *folder.glob(f"{DELETED}*")]:
        shutil.rmtree(path)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = untrusted.parse_object((path / MANIFEST).read_bytes())
        if manifest.pop("sha256_of_this") == _sha256_of_manifest(manifest) and _is_manifest(manifest):
            return manifest
        what = "damaged"
    except FileNotFoundError:
        what = "missing"
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        what = "damaged"
    raise _untrusted(path, MANIFEST, what)


def _is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether all that is read of it is of its kind, and names files of this checkpoint alone."""
    score, texts = manifest["score"], [*manifest["arrays"].values(), *manifest["sha256"].values()]
    for name in manifest["sha256"]:
        for part in name.split("/"):
            untrusted.plain_name(part)
    return type(score) in (int, float, type(None)) and all(isinstance(text, str) for text in texts)


def _untrusted(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} cannot be trusted: its file {name} is {what}{_instead(path)}")


def _instead(path: Path) -> str:
    others = _others(path.parent, int(path.name))
    return f"; delete the folder {path} to resume from another checkpoint{others}"


def _sha256_of_manifest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _others(folder: Path, step: int) -> str:
    others = [str(other) for other in steps(folder) if other != step]
    return f" ({', '.join(others)})" if others else " (there is none: training starts again)"


def _signature(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose(workdir: Path, checkpoint: str | int = "last") -> int:
    """The step of the "last" or "best" checkpoint of a run, or the given one if it exists; RunError if not."""
    folder = workdir / CHECKPOINTS
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
