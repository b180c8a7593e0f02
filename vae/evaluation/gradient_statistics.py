"""What draws of a gradient tell about its estimator: signal and noise, and bias.

Of one group of parameters, from the moments of J independent blocks of draws (gradients.py). Shapes: P parameters of
the group, J blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from vae.evaluation.gradients import GradientMoments, merge


class Signal(NamedTuple):
    """What the draws of one group tell about its estimator. Nats per example, per unit of a parameter."""

    num_parameters: int
    num_zero: int  # parameters whose gradient was zero in every draw, as of a pixel that is always black
    num_constant: int  # parameters whose draws were all the same other number; these and the former have no ratio
    mean_norm: float  # ‖mean‖, without what noise adds to it in expectation
    variance: float  # trace of the covariance of one draw
    snr: float  # mean over the other parameters of |mean|/std, which noise alone lifts to `noise_floor`
    snr_error: float  # standard error of `snr`, by leaving out one block after the other
    snr_of_norms: float  # mean_norm / √variance
    noise_floor: float


def signal(blocks: Sequence[GradientMoments]) -> Signal:
    """The mean gradient of a group and its noise.

    The signal-to-noise ratio |E g_i|/√Var g_i is that of each parameter (Rainforth et al. 2018); `snr` is its plain
    estimate, averaged over parameters. For R draws of pure noise it is √(2/πR), the `noise_floor`: a value near it
    says only that the true one is not higher. `mean_norm` and `snr_of_norms` are corrected for
    E‖mean‖² = ‖E g‖² + variance/R, and are 0 if nothing is left.
    """
    whole = reduce(merge, blocks)
    draws, variance = whole.count, variance_of(blocks)
    squared_norm = float(whole.mean @ whole.mean) - variance / draws
    mean_norm = math.sqrt(max(squared_norm, 0.0))
    constant = whole.m2 == 0
    zero = constant & (whole.mean == 0)
    before = [None, *accumulate(blocks, merge)]
    after = [*list(accumulate(blocks[::-1], merge))[::-1], None]
    without_one = [
        ratio(merge(a, b) if a and b else a or b) for a, b in zip(before[:-1], after[1:], strict=True)
    ]  # fmt: skip
    num_blocks = len(blocks)
    return Signal(
        num_parameters=whole.mean.size,
        num_zero=int(zero.sum()),
        num_constant=int(constant.sum() - zero.sum()),
        mean_norm=mean_norm,
        variance=variance,
        snr=ratio(whole),
        snr_error=math.sqrt((num_blocks - 1) * np.var(without_one)),
        snr_of_norms=mean_norm / math.sqrt(variance) if variance > 0 else math.nan,
        noise_floor=noise_floor(draws),
    )


def variance_of(blocks: Sequence[GradientMoments]) -> float:
    """The trace of the covariance of one draw."""
    whole = reduce(merge, blocks)
    return float(whole.m2.sum() / (whole.count - 1))


def ratio(moments: GradientMoments) -> float:
    """Mean of |mean|/std over the parameters whose gradient varies; NaN if none does."""
    varies = moments.m2 > 0
    if not varies.any():
        return math.nan
    return float(np.mean(np.abs(moments.mean[varies]) / np.sqrt(moments.m2[varies] / (moments.count - 1))))


def noise_floor(num_draws: int) -> float:
    """√(2/πR), the expectation of |mean|/std of R draws if the true mean is zero."""
    return math.sqrt(2 / (math.pi * num_draws))


class Bias(NamedTuple):
    """The difference in mean of two estimators, and two tests of whether it is chance."""

    relative_bias: float  # ‖difference‖ / ‖reference‖, without what noise adds to either; 0 if nothing is left
    difference_norm: float  # ‖difference of the means‖
    expected_norm: float  # the root mean square of this norm without a bias
    p_norm: float  # of `difference_norm`, by flipping the signs of blocks; no less than 2^(1 − J)
    max_t: float  # the largest |t| of any parameter
    p_max_t: float  # of the smallest p-value of any parameter, with Šidák's correction for their number
    share_below_5_percent: float  # share of the parameters with a p-value below .05; .05 expected without a bias


def bias(blocks: Sequence[GradientMoments], reference: Sequence[GradientMoments]) -> Bias:
    """Test whether an estimator has the mean of a reference, both in J independent blocks.

    `p_max_t` finds a bias in a few parameters: Welch's t-test of each one whose gradient varies, corrected for their
    number (conservative if they are correlated). `p_norm` finds a small bias in many: without a bias, the signs of the
    block-wise differences d_j are symmetric, and ‖Σ_j d_j‖ is as large as observed only by chance.
    """
    a, b = reduce(merge, blocks), reduce(merge, reference)
    difference = a.mean - b.mean
    parts = [m.m2 / (m.count - 1) / m.count for m in (a, b)]  # squared standard errors of the means
    squared_error = parts[0] + parts[1]
    varies = squared_error > 0
    max_t = p_max_t = share = math.nan
    if varies.any():
        t = np.abs(difference[varies]) / np.sqrt(squared_error[varies])
        freedom = 1 / sum(
            (part[varies] / squared_error[varies]) ** 2 / (m.count - 1) for part, m in zip(parts, (a, b), strict=True)
        )
        p = 2 * stdtr(freedom, -t)
        smallest = float(p.min())
        max_t, share = float(t.max()), float((p < 0.05).mean())
        p_max_t = 1.0 if smallest == 1 else -math.expm1(len(p) * math.log1p(-smallest))
    expected = float(squared_error.sum())
    squared = float(difference @ difference)
    squared_reference = float(b.mean @ b.mean - parts[1].sum())
    return Bias(
        relative_bias=math.sqrt(max(squared - expected, 0) / squared_reference) if squared_reference > 0 else math.nan,
        difference_norm=math.sqrt(squared),
        expected_norm=math.sqrt(expected),
        p_norm=sign_flip_test(np.stack([x.mean - y.mean for x, y in zip(blocks, reference, strict=True)])),
        max_t=max_t,
        p_max_t=p_max_t,
        share_below_5_percent=share,
    )


def sign_flip_test(differences: np.ndarray) -> float:
    """p-value of ‖Σ_j d_j‖ of J differences [J, P] among all changes of their signs: whether they have a mean."""
    num_blocks = len(differences)
    flips = (np.arange(2 ** (num_blocks - 1))[:, None] >> np.arange(num_blocks)) & 1  # the last sign stays
    signs = 1 - 2.0 * flips
    gram = differences @ differences.T
    squared_norms = np.einsum("si,ij,sj->s", signs, gram, signs)
    rounding = 1e-9 * np.abs(gram).sum()
    return float((squared_norms >= squared_norms[0] - rounding).mean())
