"""Which images a run was trained on: `data` in its config.json, compared with what is loaded later.

{"images": {split: {"count": N, "sha256": of the images as they are stored, "labels": sha256 or null}}, "classes": the
number or name of each label, or null}. In a config.json of before format 4 it is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae.datasets.dataset import Dataset
from vae.datasets.labels import before_names
from vae.runs.files import RunError, is_count, read_json
from vae.runs.folder import CONFIG

SINCE = 4  # the format of config.json that came with it
SPLITS = ("train", "validation", "test")
Record = Mapping[str, Any]


def of(dataset: Dataset) -> dict[str, Any]:
    """What config.json keeps of the data set; a tenth of a second for MNIST."""
    images = {}
    for split in SPLITS:
        stored, labels, _ = getattr(dataset, split)
        sha256 = None if labels is None else _sha256(labels)
        images[split] = {"count": len(stored), "sha256": _sha256(stored), "labels": sha256}
    return {"images": images, "classes": None if dataset.classes is None else list(dataset.classes)}


def read(workdir: Path) -> Record | None:
    """What the config.json of a run says of its data; None of a run from before format 4. Raises RunError."""
    path = workdir / CONFIG
    values = read_json(path)
    found = values.get("data")
    if found is None and is_count(values.get("format", 1)) and values.get("format", 1) < SINCE:
        return None
    if not _is_record(found):
        raise RunError(f"{path} is damaged: its 'data' does not say which images the run was trained on; put it back")
    return found


def check(record: Record | None, dataset: Dataset, of_run: str, *, conditional: bool) -> Dataset:
    """`dataset` with the labels that the run was trained with; raises RunError unless it has the images of `record`.

    Labels must be the same if the run is conditional. None, of a run from before format 4, says nothing: the labels
    are those that it had then.
    """
    if record is None or record["classes"] is None:
        dataset = before_names(dataset)
    if record is None:
        return dataset
    found = of(dataset)
    differing = differences(record["images"], found["images"], conditional=conditional)
    if conditional and found["classes"] != record["classes"]:
        differing.append("other classes")
    if differing:
        raise RunError(
            f"{dataset.name} is not what {of_run} was trained on: it has {', '.join(differing)}; put the images back, "
            "or say with `dataset` where they are now"
        )
    return dataset


def differences(before: Record, now: Record, *, conditional: bool) -> list[str]:
    """How the images `now` differ from those `before`, both as "images" of `of`; their labels too if `conditional`."""
    differing = []
    for split, stored in before.items():
        here = now[split]
        if here["count"] != stored["count"]:
            differing.append(f"{here['count']} {split} images, not {stored['count']}")
        elif here["sha256"] != stored["sha256"]:
            differing.append(f"other {split} images")
        elif conditional and here["labels"] != stored["labels"]:
            differing.append(f"other labels of the {split} images")
    return differing


_known: dict[int, tuple[np.ndarray, str]] = {}  # of the arrays of the last data sets: their runs are many


def _sha256(array: np.ndarray) -> str:
    if id(array) in _known:
        return _known[id(array)][1]
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    while len(_known) >= 6:  # images and labels of three splits
        del _known[next(iter(_known))]
    _known[id(array)] = array, digest.hexdigest()
    return digest.hexdigest()


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"images", "classes"}:
        return False
    classes = value["classes"]
    named = isinstance(classes, list) and all(isinstance(name, str) or type(name) is int for name in classes)
    return (classes is None or named) and is_of_images(value["images"])


def is_of_images(value: Any) -> bool:
    """Whether it is the "images" of `of`."""
    return isinstance(value, dict) and value.keys() == set(SPLITS) and all(map(_is_split, value.values()))


def _is_split(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"count", "sha256", "labels"}
        and is_count(value["count"])
        and isinstance(value["sha256"], str)
        and isinstance(value["labels"], str | None)
    )
