"""generation.py: decoding, and paths through latent space."""

import jax
import numpy as np
import pytest
import scipy.stats

from vae.models import generation
from vae.models import model as models
from vae.settings import Settings

SETTINGS = Settings((4, 3, 1), hidden_sizes=(8,), latent_dim=2)
MODEL = models.build(SETTINGS)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 3, 1)).astype(np.uint8)
BATCH, GENERATOR = models.Batch(jax.device_put(np.float32(IMAGES / 255))), np.random.default_rng(1)
PARAMS = jax.tree.map(
    lambda leaf: np.float32(0.5 * GENERATOR.normal(size=leaf.shape)),
    jax.eval_shape(MODEL.init, jax.random.key(0), BATCH),
)


def test_decoding_does_not_depend_on_how_many_are_decoded_at_once(monkeypatch):
    z = np.random.default_rng(0).normal(size=(5, 3, 2))
    whole = generation.decode(PARAMS, z, MODEL)
    monkeypatch.setattr(generation, "MOST_AT_ONCE", 4)
    np.testing.assert_allclose(generation.decode(PARAMS, z, MODEL), whole, atol=1e-6)
    assert whole.shape == (5, 3, 4, 3, 1)


def test_encoding_equals_the_models_posterior():
    q = generation.encode(PARAMS, IMAGES, MODEL)
    expected = MODEL.posterior(PARAMS, BATCH)
    np.testing.assert_allclose(q.mean, expected.mean, atol=1e-5)


def test_reconstructions_are_decoded_from_the_posteriors_mean_and_drawn_from_the_likelihood():
    mean, drawn = generation.reconstructions(jax.random.key(0), PARAMS, IMAGES, MODEL)
    q = generation.encode(PARAMS, IMAGES, MODEL)
    np.testing.assert_allclose(mean, generation.decode(PARAMS, q.mean, MODEL), atol=1e-6)
    assert drawn.shape == IMAGES.shape
    assert set(np.unique(drawn)) == {0.0, 1.0}


def test_samples_are_decoded_draws_from_the_prior():
    images = generation.samples(jax.random.key(0), PARAMS, MODEL, 50)
    assert images.shape == (50, 4, 3, 1)
    assert images.std(0).min() > 0
    other = generation.samples(jax.random.key(1), PARAMS, MODEL, 50)
    assert (images != other).any()


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_a_path_begins_and_ends_at_its_ends(path):
    start, end = np.random.default_rng(0).normal(size=(2, 10))
    points = generation.interpolate(start, end, 7, path)
    assert points.shape == (7, 10)
    np.testing.assert_allclose(points[[0, -1]], [start, end], atol=1e-12)


def test_a_spherical_path_turns_at_a_constant_rate_while_its_length_changes_linearly():
    start, end = np.array([3.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    points = generation.interpolate(start, end, 5, "spherical")
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), [3, 2.5, 2, 1.5, 1])
    np.testing.assert_allclose(np.arctan2(points[:, 1], points[:, 0]), np.linspace(0, np.pi / 2, 5), atol=1e-12)


def test_a_linear_path_is_straight():
    points = generation.interpolate(np.array([0.0, 2.0]), np.array([4.0, 0.0]), 3, "linear")
    np.testing.assert_allclose(points[1], [2, 1])


@pytest.mark.parametrize("end", [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], ids=["parallel", "opposite", "zero"])
def test_a_spherical_path_without_a_plane_is_straight(end):
    start = np.array([1.0, 0.0])
    points = generation.interpolate(start, np.array(end), 5, "spherical")
    np.testing.assert_allclose(points, np.linspace(start, end, 5), atol=1e-12)


def test_a_traversal_moves_one_coordinate_at_a_time():
    points = generation.traversals(np.array([1.0, 2.0, 3.0]), np.array([2, 0]), np.array([-1.0, 5.0]))
    np.testing.assert_array_equal(points[0], [[1, 2, -1], [1, 2, 5]])
    np.testing.assert_array_equal(points[1], [[-1, 2, 3], [5, 2, 3]])


def test_the_grid_lies_at_equal_steps_of_the_priors_distribution_function():
    values, points = generation.quantile_grid(4, (1, 3), 5)
    np.testing.assert_allclose(np.diff(scipy.stats.norm.cdf(values)), (0.97 - 0.03) / 4)
    assert points.shape == (5, 5, 4)
    np.testing.assert_array_equal(points[2, 4], [0, values[2], 0, values[4]])


def test_the_dimensions_that_carry_most_come_first():
    """The mean of z[2] never moves, but its narrow q costs a KL that those of the others do not reach."""
    means = np.random.default_rng(0).normal(size=(1000, 4)) * [0.1, 3, 0, 1]
    means[:, 2] = 3
    log_scale = np.broadcast_to([0, 0, -2, 0], means.shape)
    np.testing.assert_array_equal(generation.most_active(generation.Codes(means, None), 3), [1, 3, 0])
    np.testing.assert_array_equal(generation.most_active(generation.Codes(means, log_scale), 3), [2, 1, 3])
