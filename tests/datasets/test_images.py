"""images.py: what is kept on the device and what a step sees of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from vae.datasets import Dataset, Split
from vae.datasets.images import moments, stored, subset, to_unit_interval

GREY = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (600, 1, 1, 1))
DATASET = Dataset("grey", Split(GREY[:400]), Split(GREY[400:500]), Split(GREY[500:]), binary=False)


def test_fixed_binarization_has_the_pixels_probability_at_every_grey_value_and_is_certain_at_both_ends():
    x = stored(DATASET, "train", "fixed", training=True).images
    assert x.dtype == np.uint8
    assert set(np.unique(x)) == {0, 255}
    frequency = (x == 255).mean(0).ravel()
    assert frequency[0] == 0
    assert frequency[255] == 1
    np.testing.assert_allclose(frequency, np.arange(256) / 255, atol=5 * 0.5 / np.sqrt(len(x)))


def test_fixed_binarization_is_a_function_of_the_images_position_alone():
    """Neither the number of images nor how many are held out for validation changes what an image becomes."""
    whole = DATASET._replace(train=Split(GREY[:500]), validation=Split(GREY[:0]))
    train = stored(DATASET, "train", "fixed", training=True).images
    validation = stored(DATASET, "validation", "fixed", training=False).images
    np.testing.assert_array_equal(
        stored(whole, "train", "fixed", training=True).images, np.concatenate([train, validation])
    )
    assert (train[:100] != stored(DATASET, "test", "fixed", training=False).images).any()
    assert (train[:100] != validation).any()


def test_dynamic_binarization_is_evaluated_on_the_fixed_one_and_trained_on_grey():
    np.testing.assert_array_equal(stored(DATASET, "train", "dynamic", training=True).images, GREY[:400])
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(
            stored(DATASET, split, "dynamic", training=False).images,
            stored(DATASET, split, "fixed", training=False).images,
        )


@pytest.mark.parametrize("images", [GREY, GREY.astype(np.float32) / 255])
def test_threshold_is_above_one_half(images):
    x = stored(
        Dataset("grey", Split(images), Split(images[:0]), Split(images), False), "test", "threshold", training=False
    )
    np.testing.assert_array_equal(x.images[0].ravel(), np.where(np.arange(256) >= 128, 255, 0))


def test_without_binarization_images_labels_and_factors_stay_as_they_are():
    labels, factors = np.arange(100, dtype=np.int32), np.zeros((100, 2), np.int32)
    dataset = DATASET._replace(test=Split(GREY[500:], labels, factors))
    kept = stored(dataset, "test", "none", training=False)
    assert (kept.images is dataset.test.images, kept.labels is labels, kept.factors is factors) == (True, True, True)


@pytest.mark.parametrize("binarization", ["none", "dynamic", "fixed", "threshold"])
def test_evaluation_is_given_the_factors_of_its_images_and_training_is_not(binarization):
    factors = np.arange(200, dtype=np.int32).reshape(100, 2)
    split = DATASET.test._replace(factors=factors)
    dataset = DATASET._replace(train=split, test=split)
    evaluated = stored(dataset, "test", binarization, training=False)
    few, index = subset(evaluated, 7)
    np.testing.assert_array_equal(few.factors, factors[index])
    assert stored(dataset, "train", binarization, training=True).factors is None


def test_fault_data_are_scaled_to_minus_one_to_one_under_a_sigmoid():
    x = to_unit_interval(jnp.asarray(GREY[0]))
    assert (x.min(), x.max()) == (0, 1)
    assert x.dtype == jnp.float32


def test_moments_are_the_mean_image_and_the_spread_about_it_in_the_unit_interval_for_bytes_and_floats():
    grey = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 1), dtype=np.uint8)
    for images in (grey, (grey / 255).astype(np.float32)):
        mean, spread = moments(images)
        np.testing.assert_allclose(mean, grey.mean(0) / 255, rtol=1e-5)
        np.testing.assert_allclose(spread, np.sqrt((grey / 255).var(0).mean()), rtol=1e-5)
        assert mean.dtype == spread.dtype == np.float32


def test_an_empty_split_stays_empty():
    empty = DATASET._replace(validation=Split(GREY[:0]))
    assert len(stored(empty, "validation", "fixed", training=False).images) == 0


def test_moments_of_colour_are_of_each_channel():
    images = np.zeros((3, 2, 4, 3), np.uint8)
    images[..., 1], images[..., 2] = 51, 255
    found = moments(images)
    np.testing.assert_allclose(found.mean, np.broadcast_to([0, 0.2, 1], (2, 4, 3)), rtol=1e-6)
    assert found.spread == 0
