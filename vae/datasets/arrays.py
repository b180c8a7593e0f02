"""A user's arrays: .npz files, and the checks that every array passes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vae.datasets import npz
from vae.datasets.dataset import DataError, Loaded, Split
from vae.datasets.labels import as_labels

# The first key of each row that the file holds is used, with a small or a capital first letter. x_train and y_train are
# the names Keras uses, train_images and train_labels those of MedMNIST.
KEYS = {
    "train": (
        ("images", "x", "x_train", "train_images", "images_train"),
        ("labels", "y", "y_train", "train_labels", "labels_train"),
    ),
    "validation": (
        ("images_val", "x_val", "val_images", "images_validation", "x_valid", "x_validation"),
        ("labels_val", "y_val", "val_labels", "labels_validation", "y_valid", "y_validation"),
    ),
    "test": (("images_test", "x_test", "test_images"), ("labels_test", "y_test", "test_labels")),
}


def load_npz(path: Path) -> Loaded:
    """Load an .npz file with the keys of `KEYS`: split train, and validation and test if the file has them."""
    known = {split: [_spellings(names) for names in roles] for split, roles in KEYS.items()}
    arrays = npz.read(path, {name for roles in known.values() for names in roles for name in names})
    used = {
        split: [next((key for key in names if key in arrays), None) for names in roles]
        for split, roles in known.items()
    }
    listed = ", ".join(sorted(arrays)[:20]) or "none"
    if used["train"][0] is None:
        raise DataError(f"{path} has no key 'images' or 'x'; its keys are: {listed}")
    for split, (images, labels) in used.items():
        if labels is not None and images is None:
            raise DataError(f"{path} has the key {labels!r} but no {' or '.join(map(repr, KEYS[split][0][:2]))}")
    names = {split: (images, labels) for split, (images, labels) in used.items() if images is not None}
    checked = as_images({f"{path}: {images}": arrays[images] for images, _ in names.values()})
    splits = {
        split: Split(values, as_labels(arrays[key], len(values), f"{path}: {key}") if key else None)
        for (split, (_, key)), values in zip(names.items(), checked, strict=True)
    }
    taken = [key for pair in names.values() for key in pair if key]
    passed = ", ".join(sorted(set(arrays) - set(taken))) or "nothing"
    first = arrays[names["train"][0]]
    table = f", each of {first.shape[1]} values as an image of 1×{first.shape[1]}" if first.ndim == 2 else ""
    count = sum(len(split.images) for split in splits.values())
    return Loaded(splits, f"{count} images used, of the keys {', '.join(taken)}{table}; passed over: {passed}")


def _spellings(names: Sequence[str]) -> list[str]:
    return [spelling for name in names for spelling in (name, name.capitalize())]


def as_images(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Checks images that belong together; each becomes [N, H, W, C], uint8, or float32 if off the 1/255 grid.

    The keys name each array in an error. A table [N, D] is of images 1×D. Integers are 0..255, except that bool, and
    integers that are all 0 or 1, become 0 and 255. Floats lie in [0, 1]; multiples of 1/255 become uint8.
    """
    batches = [_with_channels(array, where) for where, array in arrays.items()]
    shapes = {where: batch.shape[1:] for where, batch in zip(arrays, batches, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DataError("images differ in shape: " + ", ".join(f"{where} {shape}" for where, shape in shapes.items()))
    for where, batch in zip(arrays, batches, strict=True):
        _check_range(batch, where)
    if all(batch.dtype.kind in "biu" for batch in batches):
        scale = np.uint8(255 if max(batch.max() for batch in batches) <= 1 else 1)
        stored = [batch.astype(np.uint8, copy=False) for batch in batches]
        return stored if scale == 1 else [batch * scale for batch in stored]
    if not all(batch.dtype.kind == "f" for batch in batches):
        types = ", ".join(f"{where} {array.dtype}" for where, array in arrays.items())
        raise DataError(f"images differ in type: {types}; save all as uint8, or all as floats in [0, 1]")
    if all(_on_grid(batch) for batch in batches):
        return [np.rint(batch.astype(np.float32) * 255).astype(np.uint8) for batch in batches]
    return [batch.astype(np.float32, copy=False) for batch in batches]


def _with_channels(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype.kind not in "biuf":
        raise DataError(f"{where} is of type {images.dtype}; images are integers in 0..255 or floats in [0, 1]")
    if images.ndim not in (2, 3, 4):
        raise DataError(f"{where} has shape {images.shape}; images are [N, H, W] or [N, H, W, C], or a table [N, D]")
    if images.ndim == 2:
        images = images[:, None]
    images = images[..., None] if images.ndim == 3 else images
    if 0 in images.shape:
        raise DataError(f"{where} has shape {images.shape}; there is no pixel in it")
    if images.shape[-1] > 4:
        raise DataError(f"{where} has shape {images.shape}; channels come last and are 4 at most: [N, H, W, C]")
    return images


def _check_range(images: np.ndarray, where: str) -> None:
    low, high = images.min(), images.max()
    if np.isnan(low) or np.isnan(high):
        raise DataError(f"{where} has NaN pixels; images are integers in 0..255 or floats in [0, 1]")
    limit = 1 if images.dtype.kind == "f" else 255
    if low < 0 or high > limit:
        kind = "floats must lie in [0, 1]" if limit == 1 else "integers must lie in 0..255"
        raise DataError(f"{where} ({images.dtype}) ranges from {low} to {high}; {kind}: rescale it")


def _on_grid(images: np.ndarray) -> bool:
    """Whether every value is a multiple of 1/255, as its type rounds it."""
    blocks = (images[start : start + 4096] for start in range(0, len(images), 4096))
    return all(np.allclose((np.rint(b * 255.0) / 255.0).astype(b.dtype), b, rtol=0, atol=1e-6) for b in blocks)
