"""Where files are: paths as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike) -> Path:
    """`path` with the home folder for ~; raises FileNotFoundError if nobody knows that folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{path} is in a home folder that is not known; write the whole path, or set HOME"
        ) from error
