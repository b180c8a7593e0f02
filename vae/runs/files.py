"""Files of a run folder: each is written in one step, and is not trusted when it is read."""

from __future__ import annotations

import io
import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae import durable, hosts, untrusted
from vae.runs import archive


@hosts.shared
class RunError(ValueError):
    """A run folder that cannot be used as asked; one line for the user."""


class RunWarning(UserWarning):
    """Something of a run was lost, damaged or is in doubt, and the work continues; one line for the user."""


CHECKSUM = re.compile(rb'{\n "crc32": "([0-9a-f]{8})",\n')  # the head of a JSON file


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object in one step: a reader sees the old file or the new one. A number that is not finite becomes null.

    It begins with the checksum of the file without that line.
    """
    if not hosts.is_first():
        return
    content = json.dumps(finite_or_null(dict(values)), indent=1).encode() + b"\n"
    head = b'{\n "crc32": "%08x",\n' % zlib.crc32(content)
    durable.write(path, content.replace(b"{\n", head, 1) if values else content)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz file in one step."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    durable.write(path, content.getvalue())


def finite_or_null(values: Any) -> Any:
    """`values` with None for NaN and infinity, which JSON cannot write."""
    if isinstance(values, dict):
        return {key: finite_or_null(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite_or_null(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; raises RunError if it is missing, not a file, or not a JSON object.

    So it does if the checksum is not that of the content. A file without one, or in another layout, as an editor
    leaves it, is taken as it is.
    """
    content = read_bytes(path)
    if found := CHECKSUM.match(content):
        content = b"{\n" + content[found.end() :]
        if zlib.crc32(content) != int(found[1], 16):
            raise RunError(
                f"{path} is damaged: it has another checksum than when it was written; put it back, or delete its line "
                "crc32 if you have edited the file"
            )
    try:
        values = untrusted.parse_object(content)
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not valid JSON ({error})") from error
    values.pop("crc32", None)
    return values


def read_bytes(path: Path) -> bytes:
    """The bytes of a file in a run folder, or in a packed run; raises RunError if it is missing or not a file."""
    if archive.is_packed(path.parent):
        return packed(path.parent)[path.name]
    try:
        if path.exists() and not path.is_file():  # a device or a pipe never ends
            raise RunError(f"{path} is no file; replace it, or choose another folder")
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path.parent} holds no run: {path} cannot be read ({error.strerror})") from error


def packed(path: Path) -> dict[str, bytes]:
    """The files of a packed run, by their names; raises RunError unless it is whole."""
    try:
        return archive.decoded(archive.read(path))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RunError(
            f"{path} cannot be used as a packed run: {error}; get it again, or pack the run again"
        ) from error


def is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least
