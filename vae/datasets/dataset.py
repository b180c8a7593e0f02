"""What `load` returns, what is known of a named data set, and the error that `load` raises."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Factors = Mapping[str, tuple[Any, ...]]  # the name of each factor of the images -> the values that it takes


class DataError(ValueError):
    """A user's mistake, in one line: what was given, what is allowed, what to do. Names of options as `image_size`."""


class Split(NamedTuple):
    """Images [N, H, W, C], uint8 in 0..255 or float32 in [0, 1] off the 1/255 grid; labels [N] int32, or None.

    `factors` [N, F] int32, or None: which value each factor has, a position among `Dataset.factors`.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None

    def at(self, index: np.ndarray | slice) -> "Split":
        """The examples at `index`."""
        return Split(self.images[index], *(None if array is None else array[index] for array in self[1:]))


class Dataset(NamedTuple):
    """Three splits of one data set; `validation` may be empty. `binary`: every pixel is 0 or 255.

    Label i is of class `classes[i]`: the number or the name that the data give it. `classes` is None if there are no
    labels. `factors` are those from which the images were made, if they are known. `account` says in words which images
    were used, which were passed over, and why; empty for a named data set.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    binary: bool
    classes: tuple[int | str, ...] | None = None
    account: str = ""
    factors: Factors | None = None


class Loaded(NamedTuple):
    """The splits of one data set as a file or a folder has them: labels are the numbers or names of their classes."""

    splits: dict[str, Split]
    account: str = ""


class About(NamedTuple):
    """What is known of a named data set before it is here.

    `sizes` are the numbers of images of its splits, and `shape` is [H, W, C]. `images` says in words what they are.
    `needs` is a package that reads the files and is not among the requirements. `factors` as in `Dataset`.
    """

    sizes: tuple[int, ...]
    shape: tuple[int, int, int]
    images: str
    publisher: str
    licence: str
    needs: str = ""
    factors: Factors | None = None

    def __str__(self) -> str:
        return f"{' + '.join(f'{size:,}' for size in self.sizes)} of {self.shape[0]}×{self.shape[1]}, {self.images}"

    @property
    def num_bytes(self) -> int:
        """Of the images as they are kept."""
        return sum(self.sizes) * math.prod(self.shape)
