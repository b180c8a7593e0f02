"""The idx format of MNIST and its descendants."""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets.dataset import DataError, Split


def read(path: Path) -> np.ndarray:
    """The uint8 array in an idx file, gzipped or not: two zero bytes, type 8, ndim, big-endian int32 sizes, values."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged: {error}") from error
    ndim = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * ndim], ">i4") if len(content) >= 4 + 4 * ndim else np.zeros(0, int)
    values = np.frombuffer(content[4 + 4 * ndim :], np.uint8)
    if ndim == 0 or len(shape) != ndim or len(values) != math.prod(shape.tolist()):
        raise DataError(f"{path} is not an idx file of uint8 values")
    return values.reshape(shape)


def read_splits(paths: Sequence[Path]) -> dict[str, Split]:
    """From training images, training labels, test images and test labels, in this order."""
    train_images, train_labels, test_images, test_labels = map(read, paths)
    return {
        "train": Split(train_images[..., None], train_labels.astype(np.int32)),
        "test": Split(test_images[..., None], test_labels.astype(np.int32)),
    }
