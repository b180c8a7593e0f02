"""Caltech 101 silhouettes (Marlin et al., 2010): outlines of 101 kinds of objects, 28×28, black and white.

As papers on VAEs use them (Tomczak and Welling, 2018): each image is transposed, so that it stands upright, and 1 − x.
`caltech101_silhouettes_published` has them as they are in the file. The md5 is that of github.com/google-deepmind's
dm_nevis; nobody publishes a sha256 or the size of the file.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import mat
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile

ABOUT = About(
    sizes=(4100, 2264, 2307),
    shape=(28, 28, 1),
    images="black and white; upright and 1 − x, as papers on VAEs use them",
    publisher="B. Marlin, University of Massachusetts Amherst",
    licence="not stated by the publisher",
)
DATA = RawData(
    name="caltech101_silhouettes",
    files=(
        RawFile(
            url="https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",
            size=None,
            checksum="md5:4483e9c14b188fd09937f9ea6f9ea777",
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """The published splits, upright and inverted."""
    return {
        name: split._replace(images=255 - split.images.swapaxes(1, 2)) for name, split in read_file(paths[0]).items()
    }


def read_file(path: Path) -> dict[str, Split]:
    """The splits as they are published, 0 and 255; labels are the names of the objects."""
    names = np.array(mat.read_names(path, "classnames"))
    splits = {}
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        pixels, labels = mat.read(path, f"{name}_data", f"{name}_labels")
        if pixels.ndim != 2 or pixels.shape[1] != 784 or labels.size != len(pixels):
            raise DataError(f"{path}: {name}_data of {'×'.join(map(str, pixels.shape))} with {labels.size} labels")
        if not ((pixels == 0) | (pixels == 1)).all():
            raise DataError(f"{path}: {name}_data holds other values than 0 and 1")
        index = labels.reshape(-1).astype(np.int64) - 1
        if index.min() < 0 or index.max() >= len(names):
            raise DataError(f"{path}: {name}_labels are not 1 to {len(names)}")
        splits[split] = Split(pixels.astype(np.uint8).reshape(-1, 28, 28, 1) * np.uint8(255), names[index])
    return splits
