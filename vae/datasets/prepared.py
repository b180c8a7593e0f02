"""Any TFDS data set that is already prepared in array_record format."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae.datasets.arrays import as_images, as_labels
from vae.datasets.dataset import DataError, Split
from vae.datasets.progress import bar
from vae.datasets.resize import resize

INFO = "dataset_info.json"


def homes(data_dir: Path) -> list[Path]:
    """Where prepared data sets are looked for by name: `data_dir`, and where TFDS puts them."""
    return [data_dir, Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()]


def names(data_dir: Path) -> list[str]:
    """Data sets that a name can mean."""
    folders = (folder for home in homes(data_dir) if home.is_dir() for folder in home.iterdir() if folder.is_dir())
    return sorted({folder.name for folder in folders if _versions(folder)})


def find(folder: Path) -> Path | None:
    """The folder with the data: `folder` or its newest version. Raises DataError if it has several configurations."""
    found = _versions(folder)
    if len({path.parent for path in found}) > 1:
        raise DataError(f"{folder} has several configurations; name one of: {', '.join(sorted(map(str, found)))}")
    return max(found, key=_version, default=None)


def find_by_name(name: str, data_dir: Path) -> Path | None:
    """As `find`, for `name`, `name/config` or either with `:version`."""
    return next(filter(None, (find(home / name.replace(":", "/")) for home in homes(data_dir))), None)


def load_prepared(folder: Path, image_size: int | None, progress: bool) -> dict[str, Split]:
    """Splits train, validation and test, as far as there are; feature `image` [H, W, C], and perhaps `label`."""
    from vae.datasets.builder import quiet

    images, labels = {}, {}
    with quiet(progress):
        builder = _open(folder)
        for split in ("train", "validation", "test"):
            if split in builder.info.splits:
                where = f"{folder} {split}"
                images[where], labels[split] = _stack(_blocks(builder, split, where, progress), where, image_size)
    return {
        split: Split(checked, as_labels(numbers, len(checked), f"{folder} {split} label") if len(numbers) else None)
        for (split, numbers), checked in zip(labels.items(), as_images(images), strict=True)
    }


def _open(folder: Path) -> Any:
    """The TFDS builder of a folder that has what is needed."""
    from vae.datasets.builder import tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS raises whatever its files make it raise
        raise DataError(f"{folder} cannot be read by TFDS: {_first_line(error)}") from error
    file_format = getattr(builder.info.file_format, "value", None)
    if file_format != "array_record":
        raise DataError(f"{folder} is prepared as {file_format}; prepare it with file_format='array_record'")
    if "image" not in builder.info.features:
        raise DataError(f"{folder} has no feature 'image'; its features are: {', '.join(builder.info.features)}")
    if "train" not in builder.info.splits:
        raise DataError(f"{folder} has no split 'train'; its splits are: {', '.join(builder.info.splits)}")
    return builder


def _versions(folder: Path) -> list[Path]:
    """Folders with data: `folder` itself, its versions, or the versions of its configurations."""
    if (folder / INFO).is_file():
        return [folder]
    found = [path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{INFO}")]
    return [path for path in found if not path.name.startswith("incomplete.")]  # a killed preparation's


def _version(folder: Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def _blocks(builder: Any, split: str, where: str, progress: bool) -> Iterator[list[dict]]:
    """By blocks, as reading examples one by one is five times slower."""
    try:
        source = builder.as_data_source(split)
        with bar(f"{builder.name} {split}", len(source), "images", progress) as progress_bar:
            for start in range(0, len(source), 1024):
                block = source.__getitems__(range(start, min(start + 1024, len(source))))
                if any(example["image"] is None for example in block):  # how the reader gives what was cut off
                    raise EOFError("images are missing")
                progress_bar.update(len(block))
                yield block
    except Exception as error:  # the reader's errors are of many types
        raise DataError(f"{where} is damaged: {_first_line(error)}; delete the folder and prepare it again") from error


def _stack(blocks: Iterator[list[dict]], where: str, image_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, C], and labels [N], or [0] where there are none."""
    images, labels = [], []
    for block in blocks:
        for example in block:
            image = np.asarray(example["image"])
            images.append(resize(image[None], image_size)[0] if image_size and image.ndim == 3 else image)
            if images[0].shape != images[-1].shape:
                raise DataError(
                    f"{where} has images of {images[0].shape} and {images[-1].shape}; "
                    "pass --image_size=N to crop and resize all to N×N"
                )
        labels += [example["label"] for example in block if "label" in example]
    if not images:
        raise DataError(f"{where} is empty")
    return np.stack(images), np.array(labels)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
