"""dSprites (Matthey et al., 2017): each combination of shape, scale, orientation, x and y once, 64×64, black and white.

Published without a split: a tenth, drawn by a seed of this project, is test here. The publisher's constant colour is
left out. The md5 of the .npz is that of many libraries, as github.com/google-deepmind publishes no sha256; that of the
.hdf5, which h5py reads, is a sha256 of tensorflow-datasets.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import hdf5, npz
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile
from vae.datasets.splits import hold_out_test, permute

FACTORS = {
    "shape": ("square", "ellipse", "heart"),
    "scale": tuple(0.5 + index / 10 for index in range(6)),
    "orientation": tuple(2 * math.pi * index / 39 for index in range(40)),
    "x": tuple(index / 31 for index in range(32)),
    "y": tuple(index / 31 for index in range(32)),
}
ABOUT = About(
    sizes=(663_552, 73_728),
    shape=(64, 64, 1),
    images="black and white; the split is by a seed of this project",
    publisher="L. Matthey et al., github.com/google-deepmind/dsprites-dataset",
    licence="Apache 2.0, of its repository",
    factors=FACTORS,
)
_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
DATA = RawData(
    name="dsprites",
    files=(
        RawFile(
            url=f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{_NAME}.npz",
            size=None,
            checksum="md5:7da33b31b13a06f4b04a70402ce90c2e",
            forms={f"{_NAME}.hdf5": "729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb"},
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From imgs [N, 64, 64] of 0 and 1, and the classes of the latents [N, 6], of which the first is the colour."""
    path, *_ = paths
    if path.suffix == ".hdf5":
        images, classes = hdf5.read(path, "imgs", "latents/classes")
    else:
        arrays = npz.read(path, ("imgs", "latents_classes"))
        if missing := sorted({"imgs", "latents_classes"} - arrays.keys()):
            raise DataError(f"{path} has no key {', '.join(missing)}; its keys are: {', '.join(sorted(arrays)[:20])}")
        images, classes = arrays["imgs"], arrays["latents_classes"]
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (64, 64) or images.max() > 1:
        raise DataError(f"{path} has imgs of {images.dtype} {images.shape}, not 0 and 1 of N×64×64")
    counts = [len(values) for values in FACTORS.values()]
    factors = classes[:, 1:].astype(np.int32) if classes.shape == (len(images), 6) else np.empty((0, 5), np.int32)
    if not len(factors) or factors.min() < 0 or (factors.max(0) >= counts).any():
        raise DataError(f"{path} has classes of latents {classes.shape}, or others than there are values")
    np.multiply(images, 255, out=images)
    train, test = hold_out_test("dsprites", permute(Split(images[..., None], None, factors)))
    return {"train": train, "test": test}
