"""Load a folder of pictures."""

import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from vae import untrusted
from vae.datasets.dataset import DataError, Split
from vae.datasets.npz import MOST_DEFLATED
from vae.datasets.progress import bar
from vae.datasets.resize import resize

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of SUFFIXES; for PostScript, Pillow starts a program
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
GREY_MODES = ("1", "L", "LA")
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def load_folder(folder: Path, image_size: int | None, progress: bool) -> dict[str, Split]:
    """Pictures of `folder` and its sub-folders, sorted by path; uint8 with C=1 if all are grey, else C=3.

    Sub-folders are splits if one is `train` and all others have names in `SPLITS`; else all pictures are "train". The
    first folder below a split gives the label, counted in sorted order, if all pictures of the split lie in such a
    folder. Alpha is dropped, rotation in EXIF is not applied, and files with other suffixes or hidden names are
    skipped.
    """
    paths = {path.relative_to(folder): path for path in _pictures(folder)}
    if not paths:
        raise DataError(
            f"{folder} holds no pictures; files that end in {', '.join(SUFFIXES)} are read, sub-folders too"
        )
    splits, depth = {"train": list(paths)}, 0
    tops = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    if "train" in tops and set(tops) <= set(SPLITS):
        splits, depth = {SPLITS[top]: [path for path in paths if path.parts[0] == top] for top in tops}, 1
        stray = len(paths) - sum(map(len, splits.values()))
        if stray or len(splits) < len(tops):
            what = f"{stray} pictures outside" if stray else "two validation sets among"
            raise DataError(f"{folder} has {what} its folders {', '.join(tops)}; move or rename them")
    shape = _common_shape(list(paths.values()), image_size)
    labels = _labels(splits, depth)
    with bar(f"{folder.name}", len(paths), "pictures", progress) as progress_bar:
        images = {}
        for split, members in splits.items():
            images[split] = np.empty((len(members), *shape), np.uint8)
            for index, path in enumerate(members):
                images[split][index] = _decode(paths[path], shape[-1], image_size)
                progress_bar.update()
    return {split: Split(images[split], labels.get(split)) for split in splits}


def _pictures(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (name for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES))
        found += [Path(parent, name) for name in names]
    return sorted(found)


def _labels(splits: dict[str, list[Path]], depth: int) -> dict[str, np.ndarray]:
    """The index of the class folder of each picture, for each split that has all its pictures in class folders."""
    sorted_in = {s: paths for s, paths in splits.items() if all(len(path.parts) > depth + 1 for path in paths)}
    classes = sorted({path.parts[depth] for paths in sorted_in.values() for path in paths})
    index = {name: label for label, name in enumerate(classes)}
    return {s: np.array([index[path.parts[depth]] for path in paths], np.int32) for s, paths in sorted_in.items()}


def _common_shape(paths: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    """Height, width and channels, from the headers of all files, before any is decoded."""
    size, grey, largest = (0, 0), True, (0, 0)
    for path in paths:
        with _open(path) as picture:
            largest = max(largest, picture.size, key=np.prod)
            if picture.mode in DEEP_MODES:
                raise DataError(f"{path} has more than 8 bits per pixel; convert the pictures to 8 bits")
            grey &= picture.mode in GREY_MODES
            if image_size is None and size not in ((0, 0), picture.size):
                raise DataError(
                    f"pictures differ in size: {paths[0]} is {size[0]}×{size[1]}, {path} is "
                    f"{picture.width}×{picture.height}; pass --image_size=N to crop and resize all to N×N"
                )
            size = picture.size
    width, height = (image_size, image_size) if image_size else size
    channels = 1 if grey else 3
    _check_memory(len(paths), (height, width, channels), largest, paths[0].parent, image_size)
    return height, width, channels


def _check_memory(
    num_pictures: int, shape: tuple[int, int, int], largest: tuple[int, int], folder: Path, image_size: int | None
) -> None:
    """Raises DataError if the pictures, by the sizes in their headers, are too large to decode or to keep."""
    channels = shape[-1]
    # Pillow keeps four bytes a pixel; the picture is copied, and averaged as float64.
    decoded = largest[0] * largest[1] * (4 + channels + 8 * channels * bool(image_size))
    try:
        untrusted.check_memory(num_pictures * int(np.prod(shape, dtype=object)) + decoded)
    except ValueError as error:
        width, height = (image_size, image_size) if image_size else largest
        raise DataError(
            f"{num_pictures} pictures of {width}×{height} in {folder}, the largest of them {largest[0]}×{largest[1]}, "
            f"take {error}; " + ("use fewer, or a smaller --image_size" if image_size else
            "pass --image_size=N to crop and resize all to N×N")
        ) from error  # fmt: skip


def _decode(path: Path, channels: int, image_size: int | None) -> np.ndarray:
    with _open(path) as picture:
        try:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        except Exception as error:  # each format has its own errors
            raise DataError(f"{path} is damaged: {error}; replace or remove it") from error
    pixels = pixels.reshape(1, *pixels.shape[:2], channels)
    return (resize(pixels, image_size) if image_size else pixels)[0]


def _open(path: Path):
    try:
        return open_picture(path)
    except Exception as error:
        what = str(error) if str(error).startswith("claims ") else "is not a picture that can be read"
        if type(error).__name__ == "DecompressionBombError":
            what = f"claims more pixels than Pillow decodes ({error})"
        raise DataError(f"{path} {what}; {', '.join(FORMATS)} are read: replace or remove it") from error


def open_picture(file: Path | BytesIO):
    """A Pillow image of one of `FORMATS`, of any size that Pillow takes: who decodes it has checked the memory.

    Raises ValueError where a PNG claims more than its bytes can hold: Pillow fills up what is not there.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = Image.open(file, formats=FORMATS)
    size = file.getbuffer().nbytes if isinstance(file, BytesIO) else file.stat().st_size
    if picture.format == "PNG" and picture.width * picture.height > 8 * MOST_DEFLATED * size:  # 8 pixels in a byte
        picture.close()
        raise ValueError(f"claims {picture.width}×{picture.height} pixels, more than its {size} bytes can hold")
    return picture
