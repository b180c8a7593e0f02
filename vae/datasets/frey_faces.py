"""Frey faces (Frey et al., 1998): 1,965 frames of a film of one face, 28 high and 20 wide, grey, values 8 to 238.

Cut into 1,565 + 200 + 200 as Tomczak and Welling (2018) do. Their shuffle has no seed, so that the images of a split
are others than theirs: it is a fixed one here. Nobody publishes a checksum of S. Roweis' own .mat file, `ff`
[560, 1965]; its pixels must be those that Tomczak and Welling ship, a pickled list of one array [1965, 560].
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae.datasets import mat, pickled
from vae.datasets.dataset import About, DataError, Split
from vae.datasets.sources import RawData, RawFile
from vae.datasets.splits import cut, permute

ABOUT = About(
    sizes=(1565, 200, 200),
    shape=(28, 20, 1),
    images="grey; the film is shuffled by a seed of this project",
    publisher="S. Roweis, New York University; as a pickle J. Tomczak, github.com/jmtomczak/vae_vampprior",
    licence="not stated by the publishers",
)
PIXELS = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # sha256 of the frames, in their order
SIZES = 1565, 200, 200


def read_file(path: Path) -> np.ndarray:
    """The frames in the order of the film, [N, 28, 20, 1] uint8."""
    frames = mat.read(path, "ff")[0].T if path.suffix == ".mat" else pickled.read(path)[0]
    if frames.ndim != 2 or frames.shape[1] != 560 or frames.dtype != np.uint8:
        shape = "×".join(map(str, frames.shape))
        raise DataError(f"{path} holds {frames.dtype} of {shape}, not frames of 560 bytes")
    return frames.reshape(-1, 28, 20, 1)


DATA = RawData(
    name="frey_faces",
    files=(
        RawFile(
            url="https://github.com/jmtomczak/vae_vampprior/raw/master/datasets/Freyfaces/freyfaces.pkl",
            size=3568521,
            checksum="3b69410c6a5fd6e03f09012905168be3712373a094a776f7e58fcd0670d2138a",
            forms={"frey_rawface.mat": f"content:{PIXELS}"},
            also=("https://cs.nyu.edu/~roweis/data/frey_rawface.mat",),
            content=read_file,
        ),
    ),
)


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """From one of the two files."""
    frames = read_file(paths[0])
    if len(frames) <= SIZES[1] + SIZES[2]:
        raise DataError(f"{paths[0]} holds {len(frames)} frames, not {sum(SIZES)}")
    rest, test = cut(permute(Split(frames)), SIZES[2])
    train, validation = cut(rest, SIZES[1])
    return {"train": train, "validation": validation, "test": test}
