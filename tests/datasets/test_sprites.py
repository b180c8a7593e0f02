"""Generated pictures: the factors are what they say, and the bytes are the same everywhere."""

import functools
import hashlib

import numpy as np
import pytest

from vae import untrusted
from vae.datasets import DataError, load, sprites, sprites_colour

GRID = sprites.grid(sprites.FACTORS)
EVERY = slice(None, None, 97)  # of the grid


@functools.cache
def loaded(name, size):
    return load(name, image_size=size)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("sprites", 16, "82c3589d7c5dbb650125df762bdab8b406f246ad45bfde3c3bbedb7e5ec92d8c"),
        ("sprites", 21, "f0f194191c58e6dc2aa082ec638106837fd124a18c4a09eaae955aa913f620ef"),
        ("sprites_colour", 16, "1f2135570f91a6a506cb0fd6b5c97c7ca0aab22658a24b9be374be265245dfd4"),
    ],
)
def test_the_bytes_are_the_same_everywhere(name, size, expected):
    found = loaded(name, size)
    parts = (array.tobytes() for split in found[1:4] for array in split)
    assert hashlib.sha256(b"".join(parts)).hexdigest() == expected


def test_they_load_by_name_with_labels_and_factors_that_follow_the_images():
    found = loaded("sprites", 16)
    assert [len(split.images) for split in found[1:4]] == [11_664, 1_296, 1_440]
    assert found.factors == sprites.FACTORS
    assert found.classes == ("ell", "half_disc", "triangle")
    for split in found[1:4]:
        some = split.at(EVERY)
        assert np.array_equal(sprites.draw(some.factors, 16).images, some.images)
        assert [found.classes[label] for label in some.labels] == [
            sprites.SHAPES[shape] for shape in some.factors[:, 0]
        ]
    assert len(np.unique(np.concatenate([split.factors for split in found[1:4]]), axis=0)) == len(GRID)


def test_coloured_ones_load_by_name():
    found = loaded("sprites_colour", 16)
    assert [len(split.images) for split in found[1:4]] == [16_200, 1_800, 2_000]
    assert found.test.images.shape[1:] == (16, 16, 3)
    assert {*np.unique(found.test.factors[:, 5])} == {*range(6)}
    colours, grounds = (np.array([*table.values()]) for table in (sprites_colour.COLOURS, sprites_colour.GROUNDS))
    assert np.array_equal(found.test.images[:, 0, 0], grounds[found.test.factors[:, 6]])  # no sprite reaches the corner
    whole = (found.test.images == colours[found.test.factors[:, 5], None, None]).all(-1)
    assert (whole.sum((1, 2)) > 0).mean() > 0.9


def test_every_combination_has_an_image_of_its_own():
    assert len({image.tobytes() for image in sprites.draw(GRID, 16).images}) == len(GRID)


@pytest.mark.parametrize("size", [16, 37, 64])
def test_place_size_and_angle_are_those_of_the_shape(size):
    """By sums over pixels: the area grows with the square of the size, and the half disc's mass lies where it must."""
    factors = GRID[GRID[:, 0] == sprites.SHAPES.index("half_disc")][::11]
    mass = sprites.draw(factors, size).images[..., 0] / 255.0
    radius, angle, x, y = (
        np.array(sprites.FACTORS[name])[factors[:, column]]
        for column, name in enumerate(("size", "angle", "x", "y"), start=1)
    )
    radius, turn = radius * size, np.deg2rad(angle)
    area = mass.sum((1, 2))
    # The disc of radius 56/60 about (0, −20/60) below the line of its centre.
    np.testing.assert_allclose(area / radius**2, np.pi / 2 * (56 / 60) ** 2, rtol=0.04)
    down = radius * (-20 / 60 + 4 / (3 * np.pi) * 56 / 60)
    pixel = np.arange(size) + 0.5
    found_x, found_y = mass.sum(1) @ pixel / area, mass.sum(2) @ pixel / area
    np.testing.assert_allclose(found_x, x * size - np.sin(turn) * down, atol=0.15)
    np.testing.assert_allclose(found_y, y * size + np.cos(turn) * down, atol=0.15)


@pytest.mark.parametrize("name", ["sprites", "sprites_colour"])
def test_sizes_that_are_not_drawn_or_do_not_fit_are_one_line(name, monkeypatch):
    for size in (15, 257):
        with pytest.raises(DataError, match=rf"drawn from 16×16 to 256×256; got `image_size={size}`"):
            load(name, image_size=size)
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**6)
    with pytest.raises(DataError, match=r"sprites of 32×32 take .* GB, but there are 0.001 GB of free memory"):
        load(name)
