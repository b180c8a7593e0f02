"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 photographs of 10 kinds, 32×32, colour.

URL, size and sha256 are those of tensorflow-datasets.
"""

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae import untrusted
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile

ABOUT = About(
    sizes=(50_000, 10_000),
    shape=(32, 32, 3),
    images="colour",
    publisher="A. Krizhevsky, University of Toronto",
    licence="not stated by the publisher",
)
DATA = RawData(
    name="cifar10",
    files=(
        RawFile(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            size=170052171,
            checksum="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROW = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue values
MOST = 2**26  # bytes of a member


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From the archive; nothing is unpacked to the disk."""
    names = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
    found = _members(paths[0], {name for batches in names.values() for name in batches})
    splits = {}
    for split, batches in names.items():
        rows = np.concatenate([_rows(paths[0], name, found[name]) for name in batches])
        images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        splits[split] = Split(images, np.array(CLASSES)[rows[:, 0]])
    return splits


def _members(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """The content of the files of these names, in whatever folder of the archive."""
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                file = archive.extractfile(member) if name in wanted and member.isreg() else None
                if file is not None:
                    if member.size > MOST:
                        raise DataError(f"{path}: {name} claims {member.size:,} bytes")
                    found[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        if refused := untrusted.of_the_system(error, path):
            raise refused from error
        raise DataError(f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"{path} has no file {', '.join(missing)}")
    return found


def _rows(path: Path, name: str, content: bytes) -> np.ndarray:
    """[N, ROW] uint8."""
    if not content or len(content) % ROW:
        raise DataError(f"{path}: {name} of {len(content)} bytes is damaged: it must be of rows of {ROW}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, ROW)
    if rows[:, 0].max() >= len(CLASSES):
        raise DataError(f"{path}: {name} is damaged: a label is {rows[:, 0].max()}, and labels are 0 to 9")
    return rows
