"""The manifest of a checkpoint: the checksums of its files, its arrays' shapes, its score and rows of metrics.

Nothing of a checkpoint is believed before its manifest agrees with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vae import durable, hosts, untrusted
from vae.runs.metrics import Row, is_row

MANIFEST = "manifest.json"


@hosts.shared
class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or be written, or is of another shape; one line for the user."""


@hosts.shared
class DamagedError(CheckpointError):
    """A checkpoint of which a file is missing or is not what was saved."""


@hosts.shared
class GoneError(CheckpointError):
    """A checkpoint that was deleted while it was read, by the training that saved it."""


def steps(folder: Path) -> list[int]:
    """The steps that were saved in `folder`, ascending. A save that was interrupted is not among them."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tells a checkpoint that cannot be read from a damaged one, and from one that was pruned meanwhile."""
    try:
        yield
    except (OSError, CheckpointError) as error:
        try:
            path.stat()
        except FileNotFoundError:
            raise GoneError(f"checkpoint {path} was deleted while it was read; start again") from error
        except OSError:
            pass
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error.strerror}: {error.filename}); nothing was changed: give "
            "permission or see to the disk, and start again"
        ) from error


def is_file(path: Path) -> bool:
    """Whether there is a file; OSError if that cannot be known."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def write(path: Path, step: int, tree: Any, score: float | None, rows: Sequence[Sequence[Row]]) -> None:
    """Write the manifest of the arrays `tree`, whose files lie in the folder `path`; a score may be no number."""
    manifest = {
        "step": step,
        "score": float(score) if score is not None and math.isfinite(score) else None,
        "rows": rows,
        "arrays": signature(tree),
        "sha256": {str(file.relative_to(path)): sha256(file) for file in files(path)},
    }
    manifest["sha256_of_this"] = sha256_of_manifest(manifest)
    durable.write(path / MANIFEST, json.dumps(manifest, indent=1).encode())


def read(path: Path) -> dict[str, Any]:
    with reading(path):
        try:
            if not is_file(path / MANIFEST):
                raise untrustworthy(path, MANIFEST, "missing")
            manifest = untrusted.parse_object((path / MANIFEST).read_bytes())
            if manifest.pop("sha256_of_this") == sha256_of_manifest(manifest) and _is_manifest(manifest):
                return manifest
        except (CheckpointError, OSError):
            raise
        except (ValueError, LookupError, AttributeError, TypeError):
            pass
        raise untrustworthy(path, MANIFEST, "damaged")


def _is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether all that is read of it is of its kind, and names files of this checkpoint alone."""
    score, texts = manifest["score"], [*manifest["arrays"].values(), *manifest["sha256"].values()]
    for name in manifest["sha256"]:
        for part in name.split("/"):
            untrusted.plain_name(part)
    rows = [row for of_run in manifest.get("rows", []) for row in of_run]
    known = all(isinstance(text, str) for text in texts) and all(map(is_row, rows))
    return type(score) in (int, float, type(None)) and known


def untrustworthy(path: Path, name: str, what: str) -> DamagedError:
    return DamagedError(f"checkpoint {path} cannot be trusted: its file {name} is {what}{instead(path)}")


def instead(path: Path) -> str:
    """What to do about a checkpoint that is no use."""
    others = [str(other) for other in steps(path.parent) if other != int(path.name)]
    if not others:
        return "; there is no other: train the run again, which sets this one aside"
    return (
        f"; read another with `checkpoint={others[-1]}` (there are {', '.join(others)}), or train the run again, which "
        "sets this one aside"
    )


def sha256_of_manifest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def check_fits(path: Path, found: Mapping[str, str], like: Any) -> None:
    """Raises CheckpointError unless the arrays that were saved have the names, shapes and dtypes of those of `like`."""
    wanted = signature(like)
    differences = [
        f"{name} is {found.get(name, 'absent')}, not {wanted.get(name, 'absent')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise CheckpointError(f"checkpoint {path} does not fit this model: " + "; ".join(differences[:5]))


def signature(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
