"""Omniglot (Lake et al., 2015): 19,280 + 13,180 drawings of 1,623 characters.

Drawn at 105×105, dark ink on paper; here ink is 255 and the size 28×28 by area averaging. Train is Lake's background
set and test his evaluation set, which share no character. This is not the 28×28 split of Burda et al. (2016): do not
compare the two. Labels count the characters of each set from 0, in the order of their folders. URLs, sizes and
sha256 are those of tensorflow-datasets; the .npz files hold the same pixels, `images` [C, 20, 105, 105] and `labels`.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import npz
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.pictures import DAMAGE, open_picture
from vae.datasets.resize import resize
from vae.datasets.sources import RawData, RawFile

ABOUT = About(
    sizes=(19_280, 13_180),
    shape=(28, 28, 1),
    images="grey; averaged from 105×105",
    publisher="B. Lake, github.com/brendenlake/omniglot",
    licence="MIT",
)
_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
DATA = RawData(
    name="omniglot",
    files=(
        RawFile(
            url=_URL + "images_background.zip",
            size=9464212,
            checksum="ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
            forms={"images_background.npz": "8bf84167413cd00beacdce3fe582f780ab538d8dbef043a6d688f2527bbce199"},
        ),
        RawFile(
            url=_URL + "images_evaluation.zip",
            size=6462886,
            checksum="1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
            forms={"images_evaluation.npz": "0b84c7ffd94c4841c0040e529c86a82eaaccb986d8eadad5673f7991b7475276"},
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From the background set and the evaluation set."""
    return dict(zip(("train", "test"), map(read_file, paths), strict=True))


def read_file(path: Path) -> Split:
    """Images [N, 28, 28, 1], ink 255, and the index of each one's character."""
    paper, labels = _read_npz(path) if path.suffix == ".npz" else _read_zip(path)
    ink = np.where(paper, np.uint8(0), np.uint8(255))
    return Split(resize(ink[..., None], 28), labels.astype(np.int32))


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = npz.read(path, ("images", "labels"))
    if not {"images", "labels"} <= arrays.keys():
        raise DataError(f"{path} has no keys 'images' and 'labels'; its keys are: {', '.join(sorted(arrays)[:20])}")
    images, labels = arrays["images"], arrays["labels"].reshape(-1)
    if images.shape[-2:] != (105, 105) or images.size != 105**2 * len(labels):
        raise DataError(f"{path} has images of shape {images.shape} and {len(labels)} labels, not 105×105 and as many")
    return images.reshape(-1, 105, 105), labels


def _read_zip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """From pictures set/alphabet/character/number.png: paper [N, 105, 105] bool, and labels [N]."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            paper = [np.asarray(open_picture(io.BytesIO(archive.read(name))).convert("1")) for name in names]
    except (*DAMAGE, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error
    if not paper or any(one.shape != (105, 105) for one in paper):
        raise DataError(f"{path} holds no pictures, or others than 105×105")
    characters = [name.rpartition("/")[0] for name in names]
    return np.stack(paper), np.unique(characters, return_inverse=True)[1]
