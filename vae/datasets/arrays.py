"""A user's arrays: .npz files, and the checks that every array passes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae.datasets import npz
from vae.datasets.dataset import DataError, Split

# The first key of each row that the file holds is used; x_train, y_train, x_test, y_test are the names Keras uses.
KEYS = {
    "images": ("images", "x", "x_train"),
    "labels": ("labels", "y", "y_train"),
    "test images": ("images_test", "x_test"),
    "test labels": ("labels_test", "y_test"),
}


def load_npz(path: Path) -> dict[str, Split]:
    """Load an .npz file with the keys of `KEYS`: split train, and test if the file has one."""
    arrays = npz.read(path, {key for keys in KEYS.values() for key in keys})
    found = {role: key for role, keys in KEYS.items() if (key := next((key for key in keys if key in arrays), None))}
    if "images" not in found:
        raise DataError(f"{path} has no key 'images' or 'x'; its keys are: {', '.join(sorted(arrays)) or 'none'}")
    if "test labels" in found and "test images" not in found:
        raise DataError(f"{path} has the key {found['test labels']!r} but no 'images_test' or 'x_test'")
    roles = {"train": ("images", "labels"), "test": ("test images", "test labels")}
    roles = {split: keys for split, keys in roles.items() if keys[0] in found}
    images = as_images({f"{path}: {found[key]}": arrays[found[key]] for key, _ in roles.values()})
    splits = {}
    for (split, (_, role)), checked in zip(roles.items(), images, strict=True):
        key = found.get(role)
        splits[split] = Split(checked, as_labels(arrays[key], len(checked), f"{path}: {key}") if key else None)
    return splits


def as_images(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Checks images that belong together; each becomes [N, H, W, C], uint8, or float32 if off the 1/255 grid.

    The keys name each array in an error. Integers are 0..255, except that bool, and integers that are all
    0 or 1, become 0 and 255. Floats lie in [0, 1]; multiples of 1/255 become uint8.
    """
    batches = [_with_channels(array, where) for where, array in arrays.items()]
    shapes = {where: batch.shape[1:] for where, batch in zip(arrays, batches, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DataError("images differ in shape: " + ", ".join(f"{where} {shape}" for where, shape in shapes.items()))
    for where, batch in zip(arrays, batches, strict=True):
        _check_range(batch, where)
    if all(batch.dtype.kind in "biu" for batch in batches):
        scale = 255 if max(batch.max() for batch in batches) <= 1 else 1
        return [batch.astype(np.uint8) * np.uint8(scale) for batch in batches]
    if not all(batch.dtype.kind == "f" for batch in batches):
        types = ", ".join(f"{where} {array.dtype}" for where, array in arrays.items())
        raise DataError(f"images differ in type: {types}; save all as uint8, or all as floats in [0, 1]")
    if all(_on_grid(batch) for batch in batches):
        return [np.rint(batch.astype(np.float32) * 255).astype(np.uint8) for batch in batches]
    return [batch.astype(np.float32) for batch in batches]


def as_labels(labels: np.ndarray, num_images: int, where: str) -> np.ndarray:
    """Checks labels: [N] integers, one for each image -> int32."""
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise DataError(f"{where} has shape {labels.shape} and type {labels.dtype}; labels are [N] integers")
    if len(labels) != num_images:
        raise DataError(f"{where} has {len(labels)} labels for {num_images} images; give one for each image")
    if len(labels) and (labels.min() < -(2**31) or labels.max() >= 2**31):
        raise DataError(f"{where} has labels from {labels.min()} to {labels.max()}; they must fit 32 bits")
    return labels.astype(np.int32)


def _with_channels(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype.kind not in "biuf":
        raise DataError(f"{where} is of type {images.dtype}; images are integers in 0..255 or floats in [0, 1]")
    if images.ndim not in (3, 4):
        raise DataError(f"{where} has shape {images.shape}; images are [N, H, W] or [N, H, W, C]")
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
