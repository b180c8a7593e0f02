"""Simulated comparisons: scores whose truth is known, drawn whole or as the statistics that the test reads of them.

The score of objective o on seed s and image i is

    x_osi = μ_o + A_os + B_oi + E_osi,

independent normal effects of mean 0, whose standard deviations may differ between objectives. What all objectives
share (an effect of the seed, of the image, of both) is in no difference, and left out.

Shapes: T tables, O objectives, S seeds, N images, P = O(O − 1)/2 pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from vae.evaluation import significance
from vae.evaluation.significance import LEVEL, Statistics

FAR = 1e4  # nats between objectives whose difference is found in any case
NOISIER = 6.0


class Effects(NamedTuple):
    """Means and standard deviations of O objectives, nats: [O] each."""

    mean: np.ndarray
    objective_seed: np.ndarray  # of A
    objective_image: np.ndarray  # of B
    residual: np.ndarray  # of E: a run and an image


class Cell(NamedTuple):
    """One place of the grid."""

    num_objectives: int
    num_seeds: int
    num_images: int
    objective_seed: float
    objective_image: float
    residual: float
    noise: str = "equal"  # a key of NOISE
    lead: float = 0.0  # of the first objective, nats

    @property
    def effects(self) -> Effects:
        num_equal, num_noisier, in_seeds_alone = NOISE[self.noise]
        index = np.arange(self.num_objectives)
        mean = np.where(index == 0, self.lead, 0.0)
        if num_equal is not None:
            mean = mean + FAR * np.maximum(index - (num_equal - 1), 0)
        factor = np.where(index < num_noisier, NOISIER, 1.0)
        others = np.ones_like(factor) if in_seeds_alone else factor
        return Effects(mean, self.objective_seed * factor, self.objective_image * others, self.residual * others)

    @property
    def share_of_seeds(self) -> float:
        """In the variance of the mean difference of two quiet objectives."""
        seeds = (self.objective_seed**2 + self.residual**2 / self.num_images) / self.num_seeds
        return seeds / (seeds + self.objective_image**2 / self.num_images)


# How many objectives have equal means (None: all; the others are far from all), how many of these are noisier, and
# whether only in what seeds do to them.
NOISE: dict[str, tuple[int | None, int, bool]] = {
    "equal": (None, 0, False),
    "one noisier": (None, 1, False),
    "one noisier in seeds": (None, 1, True),
    "three noisier, the others far": (3, 3, False),
    "one of three noisier, the others far": (3, 1, False),
}


def draw_scores(
    effects: Effects,
    num_seeds: int,
    num_images: int,
    num_tables: int,
    rng: np.random.Generator,
    standard: Callable[..., np.ndarray] | None = None,
) -> np.ndarray:
    """Scores [T, O, S, N]; `standard(size=…)` draws effects of mean 0 and variance 1, normal ones by default."""
    standard = standard or rng.normal
    size = num_tables, len(effects.mean)
    mean, *deviations = (value[:, None, None] for value in effects)
    shapes = (num_seeds, 1), (1, num_images), (num_seeds, num_images)
    return mean + sum(sd * standard(size=(*size, *shape)) for sd, shape in zip(deviations, shapes, strict=True))


def draw_statistics(
    effects: Effects, num_seeds: int, num_images: int, num_tables: int, rng: np.random.Generator
) -> Statistics:
    """The statistics of T tables of scores, in no more time for more images.

    For normal effects the means over images are normal, the covariances between images Wishart and independent of them.
    """
    mean, objective_seed, objective_image, residual = effects
    size = num_tables, len(mean)
    by_seed = (
        mean[:, None]
        + objective_image[:, None] / np.sqrt(num_images) * rng.normal(size=(*size, 1))
        + np.hypot(objective_seed, residual / np.sqrt(num_images))[:, None] * rng.normal(size=(*size, num_seeds))
    )
    deviation = np.hypot(objective_image, residual / np.sqrt(num_seeds))
    return Statistics(by_seed, draw_variances(deviation, num_images - 1, num_tables, rng), num_images)


def draw_variances(deviation: np.ndarray, freedom: int, num_tables: int, rng: np.random.Generator) -> np.ndarray:
    """Variances of each pair's difference, [T, P], from Wishart(freedom, diag(deviation²)) by Bartlett (1933)."""
    size = len(deviation)
    root = np.tril(rng.normal(size=(num_tables, size, size)), -1)
    root[:, np.arange(size), np.arange(size)] = np.sqrt(rng.chisquare(freedom - np.arange(size), (num_tables, size)))
    root *= deviation[:, None]
    gram = root @ root.swapaxes(-1, -2)
    a, b = significance.pairs_of(size).T
    return (gram[:, a, a] + gram[:, b, b] - 2 * gram[:, a, b]) / freedom


class Measured(NamedTuple):
    error: float  # share of tables in which a pair of equal means is called different
    coverage: float  # least share, of all pairs, of intervals that hold the true difference
    power: float  # share found of the differences between the first objective and the others; NaN if there are none


def measure(effects: Effects, difference: np.ndarray, half: np.ndarray) -> Measured:
    """What intervals difference ± half, [T, P], do."""
    a, b = significance.pairs_of(len(effects.mean)).T
    truth = effects.mean[a] - effects.mean[b]
    called = np.abs(difference) > half
    covered = (np.abs(difference - truth) <= half).mean(0)
    led = called[:, (a == 0) & (truth > 0)] & (difference > 0)[:, (a == 0) & (truth > 0)]
    return Measured(
        float(called[:, truth == 0].any(-1).mean()), float(covered.min()), float(led.mean()) if led.size else np.nan
    )


def difference_of(statistics: Statistics) -> np.ndarray:
    mean = statistics.by_seed.mean(-1)
    a, b = significance.pairs_of(mean.shape[-1]).T
    return mean[..., a] - mean[..., b]


def simulate(cell: Cell, num_tables: int, seed: int) -> Measured:
    """What the test does in a place of the grid."""
    return _in_parts(cell.effects, num_tables, lambda size, rng: _intervals(cell, size, rng), seed)


def simulate_before(cell: Cell, num_tables: int, seed: int) -> Measured:
    """The same of the test before."""
    return _in_parts(cell.effects, num_tables, lambda size, rng: _intervals_before(cell, size, rng), seed)


def simulate_scores(cell: Cell, num_tables: int, seed: int, distribution: str) -> Measured:
    """The same of scores whose effects are not normal: DISTRIBUTIONS[distribution]."""

    def intervals(size, rng):
        standard = DISTRIBUTIONS[distribution](rng)
        scores = draw_scores(cell.effects, cell.num_seeds, cell.num_images, size, rng, standard)
        statistics = significance.summarize(scores)
        difference = difference_of(statistics)
        return difference, significance.half_widths(difference, significance.variances(statistics))

    return _in_parts(cell.effects, num_tables, intervals, seed)


# Effects of mean 0 and variance 1.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Callable[..., np.ndarray]]] = {
    "normal": lambda rng: rng.normal,
    "t, 5 degrees of freedom": lambda rng: lambda size: rng.standard_t(5, size) / np.sqrt(5 / 3),
    "lognormal, σ = 1": lambda rng: lambda size: (rng.lognormal(size=size) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
}


def _intervals(cell: Cell, num_tables: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    statistics = draw_statistics(cell.effects, cell.num_seeds, cell.num_images, num_tables, rng)
    difference = difference_of(statistics)
    return difference, significance.half_widths(difference, significance.variances(statistics))


def _intervals_before(cell: Cell, num_tables: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    statistics = draw_statistics(cell.effects, cell.num_seeds, cell.num_images, num_tables, rng)
    freedom = (cell.num_seeds - 1) * (cell.num_images - 1)
    interaction = draw_variances(cell.effects.residual, freedom, num_tables, rng)
    return difference_of(statistics), satterthwaite_half_widths(statistics, interaction)


def _in_parts(effects: Effects, num_tables: int, intervals: Callable, seed: int, part: int = 500) -> Measured:
    """Measured on T tables; in parts, since arrays that fit the cache take a third of the time."""
    rng = np.random.default_rng(seed)
    sizes = [min(part, num_tables - start) for start in range(0, num_tables, part)]
    difference, half = map(np.concatenate, zip(*(intervals(size, rng) for size in sizes), strict=True))
    return measure(effects, difference, half)


def satterthwaite_half_widths(statistics: Statistics, interaction: np.ndarray) -> np.ndarray:
    """The test before, which is too liberal: Satterthwaite's on estimated components, with Holm's correction.

    The variance between seeds is the larger of the pair's own and the mean of all pairs; that between images is less
    the `interaction` [T, P], the mean square of what is left of the pair's differences after seeds and images.
    """
    by_seed, images, num_images = statistics
    num_objectives, num_seeds = by_seed.shape[-2:]
    a, b = significance.pairs_of(num_objectives).T
    own = (by_seed[..., a, :] - by_seed[..., b, :]).var(-1, ddof=1)
    seeds = np.maximum(own, own.mean(-1, keepdims=True)) / num_seeds
    images = np.maximum(images - interaction / num_seeds, 0) / num_images
    residuals = by_seed - by_seed.mean(-1, keepdims=True)
    squares = ((residuals - residuals.mean(-2, keepdims=True)) ** 2).sum(-1)
    most = (num_objectives - 1) * (num_seeds - 1)
    freedom = most / num_objectives * squares.sum(-1) ** 2 / (squares**2).sum(-1)
    freedom = np.clip(freedom, num_seeds - 1, most)[..., None]
    variance = seeds + images
    freedom = variance**2 / (seeds**2 / freedom + images**2 / (num_images - 1))
    p = 2 * np.asarray(stats.t.sf(np.abs(difference_of(statistics)) / np.sqrt(variance), freedom))
    rank, corrected = np.argsort(np.argsort(p, -1), -1), significance.holm(p)
    step = np.minimum(rank, (corrected < LEVEL).sum(-1, keepdims=True))
    return stats.t.isf(LEVEL / np.maximum(p.shape[-1] - step, 1) / 2, freedom) * np.sqrt(variance)
