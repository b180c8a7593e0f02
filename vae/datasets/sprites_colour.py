"""Coloured sprites: those of `sprites.py` in a colour on a ground, drawn at random from all combinations."""

import itertools

import numpy as np

from vae.datasets import sprites
from vae.datasets.dataset import Split
from vae.datasets.splits import hold_out_test

COLOURS = {
    "red": (230, 25, 30), "yellow": (240, 220, 20), "green": (30, 180, 50), "cyan": (20, 210, 220),
    "blue": (40, 70, 230), "magenta": (220, 40, 200),
}  # fmt: skip
GROUNDS = {"black": (0, 0, 0), "grey": (110, 110, 110), "white": (255, 255, 255)}
FACTORS = sprites.FACTORS | {"colour": tuple(COLOURS), "ground": tuple(GROUNDS)}
ABOUT = sprites.ABOUT._replace(
    sizes=(18_000, 2000), shape=(32, 32, 3), images="colour; drawn at `image_size` from 16 to 256", factors=FACTORS
)
NUM_IMAGES, SEED = 20_000, 0


def load(image_size: int | None = None) -> tuple[Split, Split]:
    """The images of a fixed seed, of which the last tenth is test."""
    return hold_out_test("sprites_colour", draw(sprites.sample(FACTORS, NUM_IMAGES, SEED), image_size or sprites.SIZE))


def draw(factors: np.ndarray, size: int) -> Split:
    """Sprites on their ground, [N, size, size, 3], of factors [N, 7]; the label is the shape."""
    counts = sprites.cover(factors[:, :5], size, channels=3)
    pairs = itertools.product(COLOURS.values(), GROUNDS.values())
    mixed = [[sprites.mixed(*channel) for channel in zip(*pair, strict=True)] for pair in pairs]  # [pairs][3][65]
    values = np.array(mixed).swapaxes(1, 2).reshape(len(COLOURS), len(GROUNDS), -1, 3)
    colour, ground = (factors[:, column, None, None] for column in (5, 6))
    return Split(values[colour, ground, counts], np.array(sprites.SHAPES)[factors[:, 0]], factors)
