"""Digits (Alpaydin and Kaynak, 1998): 1,797 handwritten digits of 8×8 with 17 grey levels, shipped in scikit-learn."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from vae.datasets.dataset import About, DataError, Split
from vae.datasets.splits import cut

ABOUT = About(
    sizes=(1437, 360),
    shape=(8, 8, 1),
    images="grey",
    publisher="E. Alpaydin and C. Kaynak, UCI; the copy is scikit-learn's",
    licence="CC BY 4.0",
)
NUM_TEST = 360


def load(image_size: int | None = None) -> tuple[Split, Split]:
    """The first 1,437 as train and the last 360 as test, always 8×8; a value v in 0..16 becomes round(255 v / 16)."""
    # Reading its table takes 20 ms, importing scikit-learn for it 1.5 s.
    scikit_learn = importlib.util.find_spec("sklearn")
    if scikit_learn is None or scikit_learn.origin is None:
        raise DataError("digits come with scikit-learn, which is not installed: pip install scikit-learn")
    with gzip.open(Path(scikit_learn.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    images = np.rint(table[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    return cut(Split(images, table[:, 64].astype(np.int32)), NUM_TEST)
