"""A small set of files of each data set that is made of published ones, and what is in them."""

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from tests.data_samples import CLOSED, pictures, sha256, write_mnist
from vae.datasets.dataset import Split
from vae.datasets.resize import resize
from vae.datasets.sources import RawData, RawFile
from vae.datasets.splits import permute


def described(data: RawData, folder: Path) -> RawData:
    """`data` with the checksums of the files that are in `folder`, and no other source."""
    files = []
    for file in data.files:
        name = next(name for name in file.accepted if (folder / name).exists())
        content = (folder / name).read_bytes()
        unpacked = sha256(gzip.decompress(content)) if file.unpacked and name == file.name else ""
        files.append(RawFile(CLOSED + name, len(content), sha256(content), unpacked))
    return RawData(data.name, tuple(files))


class Sample(NamedTuple):
    """How the files of a data set are made small: `write` puts them in a folder and returns what is in them.

    `other` overwrites the first of them with a file of its format that lacks what is wanted, and says so in `words`.
    `patched` are sizes of the module that are smaller here.
    """

    write: Callable[[Path], dict[str, Split]]
    other: Callable[[Path], object]
    words: str
    patched: Mapping[str, object] = {}


def mnist_sample(folder: Path) -> dict[str, Split]:
    _, (train, train_labels, test, test_labels) = write_mnist(folder)
    return {"train": Split(train[..., None], train_labels), "test": Split(test[..., None], test_labels)}


def idx_of_floats(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01\0\0\0\0"))


def binarized_sample(folder: Path) -> dict[str, Split]:
    pixels = (pictures(36) > 127).reshape(3, 12, 28, 28, 1) * np.uint8(255)
    for name, block in zip(("train", "valid", "test"), pixels, strict=True):
        scipy.io.savemat(folder / f"binarized_mnist_{name}.mat", {"X": (block > 0).astype(np.uint8).reshape(12, 784)})
    return dict(zip(("train", "validation", "test"), map(Split, pixels), strict=True))


def omniglot_sample(folder: Path) -> dict[str, Split]:
    splits = {}
    for name, split in (("background", "train"), ("evaluation", "test")):
        paper = np.random.default_rng(len(name)).uniform(size=(4, 3, 105, 105)) > 0.2
        labels = np.arange(4).repeat(3)
        np.savez_compressed(folder / f"images_{name}.npz", images=paper, labels=labels.reshape(4, 3))
        splits[split] = Split(resize(np.where(paper, 0, 255).astype(np.uint8).reshape(-1, 105, 105, 1), 28), labels)
    return splits


def python2_pickle(array: np.ndarray) -> bytes:
    """A list of one array of bytes, as Python 2 pickled it."""
    text = "".join(f"\\x{value:02x}" for value in array.tobytes())
    rows, columns = array.shape
    return (
        "(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
        f"(I1\n(I{rows}\nI{columns}\ntp7\ncnumpy\ndtype\np8\n(S'u1'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'|'\np12\n"
        f"NNNI-1\nI-1\nI0\ntp13\nbI00\nS'{text}'\np14\ntp15\nba."
    ).encode()


def frey_sample(folder: Path) -> dict[str, Split]:
    film = np.random.default_rng(0).integers(8, 239, (20, 560), dtype=np.uint8)
    (folder / "freyfaces.pkl").write_bytes(python2_pickle(film))
    shuffled = permute(Split(film.reshape(-1, 28, 20, 1))).images
    return {"train": Split(shuffled[:13]), "validation": Split(shuffled[13:16]), "test": Split(shuffled[16:])}


def mat(name: str, **arrays) -> Callable[[Path], None]:
    return lambda folder: scipy.io.savemat(folder / name, arrays)


def burda_sample(folder: Path) -> dict[str, Split]:
    """Grey on the grid of 1/255, and so bytes."""
    train, test = pictures(20), pictures(6, seed=1)
    alphabets = np.eye(50)[:, np.arange(26) % 50]
    matrices = {"data": train, "testdata": test}
    by_columns = {name: images.swapaxes(1, 2).reshape(-1, 784).T / 255 for name, images in matrices.items()}
    scipy.io.savemat(
        folder / "chardata.mat", by_columns | {"target": alphabets[:, :20], "testtarget": alphabets[:, 20:]}
    )
    order = np.random.RandomState(123).permutation(20)
    whole = Split(train[order][..., None], order)
    return {
        "train": whole.at(slice(15)),
        "validation": whole.at(slice(15, None)),
        "test": Split(test[..., None], np.arange(20, 26)),
    }


def caltech_published_sample(folder: Path) -> dict[str, Split]:
    names = np.array(["yin_yang", "ant", "car_side"])
    arrays: dict[str, np.ndarray] = {"classnames": np.array([[name] for name in names], object).T}
    splits = {}
    for seed, (split, name) in enumerate((("train", "train"), ("validation", "val"), ("test", "test"))):
        pixels = pictures(12, seed=seed) > 127
        labels = np.arange(12) % 3
        arrays |= {f"{name}_data": pixels.reshape(12, 784).astype(np.uint8), f"{name}_labels": labels[:, None] + 1}
        splits[split] = Split(pixels[..., None] * np.uint8(255), names[labels])
    scipy.io.savemat(folder / "caltech101_silhouettes_28_split1.mat", arrays)
    return splits


def caltech_sample(folder: Path) -> dict[str, Split]:
    published = caltech_published_sample(folder)
    return {
        name: Split(255 - np.transpose(images, (0, 2, 1, 3)), names) for name, (images, names, _) in published.items()
    }


def tar_gz(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def cifar10_sample(folder: Path) -> dict[str, Split]:
    kinds = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    rows = np.concatenate(
        [np.arange(60, dtype=np.uint8)[:, None] % 10, images.transpose(0, 3, 1, 2).reshape(60, -1)], 1
    )
    batches = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    members = {f"x/{name}": block.tobytes() for name, block in zip(batches, rows.reshape(6, 10, -1), strict=True)}
    tar_gz(folder / "cifar-10-binary.tar.gz", dict(reversed(members.items())))
    every = Split(images, np.array(kinds)[np.arange(60) % 10])
    return {"train": every.at(slice(50)), "test": every.at(slice(50, None))}


def svhn_sample(folder: Path) -> dict[str, Split]:
    splits = {}
    for name, number in (("train", 20), ("test", 6)):
        images = np.random.default_rng(number).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
        digits = np.arange(number) % 10
        y = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
        scipy.io.savemat(folder / f"{name}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": y}, do_compression=True)
        splits[name] = Split(images, digits)
    return splits


def dsprites_sample(folder: Path) -> dict[str, Split]:
    images = (pictures(30, 64) > 127).astype(np.uint8)
    classes = np.random.default_rng(1).integers(0, [1, 3, 6, 40, 32, 32], (30, 6))
    metadata = np.array({"author": "somebody"}, object)  # as in the published file: never read
    np.savez(folder / f"{DSPRITES}.npz", imgs=images, latents_classes=classes, metadata=metadata)
    shuffled = permute(Split(images[..., None] * np.uint8(255), None, classes[:, 1:]))
    return {"train": shuffled.at(slice(27)), "test": shuffled.at(slice(27, None))}


def shapes3d_sample(folder: Path) -> dict[str, Split]:
    """Of 30 images, in which each value of each factor is there."""
    import h5py

    images = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    positions = np.arange(30)[:, None] % [10, 10, 10, 8, 4, 15]
    with h5py.File(folder / "3dshapes.h5", "w") as file:
        file["images"], file["labels"] = images, positions / 10 - [0, 0, 0, 0, 0, 30]
    shuffled = permute(Split(images, None, positions))
    return {"train": shuffled.at(slice(27)), "test": shuffled.at(slice(27, None))}


def shapes3d_without_labels(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "3dshapes.h5", "w") as file:
        file["images"] = np.zeros((2, 64, 64, 3), np.uint8)


def celeba_sample(folder: Path) -> dict[str, Split]:
    """Four pictures for each split, in turn."""
    from PIL import Image

    lines, faces = [], []
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number in range(12):
            grey = np.arange(218, dtype=np.uint8)[:, None, None] + np.uint8(number)
            pixels = np.broadcast_to(grey, (218, 178, 3)) * np.array([1, 0, 1], np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "jpeg", quality=95)
            archive.writestr(f"img_align_celeba/{number:06}.jpg", file.getvalue())
            faces.append(np.asarray(Image.open(file).convert("RGB"))[35:183, 15:163])
            lines.append(f"{number:06}.jpg {number % 3}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    small = resize(np.stack(faces), 64)
    return {name: Split(small[part::3]) for part, name in enumerate(("train", "validation", "test"))}


def zip_of_one(folder: Path) -> None:
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/999999.jpg", b"")


DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
SAMPLES = {
    "mnist": Sample(mnist_sample, idx_of_floats, "is not an idx file of uint8 values"),
    "fashion_mnist": Sample(mnist_sample, idx_of_floats, "is not an idx file of uint8 values"),
    "binarized_mnist": Sample(
        binarized_sample,
        mat("binarized_mnist_train.mat", Y=np.eye(3)),
        "is cut short or has no key 'X'; its keys are: Y",
    ),
    "omniglot": Sample(
        omniglot_sample,
        lambda folder: np.savez(folder / "images_background.npz", images=np.zeros((1, 105, 105))),
        "has no keys 'images' and 'labels'; its keys are: images",
    ),
    "omniglot_burda": Sample(
        burda_sample,
        mat("chardata.mat", data=np.eye(3), target=np.eye(3)),
        "is cut short or has no key 'testdata', 'testtarget'; its keys are: data, target",
        {"NUM_VALIDATION": 5},
    ),
    "caltech101_silhouettes": Sample(
        caltech_sample,
        mat("caltech101_silhouettes_28_split1.mat", X=np.eye(3)),
        "is cut short or has no key 'classnames'",
    ),
    "caltech101_silhouettes_published": Sample(
        caltech_published_sample,
        mat("caltech101_silhouettes_28_split1.mat", classnames=np.eye(3)),
        "classnames is no list of names",
    ),
    "cifar10": Sample(
        cifar10_sample,
        lambda folder: tar_gz(folder / "cifar-10-binary.tar.gz", {"x/test_batch.bin": bytes(3073)}),
        "has no file data_batch_1.bin, data_batch_2.bin",
    ),
    "svhn_cropped": Sample(
        svhn_sample,
        mat("train_32x32.mat", X=np.zeros((32, 32, 3, 2))),
        "is cut short or has no key 'y'; its keys are: X",
    ),
    "dsprites": Sample(
        dsprites_sample,
        lambda folder: np.savez(folder / f"{DSPRITES}.npz", imgs=np.zeros((2, 64, 64), np.uint8)),
        "has no key latents_classes; its keys are: imgs",
    ),
    "shapes3d": Sample(shapes3d_sample, shapes3d_without_labels, "has no array of numbers 'labels'"),
    "celeba": Sample(celeba_sample, zip_of_one, "has no picture 000000.jpg, which list_eval_partition.txt names"),
    "frey_faces": Sample(
        frey_sample,
        lambda folder: (folder / "freyfaces.pkl").write_bytes(pickle.dumps({"film": 1}, 0)),
        "is damaged or no pickle of numeric arrays",
        {"SIZES": (13, 3, 4)},
    ),
}
