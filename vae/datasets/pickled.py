"""Read a list of numeric arrays that was pickled, and run nothing: a pickle is a program that may call anything.

Here it can make lists, tuples, numbers and texts. What it calls `numpy.ndarray` and `numpy.dtype` only keeps what it
says of them; numpy sees a type, a shape and the bytes once these were checked.
"""

import io
import math
import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vae import untrusted
from vae.datasets.dataset import DataError

MOST = 2**28  # bytes of a file
DAMAGE = (
    pickle.UnpicklingError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
    EOFError, OverflowError, MemoryError, RuntimeError, struct.error,
)  # fmt: skip
NUMERIC = re.compile(r"[biu][1248]|f[248]")
ORDERS = ("|", "<", ">", "=")


def read(path: Path) -> list[np.ndarray]:
    """The arrays of a pickled list; raises DataError."""
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"it is larger than {MOST:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of an escape in a text that is none
            found = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        if not isinstance(found, list) or not found or not all(isinstance(one, _Array) for one in found):
            raise ValueError("it is no list of arrays")
        return [one.array() for one in found]
    except DAMAGE as error:
        if refused := untrusted.of_the_system(error, path):
            raise refused from error
        told = f"it has the opcode {error}, which is not run" if isinstance(error, KeyError) else str(error)
        reason = " ".join(told.split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged or no pickle of numeric arrays: {reason}") from error


class _Dtype:
    """What a pickle says of a type of numbers."""

    def __init__(self, code: Any, *_: Any):
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        _, self.order, *_ = state


class _Array:
    """What a pickle says of an array."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array, of a copy of the bytes; ValueError or TypeError if these are not its values."""
        _, shape, dtype, by_columns, values = self.state
        if not isinstance(dtype, _Dtype) or dtype.order not in ORDERS or not NUMERIC.fullmatch(dtype.code):
            raise ValueError("an array in it is not of numbers")
        of_values = np.dtype(dtype.code).newbyteorder(dtype.order)
        content = values.encode("latin1") if isinstance(values, str) else bytes(memoryview(values))
        if not all(type(length) is int and 0 <= length <= len(content) for length in shape):
            raise ValueError(f"an array in it claims the shape {str(shape)[:80]}")
        if math.prod(shape) * of_values.itemsize != len(content):
            raise ValueError(f"an array in it claims the shape {str(shape)[:80]} and holds {len(content)} bytes")
        array = np.frombuffer(content, of_values).reshape(shape, order="F" if by_columns else "C")
        return array.astype(of_values.newbyteorder("="))


def _bytes(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise ValueError(f"it has bytes as {str(encoding)[:80]}, not as latin1")
    return text.encode("latin1")


GLOBALS = {
    ("_codecs", "encode"): _bytes,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Dtype,
}
OPCODES = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT,
    pickle.MEMOIZE, pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.STRING, pickle.BINSTRING,
    pickle.SHORT_BINSTRING, pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINBYTES,
    pickle.SHORT_BINBYTES, pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.LIST,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD,
)  # fmt: skip
PythonUnpickler: Any = pickle._Unpickler  # in C, a number in a file chooses how much memory is taken


class _Unpickler(PythonUnpickler):
    """Knows the opcodes of lists, tuples, numbers, texts and of what `GLOBALS` names, and no others."""

    dispatch: ClassVar = {code[0]: PythonUnpickler.dispatch[code[0]] for code in OPCODES}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in GLOBALS:
            raise pickle.UnpicklingError(f"it wants {str(module)[:80]}.{str(name)[:80]}, which is not run")
        return GLOBALS[module, name]
