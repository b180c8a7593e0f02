"""Train, validation and test: the images for training, for choices, and for reports."""

import numpy as np

from vae.datasets.dataset import DataError, Dataset, Split

USER_PERMUTATION_SEED = 0  # for a user's own data; independent of the seed of any run


def permute(split: Split) -> Split:
    """The same images in a fixed pseudo-random order, so that files sorted by class can be cut anywhere."""
    order = np.random.default_rng(USER_PERMUTATION_SEED).permutation(len(split.images))
    return Split(split.images[order], None if split.labels is None else split.labels[order])


def cut(split: Split, n: int) -> tuple[Split, Split]:
    """All but the last n examples, and the last n."""
    images, labels = split
    at = len(images) - n
    if labels is None:
        return Split(images[:at]), Split(images[at:])
    return Split(images[:at], labels[:at]), Split(images[at:], labels[at:])


def hold_out_test(name: str, split: Split) -> tuple[Split, Split]:
    """Train and test of data without a test set of its own: the last tenth is test."""
    if len(split.images) < 10:
        raise DataError(
            f"{name} holds {len(split.images)} images; at least 10 are needed, as a tenth becomes the test set"
        )
    return cut(split, len(split.images) // 10)


def default_validation(num_train: int) -> int:
    """10,000 if there are 50,000 training images or more, else a tenth of them, at least one."""
    return 10_000 if num_train >= 50_000 else max(1, num_train // 10)


def assemble(name: str, train: Split, own: Split | None, test: Split, validation: int | None) -> Dataset:
    """The three splits. `own` is the data set's own validation split; `validation` as in `load`."""
    if own is not None:
        if validation in (None, len(own.images)):
            return Dataset(name, train, own, test, is_binary(train, own, test))
        if validation != 0:
            raise DataError(
                f"{name} has its own validation set of {len(own.images)} images: validation must be "
                f"{len(own.images)}, or 0 to train on it too; got {validation}"
            )
        train = _concatenate(train, own)
    n = default_validation(len(train.images)) if validation is None else validation
    if not 0 <= n < len(train.images):
        raise DataError(
            f"validation={n} is not possible: {name} has {len(train.images)} training images and at least one must "
            f"be left to train on; give 0 to {len(train.images) - 1}"
        )
    train, held_out = cut(train, n)
    return Dataset(name, train, held_out, test, is_binary(train, held_out, test))


def is_binary(*splits: Split) -> bool:
    """Whether every pixel of every split is 0 or 255; floats never are, as 0 and 1 lie on the 1/255 grid."""
    blocks = (split.images[i : i + 4096] for split in splits for i in range(0, len(split.images), 4096))
    return all(block.dtype == np.uint8 and bool(np.all((block == 0) | (block == 255))) for block in blocks)


def check_varied(dataset: Dataset) -> None:
    """Raises DataError if all training images are the same, or all pixels: there is nothing to learn."""
    images = dataset.train.images
    first = images.reshape(-1)[0]
    if all(bool((image == first).all()) for image in images):
        raise DataError(f"every pixel of all training images of {dataset.name} is {first}: there is nothing to learn")
    if len(images) > 1 and all(bool((image == images[0]).all()) for image in images):
        raise DataError(f"all {len(images)} training images of {dataset.name} are the same: there is nothing to learn")


def _concatenate(first: Split, second: Split) -> Split:
    images = np.concatenate([first.images, second.images])
    if first.labels is None or second.labels is None:
        return Split(images)
    return Split(images, np.concatenate([first.labels, second.labels]))
