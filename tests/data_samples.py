"""Small files in the published formats, made by the tests themselves."""

import gzip
import hashlib
import zipfile
from pathlib import Path

import numpy as np

from vae.datasets.sources import RawData, RawFile

CLOSED = "http://127.0.0.1:9/"  # nobody listens on the discard port: refused at once


def pictures(n: int, size: int = 28, seed: int = 0) -> np.ndarray:
    """[n, size, size] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_mnist(folder: Path, num_train: int = 30, num_test: int = 10, **changes) -> tuple[RawData, list[np.ndarray]]:
    """The four gzipped files of an MNIST of `num_train` + `num_test` images; what describes them; what is in them."""
    arrays = [
        pictures(num_train),
        np.arange(num_train, dtype=np.uint8) % 10,
        pictures(num_test, seed=1),
        np.arange(num_test, dtype=np.uint8) % 10,
    ]
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, array in zip(names, arrays, strict=True):
        packed = gzip.compress(idx(array), mtime=0)
        (folder / f"{name}-ubyte.gz").write_bytes(packed)
        files.append(RawFile(f"{CLOSED}{name}-ubyte.gz", len(packed), sha256(packed), sha256(idx(array))))
    return RawData(**{"name": "mnist", "files": tuple(files)} | changes), arrays


def write_binarized(folder: Path, n: int = 12) -> tuple[RawData, np.ndarray]:
    """The three text files of a binarized MNIST of n images each, and their pixels [3, n, 784] of 0 and 1."""
    pixels = (pictures(3 * n) > 127).astype(np.uint8).reshape(3, n, 784)
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, block in zip(("train", "valid", "test"), pixels, strict=True):
        text = "".join(" ".join(map(str, row)) + "\n" for row in block.tolist()).encode()
        (folder / f"{name}.amat").write_bytes(text)
        files.append(RawFile(f"{CLOSED}{name}.amat", len(text), sha256(text)))
    return RawData("binarized_mnist", tuple(files)), pixels


def write_omniglot_zip(path: Path, paper: np.ndarray) -> None:
    """Paper [C, D, H, W] bool as set/alphabet/character/number.png, two characters an alphabet."""
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        for character, drawings in reversed(list(enumerate(paper))):
            for number, drawing in enumerate(drawings):
                name = f"{path.stem}/alphabet{character // 2}/character{character % 2 + 1:02}/{number:02}.png"
                with archive.open(name, "w") as file:
                    Image.fromarray(drawing).save(file, "png")
