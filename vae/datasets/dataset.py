"""What `load` returns, and the error that it raises."""

from typing import NamedTuple

import numpy as np


class DataError(ValueError):
    """A user's mistake, in one line: what was given, what is allowed, what to do."""


class Split(NamedTuple):
    """Images [N, H, W, C], uint8 in 0..255 or float32 in [0, 1] off the 1/255 grid; labels [N] int32, or None."""

    images: np.ndarray
    labels: np.ndarray | None = None


class Dataset(NamedTuple):
    """Three splits of one data set; `validation` may be empty. `binary`: every pixel is 0 or 255."""

    name: str
    train: Split
    validation: Split
    test: Split
    binary: bool
