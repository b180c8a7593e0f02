"""Sprites: generated pictures of one shape each, with the factors from which they were made.

Every combination of shape, size, angle and place is there once. No rotation maps a shape on itself, so that each angle
looks different. A pixel is the part of it that the shape covers, counted on 8×8 points. All is arithmetic of whole
numbers, so that the bytes are the same on every machine.
"""

import itertools

import numpy as np

from vae import untrusted
from vae.datasets.dataset import About, DataError, Factors, Split
from vae.datasets.splits import hold_out_test, permute

SHAPES = ("triangle", "ell", "half_disc")
RADII = (4, 5, 6, 7)  # of the circle around the sprite, in 32nds of the image's side
PLACES = tuple(range(7, 26, 2))  # of the centre, in 32nds of the side: the largest sprite fits
# 4096 times the cosine of 0°, 30°, 60°, …
COSINES = (4096, 3547, 2048, 0, -2048, -3547, -4096, -3547, -2048, 0, 2048, 3547)
ANGLES = tuple(range(0, 360, 30))
FACTORS = {
    "shape": SHAPES,
    "size": tuple(radius / 32 for radius in RADII),
    "angle": ANGLES,
    "x": tuple(place / 32 for place in PLACES),
    "y": tuple(place / 32 for place in PLACES),
}
ABOUT = About(
    sizes=(12_960, 1440),
    shape=(32, 32, 1),
    images="grey; drawn at `image_size` from 16 to 256",
    publisher="this project, which draws them",
    licence="that of this project",
    factors=FACTORS,
)
SIZE = 32
LEAST, MOST = 16, 256
POINTS = 8  # along each side of a pixel


def load(image_size: int | None = None) -> tuple[Split, Split]:
    """All combinations in a fixed random order, of which the last tenth is test."""
    return hold_out_test("sprites", permute(draw(grid(FACTORS), image_size or SIZE)))


def grid(factors: Factors) -> np.ndarray:
    """Every combination of the values of the factors once, [N, F]: positions among them, of the last one fastest."""
    return np.array(list(itertools.product(*(range(len(values)) for values in factors.values()))), np.int32)


def sample(factors: Factors, num_images: int, seed: int) -> np.ndarray:
    """Combinations [N, F] in which each value is as likely as any other, independently."""
    numbers = np.random.RandomState(seed)  # which never change
    return np.stack([numbers.randint(0, len(values), num_images, np.int32) for values in factors.values()], axis=1)


def draw(factors: np.ndarray, size: int) -> Split:
    """White sprites on black, [N, size, size, 1], of factors [N, 5]; the label is the shape."""
    images = mixed(255, 0)[cover(factors, size, channels=1)]
    return Split(images[..., None], np.array(SHAPES)[factors[:, 0]], factors)


def mixed(colour: int, ground: int) -> np.ndarray:
    """The value of a pixel of which 0, 1, … 64 points are covered, rounded: [65] uint8."""
    covered, whole = np.arange(POINTS**2 + 1), POINTS**2
    return ((colour * covered + ground * (whole - covered) + whole // 2) // whole).astype(np.uint8)


def cover(factors: np.ndarray, size: int, channels: int) -> np.ndarray:
    """How many of its 64 points are covered in each pixel: [N, size, size] uint8, of factors [N, 5].

    Raises DataError if the size is none that is drawn, or if so many images of `channels` exceed the memory.
    """
    if not LEAST <= size <= MOST:
        raise DataError(f"sprites are drawn from {LEAST}×{LEAST} to {MOST}×{MOST}; got `image_size={size}`")
    try:
        untrusted.check_memory(len(factors) * size**2 * (1 + 3 * channels))
    except ValueError as error:
        raise DataError(f"{len(factors)} sprites of {size}×{size} take {error}; use a smaller `image_size`") from error
    counts = np.empty((len(factors), size, size), np.uint8)
    kinds, kind_of = np.unique(factors[:, :3], axis=0, return_inverse=True)
    for kind, (shape, radius, angle) in enumerate(kinds.tolist()):
        members = np.flatnonzero(kind_of.reshape(-1) == kind)
        inside = stencil(SHAPES[shape], RADII[radius] * size * POINTS // 16, angle)
        sums = np.zeros((len(inside) + 1, len(inside) + 1), np.int32)
        sums[1:, 1:] = inside.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
        left, top = (_edges(factors[members, axis], size, len(inside)) for axis in (3, 4))
        corners = sums[top[:, :, None], left[:, None, :]]
        counts[members] = np.diff(np.diff(corners, axis=1), axis=2)
    return counts


def stencil(shape: str, radius: int, angle: int) -> np.ndarray:
    """Which points a shape covers, [M, M] bool, the centre in the middle; `radius` in half distances of points.

    `angle` counts 30° clockwise. Points and the turn are exact; the shape's corners lie on a circle of radius 60 units.
    """
    half = radius // 2 + 1
    place = 2 * np.arange(-half, half, dtype=np.int64) + 1
    x, y = place[None, :], place[:, None]
    cosine, sine = COSINES[angle], COSINES[angle - 3]
    unit = 4096 * radius
    u, v = 60 * (cosine * x + sine * y), 60 * (cosine * y - sine * x)
    if shape == "triangle":
        return (v <= 48 * unit) & (3 * u - v <= 60 * unit) & (-3 * u - v <= 60 * unit)
    if shape == "ell":
        foot = (abs(u) <= 36 * unit) & (v >= 18 * unit) & (v <= 48 * unit)
        return foot | ((u >= -36 * unit) & (u <= -6 * unit) & (abs(v) <= 48 * unit))
    return (v >= -20 * unit) & (u**2 + (v + 20 * unit) ** 2 <= (56 * unit) ** 2)


def _edges(place: np.ndarray, size: int, width: int) -> np.ndarray:
    """Where the edges of all pixels cut a stencil of `width` points whose centre is at `place` [N]: [N, size + 1]."""
    centre = np.array(PLACES)[place] * size * POINTS // 32
    first = centre - width // 2
    return np.clip(np.arange(0, size * POINTS + 1, POINTS)[None, :] - first[:, None], 0, width)
