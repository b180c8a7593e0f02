"""Whether a likelihood fits the data, and images a model."""

from __future__ import annotations

import numpy as np

from vae.datasets.dataset import Dataset
from vae.models.distributions import MAX_VALUE
from vae.models.table import DENSITY, LIKELIHOODS, MASSES
from vae.settings import Settings


class LikelihoodError(ValueError):
    """A likelihood that does not fit the data; one line for the user."""


def check_data(likelihood: str, dataset: Dataset, binarization: str) -> None:
    """Raises LikelihoodError if `likelihood` does not fit the images of `dataset` as `binarization` shows them."""
    images = [split.images for split in (dataset.train, dataset.validation, dataset.test) if len(split.images)]
    row = LIKELIHOODS[likelihood]
    densities = [name for name, other in LIKELIHOODS.items() if other.of == DENSITY]
    if row.of and (dataset.binary or binarization != "none"):
        reason = (
            "a density, whose value at black and white pixels has no upper bound"
            if row.of == DENSITY
            else "of 256 grey values, and these pixels are black or white"
        )
        remedy = "" if dataset.binary else ", or `binarization=none`"
        raise LikelihoodError(f"the likelihood {likelihood} is {reason}; use `likelihood=bernoulli`{remedy}")
    if row.of == MASSES and any(values.dtype != np.uint8 for values in images):
        raise LikelihoodError(
            f"the likelihood {likelihood} is of the 256 values k/255, and {dataset.name} has values between them; "
            f"use `likelihood={' or '.join(densities)}`, or save the images as uint8"
        )
    for values in images:
        if not row.any_values and values.dtype != np.uint8 and not (values.min() >= 0 and values.max() <= 1):
            raise LikelihoodError(
                f"the likelihood {likelihood} is of values in [0, 1], and those of {dataset.name} range from "
                f"{values.min():g} to {values.max():g}; rescale them, or use `likelihood=normal`"
            )


def check_images(settings: Settings, images: np.ndarray) -> None:
    """Raises LikelihoodError if p(x|z) of `settings` cannot score stored `images` [N, H, W, C].

    A Bernoulli likelihood without binarisation takes any values in [0, 1], as their cross-entropy.
    """
    images, name, row = np.asarray(images), settings.likelihood, LIKELIHOODS[settings.likelihood]
    if images.shape[1:] != settings.image_shape:
        raise LikelihoodError(f"the model is of images {settings.image_shape}, and these are {images.shape[1:]}")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise LikelihoodError(f"images are uint8 from 0 to 255, or floats in [0, 1], and these are {images.dtype}")
    unit = images / np.float32(255) if images.dtype == np.uint8 else images
    if not np.isfinite(unit).all() or (not row.any_values and not (unit.min() >= 0 and unit.max() <= 1)):
        raise LikelihoodError(
            f"the likelihood {name} is of values {'that are finite' if row.any_values else 'in [0, 1]'}, and those "
            f"of these images range from {unit.min():g} to {unit.max():g}"
        )
    if not row.of and settings.binarization != "none" and not ((unit == 0) | (unit == 1)).all():
        raise LikelihoodError(
            f"the model is of binarised images (binarization {settings.binarization}), and these have values between "
            "black and white; pass those of vae.datasets.images.stored, or a model trained with binarization none"
        )
    if row.of == MASSES and (np.abs(unit * MAX_VALUE - np.round(unit * MAX_VALUE)) > 1e-3).any():
        raise LikelihoodError(f"the likelihood {name} is of the 256 values k/255, and these images have others")
