"""Read arrays of an HDF5 file with h5py, which is not among the requirements."""

import importlib
from pathlib import Path

import numpy as np

from vae import untrusted
from vae.datasets.dataset import DataError


def read(path: Path, *wanted: str) -> list[np.ndarray]:
    """The arrays of numbers of these names, in this order; raises DataError, also if h5py is not installed."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise DataError(
            f"{path} is an HDF5 file, and h5py, which reads it, is not installed: pip install h5py"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return [_array(path, file.get(name), name, h5py.Dataset) for name in wanted]
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        if refused := untrusted.of_the_system(error, path):
            raise refused from error
        raise DataError(f"{path} is damaged or no HDF5 file: {' '.join(str(error).split())[:200]}") from error


def _array(path: Path, found, name: str, kind: type) -> np.ndarray:
    if not isinstance(found, kind) or found.dtype.kind not in "biuf" or not found.size:
        raise DataError(f"{path} has no array of numbers {name!r}")
    try:
        untrusted.check_memory(found.nbytes)
    except ValueError as error:
        raise DataError(f"{path}: {name} takes {error}") from error
    return found[()]
