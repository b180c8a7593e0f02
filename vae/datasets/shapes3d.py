"""3D Shapes (Burgess and Kim, 2018): every combination of six factors of a drawn room once, 64×64, colour.

Published without a split: a tenth, drawn by a seed of this project, is test here. The values of a factor are numbered
in their order. URL, size and sha256 are those of tensorflow-datasets.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import hdf5
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile
from vae.datasets.splits import hold_out_test, permute

COUNTS = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4, "orientation": 15}
ABOUT = About(
    sizes=(432_000, 48_000),
    shape=(64, 64, 3),
    images="colour; the split is by a seed of this project",
    publisher="C. Burgess and H. Kim, github.com/google-deepmind/3d-shapes",
    licence="Apache 2.0, of its repository",
    needs="h5py",
    factors={name: tuple(range(count)) for name, count in COUNTS.items()},
)
DATA = RawData(
    name="shapes3d",
    files=(
        RawFile(
            url="https://storage.googleapis.com/3d-shapes/3dshapes.h5",
            size=267573662,
            checksum="0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From images [N, 64, 64, 3] and the values of the factors, labels [N, 6]."""
    path, *_ = paths
    images, values = hdf5.read(path, "images", "labels")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (64, 64, 3):
        raise DataError(f"{path} has images of {images.dtype} {images.shape}, not uint8 of N×64×64×3")
    if values.shape != (len(images), len(COUNTS)):
        raise DataError(f"{path} has labels of shape {values.shape} for {len(images)} images")
    positions = []
    for (name, count), column in zip(COUNTS.items(), values.T, strict=True):
        distinct, position = np.unique(column, return_inverse=True)
        if len(distinct) != count:
            raise DataError(f"{path} has {len(distinct)} values of {name}, not {count}")
        positions.append(position.reshape(-1).astype(np.int32))
    train, test = hold_out_test("shapes3d", permute(Split(images, None, np.stack(positions, axis=1))))
    return {"train": train, "test": test}
