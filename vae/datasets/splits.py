"""Train, validation and test: the images for training, for choices, and for reports."""

import numpy as np

from vae.datasets.dataset import DataError, Dataset, Split

USER_PERMUTATION_SEED = 0  # for a user's own data; independent of the seed of any run


def permute(split: Split) -> Split:
    """The same images in a fixed pseudo-random order, so that files sorted by class can be cut anywhere."""
    return split.at(np.random.default_rng(USER_PERMUTATION_SEED).permutation(len(split.images)))


def cut(split: Split, n: int) -> tuple[Split, Split]:
    """All but the last n examples, and the last n."""
    at = len(split.images) - n
    return split.at(slice(at)), split.at(slice(at, None))


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
    """The three splits. `own` is the data set's own validation split; `validation` as in `load`.

    Raises DataError, also if an image or a label is not as `Split` says.
    """
    _check(name, {"training": train, "test": test} | ({} if own is None else {"validation": own}))
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


def _check(name: str, splits: dict[str, Split]) -> None:
    """Raises DataError if the images or labels of a split are not as `Split` says."""
    for key, (images, labels, factors) in splits.items():
        if images.ndim != 4 or 0 in images.shape[1:] or images.shape[1:] != splits["training"].images.shape[1:]:
            raise DataError(f"the {key} images of {name} have shape {images.shape}; give [N, H, W, C], all of one size")
        if images.dtype not in (np.uint8, np.float32):
            raise DataError(f"the {key} images of {name} are {images.dtype}; give uint8 in 0..255 or float32 in [0, 1]")
        if images.dtype == np.float32 and not all(
            (block > -1e-6).all() and (block < 1 + 1e-6).all() for block in _blocks(images)
        ):
            raise DataError(f"the {key} images of {name} are floats outside [0, 1]; rescale them")
        if labels is not None and (labels.shape != (len(images),) or labels.dtype != np.int32):
            raise DataError(
                f"the {key} labels of {name} are {labels.dtype} of shape {labels.shape} for {len(images)} images; give "
                "[N] int32, or None"
            )
        if factors is not None and (factors.ndim != 2 or len(factors) != len(images) or factors.dtype != np.int32):
            raise DataError(
                f"the {key} factors of {name} are {factors.dtype} of shape {factors.shape} for {len(images)} images; "
                "give [N, F] int32, or None"
            )
    every = [block for split in splits.values() for block in _blocks(split.images)]
    if all(block.dtype == np.uint8 and block.max() <= 1 for block in every) and any(block.any() for block in every):
        raise DataError(f"the largest value of the images of {name} is 1, and uint8 is in 0..255; multiply them by 255")


def _blocks(images: np.ndarray) -> list[np.ndarray]:
    return [images[i : i + 4096] for i in range(0, len(images), 4096)]


def is_binary(*splits: Split) -> bool:
    """Whether every pixel of every split is 0 or 255; floats never are, as 0 and 1 lie on the 1/255 grid."""
    blocks = (block for split in splits for block in _blocks(split.images))
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
    others = zip(first[1:], second[1:], strict=True)
    return Split(
        np.concatenate([first.images, second.images]),
        *(None if a is None or b is None else np.concatenate([a, b]) for a, b in others),
    )
