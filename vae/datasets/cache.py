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
                    manifest[f"{split}_{role}.npy"] = _write(temporary / f"{split}_{role}.npy", array)
        durable.write(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
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
        paths = {name: folder / untrusted.plain_name(name) for name in manifest}
        _check_memory(folder, sum(path.stat().st_size for path in paths.values()))
        arrays = {name: _verified(path, manifest[name]) for name, path in paths.items()}
        splits = dict.fromkeys(name.rpartition("_")[0] for name in arrays)
        optional = Split._fields[1:]
        return {s: Split(arrays[f"{s}_images.npy"], *(arrays.get(f"{s}_{o}.npy") for o in optional)) for s in splits}
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


def _check_memory(folder: Path, num_bytes: int) -> None:
    try:
        untrusted.check_memory(num_bytes)
    except ValueError as error:
        raise DataError(f"the images in {folder} take {error}") from error


def _write(path: Path, array: np.ndarray) -> str:
    """Writes an .npy file through to the disk, never holding a copy of it in memory; returns its sha256."""
    array = np.ascontiguousarray(array)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (head.getbuffer(), array.reshape(-1).view(np.uint8).data):
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _verified(path: Path, sha256: str) -> np.ndarray:
    """The array, made from the same bytes that were verified."""
    content = np.fromfile(path, np.uint8)
    got = hashlib.sha256(content.data).hexdigest()
    if got != sha256:
        raise DataError(f"{path} is damaged: sha256 {got}, expected {sha256}")
    head = io.BytesIO(content[:1024].tobytes())
    np.lib.format.read_magic(head)
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(head)
    return content[head.tell() :].view(dtype).reshape(shape, order="F" if by_columns else "C")
