"""Binarized MNIST (Larochelle and Murray, 2011): one fixed sample of MNIST, 50,000 + 10,000 + 10,000, no labels.

Pixels are 0 and 255. The test images are sorted by class. URLs, sizes and sha256 are those of tensorflow-datasets;
the .mat files hold the same pixels as key `X` (each turned back into the text has its published sha256).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import mat
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile

ABOUT = About(
    sizes=(50_000, 10_000, 10_000),
    shape=(28, 28, 1),
    images="black and white",
    publisher="H. Larochelle, University of Toronto, of MNIST",
    licence="not stated by the publisher; that of MNIST is usually quoted as CC BY-SA 3.0",
)
_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_"
DATA = RawData(
    name="binarized_mnist",
    files=(
        RawFile(
            url=_URL + "train.amat",
            size=78400000,
            checksum="ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
            forms={"binarized_mnist_train.mat": "79a0312c7389d855cfc97e3812de3998417c5829d8a51543b56a90a91252ae7e"},
        ),
        RawFile(
            url=_URL + "valid.amat",
            size=15680000,
            checksum="1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
            forms={"binarized_mnist_valid.mat": "7436afc856959075c7787025bb8a4ba2b520b9230ee39667c66aa7dd2819dd68"},
        ),
        RawFile(
            url=_URL + "test.amat",
            size=15680000,
            checksum="e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
            forms={"binarized_mnist_test.mat": "5bc30222e1e7896cbccd1e1db6b28540cc1230f4d2d5473841a5f6cc54be8d38"},
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From the files of training, validation and test images, in this order."""
    names = ("train", "validation", "test")
    return {name: Split(read_file(path)) for name, path in zip(names, paths, strict=True)}


def read_file(path: Path) -> np.ndarray:
    """Images [N, 28, 28, 1] of 0 and 255 from .mat, or from .amat text: a line per image, 784 digits 0 or 1."""
    if path.suffix == ".mat":
        (pixels,) = mat.read(path, "X")
        if pixels.ndim != 2 or pixels.shape[1] != 784:
            raise DataError(f"{path} has X of {'×'.join(map(str, pixels.shape))}, not of 784 columns")
    else:
        text = np.frombuffer(path.read_bytes(), np.uint8)
        if len(text) % (2 * 784) != 0:
            raise DataError(f"{path} is not lines of 784 digits")
        pixels = text.reshape(-1, 2 * 784)[:, ::2] - np.uint8(ord("0"))
    if not len(pixels) or not ((pixels == 0) | (pixels == 1)).all():
        raise DataError(f"{path} holds other values than 0 and 1")
    return pixels.reshape(-1, 28, 28, 1).astype(np.uint8) * np.uint8(255)
