"""Read the arrays of an .npz file: never larger than its bytes can hold, and never a Python object."""

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from vae import untrusted
from vae.datasets.dataset import DataError

MAGIC = np.lib.format.MAGIC_PREFIX
# What zipfile, its decompressors and numpy's parser of heads raise for damaged files.
DAMAGE = (
    OSError, ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, RuntimeError, MemoryError,
    OverflowError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, zipfile.LargeZipFile,
    tokenize.TokenError,
)  # fmt: skip
MOST_DEFLATED = 1032  # most bytes that deflate can make of one


def read(path: Path, wanted: Container[str]) -> dict[str, np.ndarray]:
    """The arrays of the keys that are `wanted`; all other keys have an empty array.

    The size that a header claims is compared with the file and with the free memory before an array is made. Raises
    DataError, and OSError if the system does not let it be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            chosen = {key: info for key, info in members.items() if key in wanted}
            claims = {key: _claim(archive, info, path.stat().st_size) for key, info in chosen.items()}
            try:
                untrusted.check_memory(sum(claims.values()))
            except ValueError as error:
                largest = max(claims, key=lambda key: claims[key])
                raise DataError(f"{path}: its arrays, above all {largest!r}, take {error}; save fewer") from error
            return {key: _array(archive, members[key]) if key in chosen else np.empty(0) for key in members}
    except DataError:
        raise
    except DAMAGE as error:
        if refused := untrusted.of_the_system(error, path):
            raise refused from error
        if str(error) == "File is not a zip file":
            raise DataError(f"{path} is not an .npz file (numpy.savez writes one), or it is cut short") from error
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(f"{path} holds Python objects, which are not read; save numbers of one shape") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged: {reason}; save it again with numpy.savez") from error


def _claim(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size_of_file: int) -> int:
    """Bytes of the array in a member; ValueError if its header claims more than the member holds."""
    if info.flag_bits & 0x1:
        raise ValueError(f"{info.filename} is encrypted, and no password is asked for")
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_DEFLATED}.get(info.compress_type, math.inf)
    if info.compress_size > size_of_file or info.file_size > ratio * info.compress_size:
        raise ValueError(f"{info.filename} claims {info.file_size:,} bytes, more than the file can hold")
    with archive.open(info) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{info.filename} is no array")
        file.seek(0)
        shape, dtype = _head(file)
        claimed, there = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays are not read")
    if any(length < 0 for length in shape) or claimed != there:
        raise ValueError(f"{info.filename} claims {dtype} of {shape}, {claimed:,} bytes, and holds {there:,}")
    return claimed


def _head(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype in the header of an .npy file."""
    version = np.lib.format.read_magic(file)
    read_head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read_head is None:
        raise ValueError("its arrays have fields with names; save plain numbers")
    shape, _, dtype = read_head(file)
    return shape, dtype


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
