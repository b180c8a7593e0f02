"""Omniglot (Lake et al., 2015): 19,280 + 13,180 drawings of 1,623 characters.

Drawn at 105×105, dark ink on paper; here ink is 255 and the size 28×28 by area averaging. Train is Lake's background
set and test his evaluation set, which share no character. This is not the 28×28 split of Burda et al. (2016): do not
compare the two. Labels count the characters of each set from 0, in the order of their folders. URLs, sizes and
sha256 are those of tensorflow-datasets; the .npz files hold the same pixels, `images` [C, 20, 105, 105] and `labels`.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from vae.datasets.builder import examples, info, tfds
from vae.datasets.dataset import Split
from vae.datasets.pictures import open_picture
from vae.datasets.resize import resize
from vae.datasets.sources import RawData, RawFile, fetch

_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
DATA = RawData(
    name="omniglot",
    files=(
        RawFile(
            url=_URL + "images_background.zip",
            size=9464212,
            sha256="ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
            forms={"images_background.npz": "8bf84167413cd00beacdce3fe582f780ab538d8dbef043a6d688f2527bbce199"},
        ),
        RawFile(
            url=_URL + "images_evaluation.zip",
            size=6462886,
            sha256="1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
            forms={"images_evaluation.npz": "0b84c7ffd94c4841c0040e529c86a82eaaccb986d8eadad5673f7991b7475276"},
        ),
    ),
)


class OmniglotBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Splits train and test; features image [28, 28, 1] uint8 and label."""

    name = "omniglot"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return info(self, "Lake's Omniglot, inverted and averaged to 28×28, in the order of its folders")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        background, evaluation = fetch(DATA, Path(dl_manager.download_dir))
        return {"train": self._generate_examples(read(background)), "test": self._generate_examples(read(evaluation))}

    def _generate_examples(self, split):
        return examples(split)


def read(path: Path) -> Split:
    """Images [N, 28, 28, 1], ink 255, and the index of each one's character."""
    paper, labels = _read_npz(path) if path.suffix == ".npz" else _read_zip(path)
    ink = np.where(paper, np.uint8(0), np.uint8(255))
    return Split(resize(ink[..., None], 28), labels.astype(np.int32))


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return archive["images"].reshape(-1, 105, 105), archive["labels"].reshape(-1)


def _read_zip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """From pictures set/alphabet/character/number.png: paper [N, H, W] bool, and labels [N]."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        paper = np.stack([np.asarray(open_picture(io.BytesIO(archive.read(name))).convert("1")) for name in names])
    characters = [name.rpartition("/")[0] for name in names]
    return paper, np.unique(characters, return_inverse=True)[1]
