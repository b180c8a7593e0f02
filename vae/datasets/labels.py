"""Labels: the numbers or names that a user gives to classes, and the positions 0, 1, 2, … that models read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vae.datasets.dataset import DataError, Dataset, Split

WANTED = "labels are [N] integers or names, or [N, classes] with a single 1 in each row"


def as_labels(labels: np.ndarray, num_images: int, where: str) -> np.ndarray:
    """Checks labels, one for each image -> [N] integers or texts; raises DataError.

    [N, 1] is a column of them, and a row of [N, classes] with one 1 is the label of its position. Floats must be whole.
    """
    values: np.ndarray = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind == "f" and (np.abs(values) < 2.0**62).all() and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    if values.ndim == 2 and values.dtype.kind in "biu" and _is_one_hot(values):
        values = values.argmax(1)
    if values.ndim != 1 or values.dtype.kind not in "biuU":
        raise DataError(f"{where} has shape {labels.shape} and type {labels.dtype}; {WANTED}")
    if len(values) != num_images:
        raise DataError(f"{where} has {len(values)} labels for {num_images} images; give one for each image")
    return values.astype(np.int64) if values.dtype.kind == "b" else values


def compact(splits: Mapping[str, Split], where: str) -> tuple[dict[str, Split], tuple[int | str, ...] | None]:
    """`splits` with the positions of their labels, int32, among all classes; the classes, in natural order.

    The classes are None if no split has labels. Raises DataError if some are numbers and others are names.
    """
    values = [split.labels for split in splits.values() if split.labels is not None]
    if not values:
        return dict(splits), None
    if len({array.dtype.kind == "U" for array in values}) > 1:
        raise DataError(f"{where} has numbers as the labels of one split and names as those of another; give one kind")
    found: set[int | str] = set()
    for array in values:
        found |= set(np.unique(array).tolist())
    classes = tuple(sorted(found, key=natural))
    return {
        name: split._replace(labels=None if split.labels is None else positions(split.labels, classes))
        for name, split in splits.items()
    }, classes


def positions(labels: np.ndarray, classes: Sequence[int | str]) -> np.ndarray:
    """Of labels [N] among `classes`: [N] int32, −1 of one that is not among them."""
    index = {name: position for position, name in enumerate(classes)}
    distinct, inverse = np.unique(labels, return_inverse=True)
    of_distinct = np.array([index.get(value, -1) for value in distinct.tolist()], np.int32)
    return of_distinct[inverse.reshape(-1)] if len(distinct) else np.zeros(0, np.int32)


def before_names(dataset: Dataset) -> Dataset:
    """`dataset` with the labels that runs were trained on when nothing kept the names of classes.

    Numbers stood for themselves, and folders counted in the order of their letters, 10 before 2.
    """
    if dataset.classes is None:
        return dataset
    letters = sorted(name for name in dataset.classes if isinstance(name, str))
    old = np.array([letters.index(name) if isinstance(name, str) else name for name in dataset.classes])
    if old.min() < -(2**31) or old.max() >= 2**31:
        return dataset  # such labels were refused
    splits = {
        name: split._replace(labels=None if split.labels is None else old.astype(np.int32)[split.labels])
        for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    }
    return dataset._replace(**splits, classes=None)


def natural(name: int | str) -> Any:
    """Sorts numbers by size and texts by the numbers in them: 2 before 10, x2 before x10."""
    if isinstance(name, int):
        return name
    parts = re.split(r"([0-9]+)", name)
    numbers = [(len(digits.lstrip("0")), digits.lstrip("0")) for digits in parts[1::2]]
    return parts[::2][:1], [*zip(numbers, parts[2::2], strict=True)], name


def _is_one_hot(values: np.ndarray) -> bool:
    return bool(values.size and ((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())
