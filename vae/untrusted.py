"""Checks of what a file claims, before it is used: its JSON, names that become paths, sizes that take memory.

A run folder, a data set and a shared search may have been damaged, or made by a stranger. These functions raise
ValueError with a few words; the caller says which file it was and what to do.
"""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

OF_THE_SYSTEM = (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ESTALE)


def parse_json(content: str | bytes) -> Any:
    """The value of strict JSON: no NaN or infinity, no key twice, and not nested too deeply for Python."""
    try:
        text = content if isinstance(content, str) else content.decode()
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_object(content: str | bytes) -> dict[str, Any]:
    """As `parse_json`; the value must be an object."""
    values = parse_json(content)
    if not isinstance(values, dict):
        raise ValueError(f"it holds {_KINDS.get(type(values), 'a value')}, not an object")
    return values


def of_the_system(error: BaseException, path: Path) -> OSError | None:
    """The OSError with which the system refused to read `path`, if that is behind `error`: no fault of its content.

    Libraries raise errors of their own for it, or name it in a text. A seek to a place that a damaged file names is
    EINVAL.
    """
    seen: BaseException | None = error
    while seen is not None:
        numbers = [seen.errno] if isinstance(seen, OSError) else []
        numbers += [number for number in OF_THE_SYSTEM if os.strerror(number) in str(seen)]
        if number := next((number for number in numbers if number not in (None, errno.EINVAL, errno.EOVERFLOW)), None):
            return OSError(number, os.strerror(number), str(path))
        seen = seen.__cause__ or seen.__context__
    return None


def plain_name(name: Any) -> str:
    """`name`, if it names something inside a folder; raises ValueError if it could lead outside."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError(f"{str(name)[:80]!r} is not a plain name")
    return name


def available_memory() -> int:
    """Bytes of memory that are free without swapping; all of the memory if the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return physical_memory()


def physical_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(num_bytes: int) -> None:
    """Raises ValueError if there are not so many bytes of free memory."""
    if num_bytes > (available := available_memory()):
        raise ValueError(f"{num_bytes / 1e9:,.4g} GB, but there are {available / 1e9:,.4g} GB of free memory")


_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return values


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:80]} is too large a number")
    return value
