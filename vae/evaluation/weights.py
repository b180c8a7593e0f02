"""Statistics of the log-weights of importance sampling: the estimate, and whether it can be trusted.

On the host, in float64. Shapes: N examples, K samples of each. An impossible sample has the log-weight −inf.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import boxcox

LEAST_TAIL = 5  # weights to which a Pareto is fitted, at least (Vehtari et al. 2024)
PRIOR_SHAPE, PRIOR_WEIGHTS = 0.5, 10  # of Vehtari's weak prior, which counts like that many weights


def log_mean_exp(log_w: np.ndarray) -> np.ndarray:
    """log 1/K Σ_k w_k over the last axis; −inf if all w are 0."""
    largest = log_w.max(-1)
    shift = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore", over="ignore"):
        return shift + np.log(np.exp(log_w - shift[..., None]).mean(-1))


def grouped_log_likelihood(log_w: np.ndarray, k: int) -> np.ndarray:
    """The importance-weighted bound L_k (Burda et al. 2016, eq. 8), averaged over the K // k groups of [N, K].

    The groups for a smaller k are nested in those for a larger one, so L_k never decreases in k, example by example.
    """
    return log_mean_exp(log_w.reshape(len(log_w), -1, k)).mean(-1)


def effective_sample_size(log_w: np.ndarray) -> np.ndarray:
    """(Σ_k w_k)² / Σ_k w_k² of [N, K] (Kong 1992): K for equal weights, 1 for a single one; NaN if all are 0."""
    with np.errstate(invalid="ignore"):
        weights = np.exp(log_w - log_w.max(1, keepdims=True))
    return weights.sum(1) ** 2 / (weights**2).sum(1)


def tail_size(num_samples: int) -> int:
    """⌈min(K/5, 3√K)⌉, how many of the largest weights the Pareto is fitted to (Vehtari et al. 2024)."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k_threshold(num_samples: int) -> float | None:
    """min(1 − 1/log₁₀ K, 0.7), above which k̂ calls an estimate unreliable (Vehtari et al. 2024).

    None for K < 21: these are too few for k̂.
    """
    return None if tail_size(num_samples) < LEAST_TAIL else min(1 - 1 / math.log10(num_samples), 0.7)


class Smoothed(NamedTuple):
    """What a generalised Pareto distribution, fitted to the largest weights of each row, says of it; [N]."""

    pareto_k: np.ndarray  # its shape k̂; NaN for K < 21 and if there is no finite largest weight, −inf if all are equal
    log_likelihood: np.ndarray  # log of the mean of the smoothed weights; NaN for K < 21. No bound


def pareto_smoothed(log_w: np.ndarray) -> Smoothed:
    """Pareto-smoothed importance sampling of each row of [N, K] (Vehtari et al. 2024).

    The largest weights, as many as `tail_size` says, become the quantiles (m − ½)/M of the Pareto fitted to them, but
    no larger than the largest weight. The fit is that of Zhang & Stephens (2009), whose shape is drawn to ½ by
    Vehtari's weak prior. If a quarter of the tail equals the weight below it, weights are left as they are: the fit
    divides by their distance.
    """
    num_samples = log_w.shape[1]
    size = tail_size(num_samples)
    if size < LEAST_TAIL:
        return Smoothed(*np.full((2, len(log_w)), np.nan))
    ordered = np.partition(log_w, num_samples - size - 1, axis=1)
    ordered[:, -size - 1 :].sort(axis=1)
    exists = np.isfinite(ordered[:, -1])
    largest = np.where(exists, ordered[:, -1], 0)[:, None]
    weights = np.exp(np.where(exists[:, None], ordered, 0) - largest)
    cutoff, excess = weights[:, -size - 1, None], weights[:, -size:] - weights[:, -size - 1, None]
    flat = excess[:, -1] <= 0
    shape, scale = fit_pareto(np.where(flat[:, None], 1.0, excess))
    quantiles = cutoff + scale[:, None] * boxcox(size / (np.arange(size)[::-1] + 0.5), shape[:, None])
    total = weights[:, :-size].sum(1) + np.minimum(quantiles, 1).sum(1)
    smooth = exists & (excess[:, quartile_of(size)] > 0)
    return Smoothed(
        pareto_k=np.where(exists, np.where(flat, -np.inf, shape), np.nan),
        log_likelihood=np.where(smooth, largest[:, 0] + np.log(total / num_samples), log_mean_exp(log_w)),
    )


def quartile_of(size: int) -> int:
    """The position of the first quartile among `size` values (Zhang & Stephens 2009)."""
    return int(size / 4 + 0.5) - 1


def fit_pareto(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale, [N] each, of a generalised Pareto fitted to each row of [N, M], ascending and not all 0."""
    size = excess.shape[1]
    num_points = 30 + int(math.sqrt(size))
    quartile = np.maximum(excess[:, quartile_of(size)], np.finfo(float).tiny)
    grid = 1 - np.sqrt(num_points / (np.arange(1, num_points + 1) - 0.5))
    theta = 1 / excess[:, -1:] + grid / (3 * quartile[:, None])  # [N, G]
    shape = np.log1p(-theta[:, :, None] * excess[:, None, :]).mean(-1)
    log_profile = size * (np.log(-theta / shape) - shape - 1)
    posterior = np.exp(log_profile - log_mean_exp(log_profile)[:, None]) / num_points
    mean_theta = (posterior * theta).sum(1)
    k = np.log1p(-mean_theta[:, None] * excess).mean(1)
    return (size * k + PRIOR_WEIGHTS * PRIOR_SHAPE) / (size + PRIOR_WEIGHTS), -k / mean_theta
