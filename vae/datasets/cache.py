"""Prepared arrays on disk: uint8 .npy files and a manifest with their sha256, published by one rename."""

import hashlib
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vae import durable, untrusted
from vae.datasets.dataset import DataError, Split
from vae.datasets.progress import stopwatch

MANIFEST = "manifest.json"


def publish(folder: Path, splits: Mapping[str, Split]) -> None:
    """Writes `splits` to `folder`, wholly or not at all. If another process made the folder first, it stays."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    try:
        durable.make_folder(temporary)
        manifest = {}
        for split, arrays in splits.items():
            for role, array in zip(Split._fields, arrays, strict=True):
                if array is not None:
                    manifest[f"{split}_{role}.npy"] = _write(temporary / f"{split}_{role}.npy", _npy(array))
        _write(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
        try:
            durable.sync(temporary)
            durable.rename(temporary, folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path) -> dict[str, Split]:
    """The splits in `folder`, every byte verified. Raises DataError if a file is missing or damaged."""
    try:
        manifest = untrusted.parse_object((folder / MANIFEST).read_bytes())
        arrays = {name: _verified(folder / untrusted.plain_name(name), sha256) for name, sha256 in manifest.items()}
        splits = dict.fromkeys(name.rpartition("_")[0] for name in arrays)
        return {s: Split(arrays[f"{s}_images.npy"], arrays.get(f"{s}_labels.npy")) for s in splits}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else str(error)
        if not isinstance(error, (FileNotFoundError, DataError)):
            what = f"{folder / MANIFEST} is damaged"
        raise DataError(f"{what}; delete the folder {folder} to have it prepared again") from error


@contextmanager
def lock(path: Path, progress: bool = False) -> Iterator[bool]:
    """Holds a file lock, waiting for another process that has it; the operating system frees it if the holder dies.

    Yields False if the file system has no locks. Then only the renames keep processes apart.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with stopwatch(f"waiting for another process that holds {path}", progress) as tick:
                while not _acquired(file):
                    tick()
                    time.sleep(0.05)
        except OSError:
            yield False
            return
        yield True


def _acquired(file: IO) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_remains(*patterns: Path) -> None:
    """Removes the folders that killed processes left, by glob patterns of their names; call with the lock held."""
    for pattern in patterns:
        for remains in pattern.parent.glob(pattern.name):
            shutil.rmtree(remains, ignore_errors=True)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> str:
    """Writes through to the disk; returns the sha256."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _verified(path: Path, sha256: str) -> np.ndarray:
    """The array, made from the same bytes that were verified."""
    content = path.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise DataError(f"{path} is damaged: sha256 {got}, expected {sha256}")
    return np.load(io.BytesIO(content), allow_pickle=False)
