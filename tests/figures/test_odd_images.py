"""Pictures of images of any shape: channels without colours side by side, and never a side of tens of thousands."""

import io

import numpy as np
import pytest
from PIL import Image

from vae import figures
from vae.figures import images as drawing
from vae.figures.canvas import check_images


def size(figure) -> tuple[int, int]:
    return Image.open(io.BytesIO(figures.png(figure))).size


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_without_colours_stand_side_by_side(channels):
    given = np.random.default_rng(0).uniform(size=(3, 4, 6, channels))
    found = check_images("images", given)
    assert found.shape == (3, 4, 6 * channels, 1)
    for channel in range(channels):
        np.testing.assert_allclose(found[:, :, 6 * channel : 6 * channel + 6, 0], given[..., channel], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1000, 1), (1000, 1, 1), (1, 7, 1), (90, 90, 3), (2, 5000, 2)], ids=str)
def test_a_picture_of_any_images_is_of_a_size_that_can_be_seen(monkeypatch, shape):
    monkeypatch.setattr(drawing, "LONGEST", 800)  # a smaller page is drawn faster
    one = np.random.default_rng(0).uniform(size=(10, *shape))
    hundred = np.broadcast_to(one[:1], (100, *shape))
    grid = np.broadcast_to(one[:1], (20, 20, *shape))
    made = {
        "samples": figures.samples(hundred, ""),
        "reconstructions": figures.reconstructions(one, one, one, np.arange(10), ""),
        "manifold": figures.manifold(grid, np.arange(20.0), ""),
        "traversals": figures.traversals(grid[:8, :13], np.arange(8), np.arange(13), ""),
    }
    for name, figure in made.items():
        assert max(size(figure)) < 800 + 400, name  # labels and gaps beside the tiles


def test_large_images_are_averaged_not_sampled():
    image = np.arange(10.0).reshape(1, 1, 10, 1).repeat(3, 1)
    averaged = drawing._averaged(image, 2, 4)
    assert averaged.shape == (1, 2, 3, 1)
    np.testing.assert_allclose(averaged[0, :, :, 0], [[1.5, 5.5, 8.5]] * 2)
