"""From stored images to what a model sees: values in [0, 1], binarised or not."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from vae.datasets.dataset import Dataset, Split

FIXED_KEY = 20140124  # of the fixed binarisation: the same images for every run, whatever its seed


def flatten_image(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """[..., H, W, C] -> [..., H·W·C]; a parameter that all pixels share, with fewer axes, stays as it is."""
    return x if x.ndim < 3 else x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))


def to_unit_interval(images: Num[Array, "..."]) -> Float[Array, "..."]:
    """uint8 0..255 divided by 255; floats are in [0, 1] already."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def seen_in_training(key: Key[Array, ""], images: Num[Array, "B H W C"], binarization: str) -> Float[Array, "B H W C"]:
    """The x of a training step: a fresh Bernoulli sample where `binarization` is dynamic (spends `key`)."""
    x = to_unit_interval(flatten_image(images))
    if binarization == "dynamic":
        x = jax.random.bernoulli(key, x).astype(x.dtype)
    return x.reshape(images.shape)


def stored(dataset: Dataset, split: str, binarization: str, *, training: bool) -> Split:
    """The images of `split` (train, validation or test) as they are trained on or evaluated.

    dynamic in training: as they are, and `seen_in_training` draws a sample at each visit. fixed, and dynamic
    elsewhere: one Bernoulli sample of each image, from a key of its own, a function of the image's position in the
    data set alone. threshold: above one half. none: as they are. Binarised images are uint8, 0 or 255. Their factors
    are left out in training.
    """
    images, labels, factors = getattr(dataset, split)
    kept = Split(images, labels, None if training else factors)
    if binarization == "none" or len(images) == 0 or (training and binarization == "dynamic"):
        return kept
    if binarization == "threshold":
        return kept._replace(images=(images > (127 if images.dtype == np.uint8 else 0.5)).astype(np.uint8) * 255)
    # Validation images were the last ones of the training set: they count on from it.
    first_index = len(dataset.train.images) if split == "validation" else 0
    return kept._replace(images=np.asarray(_binarize_fixed(images, first_index, split == "test")))


def subset(split: Split, num_examples: int | None) -> tuple[Split, np.ndarray]:
    """`num_examples` images of a split, fixed at random, and their positions [N]; all if there are no more, or None."""
    num_images = len(split.images)
    if num_examples is None or num_examples >= num_images:
        return split, np.arange(num_images)
    # Not the first ones: the test images of binarized_mnist are sorted by class.
    index = np.sort(np.random.default_rng(0).permutation(num_images)[:num_examples])
    return split.at(index), index


@jax.jit
def _binarize_fixed(images, first_index, is_test):
    key = jax.random.fold_in(jax.random.key(FIXED_KEY), is_test)

    def sample(pair):
        index, image = pair
        x = to_unit_interval(flatten_image(image))
        return jax.random.bernoulli(jax.random.fold_in(key, index), x).reshape(image.shape)

    indices = first_index + jnp.arange(len(images))
    return jax.lax.map(sample, (indices, images), batch_size=500).astype(jnp.uint8) * 255


class Moments(NamedTuple):
    """What an untrained decoder is given of the training images: where p(x|z) begins."""

    mean: Any  # [H, W, C], the mean image
    spread: Any  # [], the root mean square of all values about the mean image: the σ that fits it best


def moments(images: np.ndarray) -> Moments:
    """Of [N, H, W, C] stored images, float32; of values in [0, 1] if they are stored as bytes."""
    mean = images.mean(0, dtype=np.float64)
    # Image by image: all in float64 at once may not fit into memory.
    variance = np.mean([np.square(image - mean).mean() for image in images])
    unit = 255 if images.dtype == np.uint8 else 1
    return Moments((mean / unit).astype(np.float32), np.float32(np.sqrt(variance) / unit))
