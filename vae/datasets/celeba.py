"""CelebA (Liu et al., 2015), aligned: 162,770 + 19,867 + 19,962 photographs of faces, here 64×64, colour.

The centre of 148×148 of each picture of 178×218, averaged over areas, as much of the literature on VAEs has it. The
splits are those of list_eval_partition.txt. The pictures are the published archive, or the folder that was unpacked of
it, in `manual_dir`: nobody publishes checksums of what is in it, so that names and sizes alone are checked. Sizes and
sha256 of the files are those of tensorflow-datasets. Their address often answers a program with a page instead.
"""

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vae import untrusted
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.pictures import DAMAGE, open_picture
from vae.datasets.resize import AT_ONCE, resize
from vae.datasets.sources import RawData, RawFile

ABOUT = About(
    sizes=(162_770, 19_867, 19_962),
    shape=(64, 64, 3),
    images="colour; averaged from the centre of 148×148",
    publisher="Z. Liu et al., The Chinese University of Hong Kong, mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="for non-commercial research",
)
_URL = "https://drive.google.com/uc?export=download&id="
DATA = RawData(
    name="celeba",
    files=(
        RawFile(
            url=_URL + "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
            called="img_align_celeba.zip",
            size=1443490838,
            checksum="46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
            folder="img_align_celeba",
        ),
        RawFile(
            url=_URL + "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
            called="list_eval_partition.txt",
            size=2836386,
            checksum="fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
        ),
    ),
)
SPLITS = ("train", "validation", "test")  # 0, 1 and 2 in the file
WIDTH, HEIGHT, CENTRE, SIZE = 178, 218, 148, 64


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From the archive or the folder of pictures, and the file of splits."""
    pictures, partition = paths
    names = _partition(partition)
    try:
        untrusted.check_memory(sum(map(len, names.values())) * SIZE**2 * 3)
    except ValueError as error:
        raise DataError(f"the images of celeba take {error}") from error
    with _opened(pictures) as content:
        return {split: Split(_images(names[split], content, pictures)) for split in SPLITS}


def _partition(path: Path) -> dict[str, list[str]]:
    """The names of the pictures of each split, from lines of a name and 0, 1 or 2."""
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, line in enumerate(path.read_bytes().decode("ascii", "replace").splitlines(), start=1):
        name, _, split = line.strip().partition(" ")
        if split.strip() not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number}, is damaged: it must be a picture's name and 0, 1 or 2")
        try:
            names[SPLITS[int(split)]].append(untrusted.plain_name(name))
        except ValueError as error:
            raise DataError(f"{path}, line {number}, is damaged: {error}") from error
    if empty := [split for split in SPLITS if not names[split]]:
        raise DataError(f"{path} is damaged: it has no picture for {', '.join(empty)}")
    return names


@contextlib.contextmanager
def _opened(pictures: Path) -> Iterator[Callable[[str], bytes]]:
    """What gives the content of a picture by its name."""
    if pictures.is_dir():
        yield lambda name: (pictures / name).read_bytes()
        return
    try:
        with zipfile.ZipFile(pictures) as archive:
            members = {info.filename.rpartition("/")[2]: info for info in archive.infolist()}
            yield lambda name: archive.read(members[name])
    except zipfile.BadZipFile as error:
        raise DataError(f"{pictures} is damaged: {error}") from error


def _images(names: Sequence[str], content: Callable[[str], bytes], pictures: Path) -> np.ndarray:
    """[N, 64, 64, 3]."""
    images = np.empty((len(names), SIZE, SIZE, 3), np.uint8)
    top, left = (HEIGHT - CENTRE) // 2, (WIDTH - CENTRE) // 2
    for start in range(0, len(names), AT_ONCE):
        block = [_decoded(name, content, pictures) for name in names[start : start + AT_ONCE]]
        centres = np.stack(block)[:, top : top + CENTRE, left : left + CENTRE]
        images[start : start + AT_ONCE] = resize(centres, SIZE)
    return images


def _decoded(name: str, content: Callable[[str], bytes], pictures: Path) -> np.ndarray:
    """[218, 178, 3]."""
    try:
        jpeg = content(name)
    except (KeyError, FileNotFoundError) as error:
        raise DataError(f"{pictures} has no picture {name}, which list_eval_partition.txt names") from error
    except DAMAGE as error:
        raise _damaged(name, pictures, error) from error
    try:
        with open_picture(io.BytesIO(jpeg)) as picture:
            size = picture.size
            pixels = np.asarray(picture.convert("RGB")) if size == (WIDTH, HEIGHT) else None
    except DAMAGE as error:
        raise _damaged(name, pictures, error) from error
    if pixels is None:
        raise DataError(
            f"{pictures}: {name} is of {size[0]}×{size[1]}, not {WIDTH}×{HEIGHT}; give the aligned pictures"
        )
    return pixels


def _damaged(name: str, pictures: Path, error: Exception) -> Exception:
    refused = untrusted.of_the_system(error, pictures / name)
    return refused or DataError(f"{pictures}: {name} is damaged: {' '.join(str(error).split())[:200]}")
