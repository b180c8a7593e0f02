"""Read matrices of a MATLAB file, version 4 or 5: never larger than the memory, and never an object.

What is damaged is one line, as far as scipy's reader says so. It is written in C, and some damage makes it crash. So
files are verified before they are read, except the one of Frey faces, of which nobody publishes a checksum.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae import untrusted
from vae.datasets.dataset import DataError

NUMBERS = {
    "logical": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "single": 4, "int64": 8,
    "uint64": 8, "double": 8,
}  # fmt: skip
# What scipy's reader raises for damaged files; MatReadError is an Exception and no more.
DAMAGE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, ArithmeticError, RuntimeError,
    MemoryError, SyntaxError, struct.error, zlib.error,
)  # fmt: skip


def read(path: Path, *wanted: str) -> list[np.ndarray]:
    """The matrices of these names, numbers [rows, columns, …], in this order; raises DataError."""
    for name, shape, kind in _heads(path, wanted):
        if kind not in NUMBERS:
            raise DataError(f"{path}: {name} is of class {kind}, which is not read; it must be a matrix of numbers")
        try:
            untrusted.check_memory(math.prod(shape) * NUMBERS[kind])
        except ValueError as error:
            raise DataError(f"{path}: {name} of {'×'.join(map(str, shape))} takes {error}") from error
    matrices = _load(path, wanted)
    for name, matrix in zip(wanted, matrices, strict=True):
        if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "biuf" or not matrix.size:
            raise DataError(f"{path} has no matrix {name} of numbers")
    return matrices


def read_names(path: Path, name: str) -> list[str]:
    """The texts of a cell array; raises DataError."""
    for _, shape, kind in _heads(path, [name]):
        if kind != "cell" or math.prod(shape) > 10_000:
            raise DataError(f"{path}: {name} is no list of names")
    (cells,) = _load(path, [name])
    texts = [np.asarray(cell) for cell in np.asarray(cells).reshape(-1)]
    if not texts or any(text.dtype.kind != "U" or text.size != 1 for text in texts):
        raise DataError(f"{path}: {name} is no list of names")
    return [str(text.item()) for text in texts]


def _heads(path: Path, wanted: Sequence[str]) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and class of the wanted variables, as the file claims; nothing is decoded."""
    import scipy.io

    heads = {name: (name, shape, kind) for name, shape, kind in _guarded(path, lambda: scipy.io.whosmat(path))}
    if missing := [name for name in wanted if name not in heads]:
        listed = ", ".join(str(name)[:40] for name in sorted(heads)[:20]) or "none"
        raise DataError(f"{path} is cut short or has no key {', '.join(map(repr, missing))}; its keys are: {listed}")
    return [heads[name] for name in wanted]


def _load(path: Path, wanted: Sequence[str]) -> list:
    import scipy.io

    found = _guarded(path, lambda: scipy.io.loadmat(path, variable_names=[*wanted]))
    return [found.get(name) for name in wanted]


def _guarded(path: Path, read):
    from scipy.io import matlab

    try:
        return read()
    except (*DAMAGE, matlab.MatReadError) as error:
        if refused := untrusted.of_the_system(error, path):
            raise refused from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged or no MATLAB file of version 4 or 5: {reason}") from error
