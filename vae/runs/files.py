"""Files of a run folder: each is written in one step, and is not trusted when it is read."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae import durable, hosts, untrusted


@hosts.shared
class RunError(ValueError):
    """A run folder that cannot be used as asked; one line for the user."""


class RunWarning(UserWarning):
    """Something of a run was lost, damaged or is in doubt, and the work continues; one line for the user."""


def write_json(path: Path, values: Any) -> None:
    """Write JSON in one step: a reader sees the old file or the new one. A number that is not finite becomes null."""
    if not hosts.is_first():
        return
    durable.write(path, json.dumps(finite_or_null(values), indent=1).encode() + b"\n")


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
    """The object in a file; raises RunError if it is missing, not a file, or not a JSON object."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe never ends
            raise RunError(f"{path} is no file; replace it, or choose another folder")
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path.parent} holds no run: {path} cannot be read ({error.strerror})") from error
    try:
        return untrusted.parse_object(content)
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not valid JSON ({error})") from error


def is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least
