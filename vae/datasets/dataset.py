"""What `load` returns, and the error that it raises."""

from typing import NamedTuple

import numpy as np


class DataError(ValueError):
    """A user's mistake, in one line: what was given, what is allowed, what to do. Names of options as `image_size`."""


class Split(NamedTuple):
    """Images [N, H, W, C], uint8 in 0..255 or float32 in [0, 1] off the 1/255 grid; labels [N] int32, or None."""

    images: np.ndarray
    labels: np.ndarray | None = None


class Dataset(NamedTuple):
    """Three splits of one data set; `validation` may be empty. `binary`: every pixel is 0 or 255.

    Label i is of class `classes[i]`: the number or the name that the data give it. `classes` is None if there are no
    labels. `account` says in words which images were used, which were passed over, and why; empty for a named data set.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    binary: bool
    classes: tuple[int | str, ...] | None = None
    account: str = ""


class Loaded(NamedTuple):
    """The splits of one data set as a file or a folder has them: labels are the numbers or names of their classes."""

    splits: dict[str, Split]
    account: str = ""
