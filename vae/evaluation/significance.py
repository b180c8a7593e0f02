"""Is the difference of two objectives more than chance? A t-test for few seeds, many images and unequal noise.

The difference of a pair on seed s and image i, d_si = δ + u_s + v_i + e_si, is random in two ways: other seeds train
other models, and another test set holds other images (two crossed random effects, Cornfield & Tukey 1956). The mean of
d over S seeds and N images has the variance σ_u²/S + σ_v²/N + σ_e²/SN, and s_u²/S + s_v²/N estimates it or more, with
s_u² the variance between the S means over images and s_v² that between the N means over seeds.

One pair, level α (Banerjee 1960). δ differs from 0 if

    difference² > t(α, S − 1)² s_u²/S + t(α, N − 1)² s_v²/N,

t(α, ν) being Student's two-sided quantile. For normal effects the error is α or less whatever the ratio of σ_u, σ_v
and σ_e: given the estimates, the chance that a normal difference stays within is G(right side / variance), G the
distribution function of χ² with one degree of freedom; G is concave, so G of a weighted mean is no less than the
weighted mean of the G, each of which has the mean 1 − α. (Satterthwaite's (1946) t-test has no such bound: with three
seeds its degrees of freedom are guessed from a variance that is often far too small by chance.)

All pairs. With three seeds a pair alone has 2 degrees of freedom, and no correction for 21 pairs survives that. What
all objectives tell together is exact only if their noise is equal. So a difference is significant if two tests agree:

    the pair alone, at LEVEL;
    the same with Holm's (1979) correction over all pairs, in which s_u² has the degrees of freedom of all objectives:
    (O − 1)(S − 1) if they are equally noisy, as few as S − 1 if one has all the noise (Satterthwaite 1946).

In both, s_u² of a pair is drawn towards that of the noisiest pair, by SHARE_OF_LARGEST: a pair of noisy objectives must
not look calm by chance. experiments/comparison_validity.py measures the error, the coverage and the power.

Shapes: O objectives, S seeds, N test images, P = O(O − 1)/2 pairs; leading axes are independent tables.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import elementwise

LEVEL = 0.05  # of the whole family of pairs
LEAST_SEEDS = 3  # one degree of freedom tells nothing: an interval of two seeds is 12.7 standard errors to each side
# Of 0.25, 0.3, 0.35, 0.4 the least whose error is 5 % or less in all that was simulated. A larger one finds less.
SHARE_OF_LARGEST = 0.4


class Statistics(NamedTuple):
    """All that the test reads of scores."""

    by_seed: np.ndarray  # [..., O, S] means over images
    images: np.ndarray  # [..., P] s_v², variance between images of the difference of a pair, mean over seeds
    num_images: int


class Variances(NamedTuple):
    """Estimated variances of the mean difference of each pair, nats², and their degrees of freedom."""

    own: np.ndarray  # [..., P] s_u²/S of the pair
    seeds: np.ndarray  # [..., P] the same, drawn towards the largest
    images: np.ndarray  # [..., P] s_v²/N
    own_freedom: int  # S − 1
    pooled_freedom: np.ndarray  # [..., 1] from S − 1 to (O − 1)(S − 1)
    images_freedom: int  # N − 1


def pairs_of(num_objectives: int) -> np.ndarray:
    """(a, b) with a < b: [P, 2]."""
    return np.stack(np.triu_indices(num_objectives, 1), -1)


def summarize(scores: np.ndarray) -> Statistics:
    """The statistics of scores [..., O, S, N]. Raises ValueError for fewer than two objectives or two images."""
    scores = np.asarray(scores, np.float64)
    num_objectives, _, num_images = scores.shape[-3:]
    if num_objectives < 2 or num_images < 2:
        raise ValueError(f"scores have shape {scores.shape}; expected [..., O, S, N] with O and N of 2 or more")
    by_image = scores.mean(-2)
    images = [(by_image[..., a, :] - by_image[..., b, :]).var(-1, ddof=1) for a, b in pairs_of(num_objectives)]
    return Statistics(scores.mean(-1), np.stack(images, -1), num_images)


def variances(statistics: Statistics) -> Variances:
    by_seed = statistics.by_seed
    num_objectives, num_seeds = by_seed.shape[-2:]
    a, b = pairs_of(num_objectives).T
    own = (by_seed[..., a, :] - by_seed[..., b, :]).var(-1, ddof=1) / num_seeds
    return Variances(
        own=own,
        seeds=(1 - SHARE_OF_LARGEST) * own + SHARE_OF_LARGEST * own.max(-1, keepdims=True),
        images=statistics.images / statistics.num_images,
        own_freedom=num_seeds - 1,
        pooled_freedom=pooled_freedom(by_seed),
        images_freedom=statistics.num_images - 1,
    )


def pooled_freedom(by_seed: np.ndarray) -> np.ndarray:
    """Degrees of freedom that O objectives have together, of their means over images [..., O, S]: [..., 1].

    Satterthwaite (1946) for variances σ_o²: (O − 1)(S − 1) (Σ σ_o²)² / (O Σ σ_o⁴), where the estimate of σ_o⁴ by the
    squared sum of squares is (S + 1)/(S − 1) times too large.
    """
    num_objectives, num_seeds = by_seed.shape[-2:]
    # The residuals of objectives × seeds; each objective's part of their squares is its part of the variance.
    residuals = by_seed - by_seed.mean(-1, keepdims=True)
    residuals = residuals - residuals.mean(-2, keepdims=True)
    squares = (residuals**2).sum(-1)[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        equally_noisy = squares.sum(-1) ** 2 / (squares**2).sum(-1) * (num_seeds + 1) / max(num_seeds - 1, 1)
    least, most = num_seeds - 1, (num_objectives - 1) * (num_seeds - 1)
    return np.clip(np.nan_to_num(most * equally_noisy / num_objectives, nan=most), least, most)


def half_widths(difference: np.ndarray, variance: Variances) -> np.ndarray:
    """Of the intervals about differences [..., P]: they hold the true one with probability 1 − LEVEL or more.

    The larger of two: that of the pair alone, and that at the level at which Holm's procedure ends.
    """
    alone = _half_width(variance, variance.own_freedom, LEVEL)
    corrected, num_pairs, rejected = alone, difference.shape[-1], np.zeros((*difference.shape[:-1], 1), int)
    for _ in range(num_pairs + 1):
        level = LEVEL / np.maximum(num_pairs - rejected, 1)
        corrected, before = _half_width(variance, variance.pooled_freedom, level), rejected
        rejected = (np.abs(difference) > corrected).sum(-1, keepdims=True)
        if (rejected == before).all():
            break
    return np.maximum(alone, corrected)


def _half_width(variance: Variances, freedom: np.ndarray | int, level: np.ndarray | float) -> np.ndarray:
    t_seeds, t_images = _t(level, freedom), _t(level, variance.images_freedom)
    return np.sqrt(t_seeds**2 * variance.seeds + t_images**2 * variance.images)


def _t(level: np.ndarray | float, freedom: np.ndarray | int) -> np.ndarray:
    """Student's two-sided quantile."""
    return np.asarray(stats.t.isf(np.asarray(level) / 2, freedom))


def p_values(difference: np.ndarray, variance: Variances) -> tuple[np.ndarray, np.ndarray]:
    """`p` of each pair alone and `p_holm` over all pairs, [..., P] both; p_holm is the larger of the two tests'."""
    p = _p_value(difference, variance, variance.own_freedom)
    pooled = _p_value(difference, variance, variance.pooled_freedom)
    return p, np.maximum(p, holm(pooled))


def _p_value(difference: np.ndarray, variance: Variances, freedom: np.ndarray | int) -> np.ndarray:
    """The level at which |difference| is the half width."""
    total = variance.seeds + variance.images
    with np.errstate(divide="ignore", invalid="ignore"):
        # Runs that agree in every number differ in nothing, and leave no variance to divide by.
        t = np.where(difference == 0, 0, np.abs(difference) / np.sqrt(total))
        share = np.nan_to_num(variance.seeds / total)
    freedom = np.broadcast_to(np.asarray(freedom, float), t.shape)
    # Between the p of either number of degrees of freedom alone.
    bounds = np.stack([2 * stats.t.sf(t, freedom), 2 * stats.t.sf(t, variance.images_freedom)])
    least = np.log(np.maximum(bounds.min(0), 1e-300))
    most = np.log(np.maximum(bounds.max(0), 1e-300))

    def excess(log_p, t, share, freedom):
        p = np.exp(np.minimum(log_p, 0))
        return share * _t(p, freedom) ** 2 + (1 - share) * _t(p, variance.images_freedom) ** 2 - t**2

    t_finite = np.where(np.isfinite(t), t, 0)
    found = elementwise.find_root(excess, (least - 1e-6, most + 1e-6), args=(t_finite, share, freedom))
    p = np.where(found.success, np.exp(np.minimum(found.x, 0)), bounds.min(0))
    return np.where(np.isfinite(t), p, 0.0)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p-values of [..., P]: any false rejection among those below α has chance α or less."""
    order = np.argsort(p, -1, kind="stable")
    num_tests = p.shape[-1]
    stepped = np.take_along_axis(p, order, -1) * np.arange(num_tests, 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, -1), 1), -1)
    return adjusted
