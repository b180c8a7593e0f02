"""Street View House Numbers (Netzer et al., 2011), cropped: 73,257 + 26,032 photographs of a digit, 32×32, colour.

URLs, sizes and sha256 are those of tensorflow-datasets. The further 531,131 easier images are left out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import mat
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile

ABOUT = About(
    sizes=(73_257, 26_032),
    shape=(32, 32, 3),
    images="colour",
    publisher="Y. Netzer et al., Stanford University, of Google Street View",
    licence="for non-commercial use",
)
_URL = "http://ufldl.stanford.edu/housenumbers/"
DATA = RawData(
    name="svhn_cropped",
    files=(
        RawFile(
            url=_URL + "train_32x32.mat",
            size=182040794,
            checksum="435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        RawFile(
            url=_URL + "test_32x32.mat",
            size=64275384,
            checksum="cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From the training and the test file."""
    return dict(zip(("train", "test"), map(_read_file, paths), strict=True))


def _read_file(path: Path) -> Split:
    """From X [32, 32, 3, N] and y [N, 1], in which 10 is the digit 0."""
    pixels, labels = mat.read(path, "X", "y")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise DataError(f"{path} has X of {pixels.dtype} {'×'.join(map(str, pixels.shape))}, not uint8 of 32×32×3×N")
    if labels.size != pixels.shape[3] or labels.min() < 1 or labels.max() > 10:
        raise DataError(f"{path} has {labels.size} labels for {pixels.shape[3]} images, or others than 1 to 10")
    return Split(np.ascontiguousarray(np.moveaxis(pixels, 3, 0)), labels.reshape(-1).astype(np.int32) % 10)
