"""Omniglot as Burda et al. (2016) made it: 24,345 + 8,070 drawings of 28×28, grey, ink is 1; labels are alphabets.

As in the authors' code: the columns of an image come one after the other, the training images are shuffled by
RandomState(123), and the last 1,345 of them are held out as validation. Nobody publishes a sha256 or the size of the
file; it is known by its name in the git repository of its publisher.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import mat
from vae.datasets.arrays import as_images
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile
from vae.datasets.splits import cut

ABOUT = About(
    sizes=(23_000, 1345, 8070),
    shape=(28, 28, 1),
    images="grey",
    publisher="Y. Burda, github.com/yburda/iwae, of B. Lake's Omniglot",
    licence="not stated by the publisher; Omniglot is MIT",
)
DATA = RawData(
    name="omniglot_burda",
    files=(
        RawFile(
            url="https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",
            size=None,
            checksum="git:016a3536ffe5e1d38e42563a18d7a78bfaf643ec",
        ),
    ),
)
NUM_VALIDATION, SEED = 1345, 123


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From the matrices data and testdata [784, N], target and testtarget [alphabets, N]."""
    path, *_ = paths
    train, train_alphabets, test, test_alphabets = mat.read(path, "data", "target", "testdata", "testtarget")
    splits = []
    images = as_images({f"{path}: {name}": _upright(path, m) for name, m in (("data", train), ("testdata", test))})
    for image, alphabets in zip(images, (train_alphabets, test_alphabets), strict=True):
        if alphabets.ndim != 2 or alphabets.shape[1] != len(image):
            raise DataError(f"{path} has {len(image)} images and targets of shape {alphabets.shape}")
        splits.append(Split(image, alphabets.argmax(0).astype(np.int32)))
    if len(splits[0].images) <= NUM_VALIDATION:
        raise DataError(f"{path} has {len(splits[0].images)} training images, not more than {NUM_VALIDATION}")
    shuffled = splits[0].at(np.random.RandomState(SEED).permutation(len(splits[0].images)))
    kept, held_out = cut(shuffled, NUM_VALIDATION)
    return {"train": kept, "validation": held_out, "test": splits[1]}


def _upright(path: Path, pixels: np.ndarray) -> np.ndarray:
    """[784, N], by columns -> images [N, 28, 28]."""
    if pixels.ndim != 2 or len(pixels) != 784:
        raise DataError(f"{path} has images of {'×'.join(map(str, pixels.shape))}, not of 784 rows")
    return pixels.T.reshape(-1, 28, 28).swapaxes(1, 2)
