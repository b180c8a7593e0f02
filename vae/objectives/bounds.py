"""Bounds that depend on log-weights alone, each as its equation. Nats per example, to be maximised.

`log_w[k, b]` = log p(x_b|z_kb) + log p(z_kb) − log q(z_kb|x_b), of shape [K, B], or [M, K, B] for the multiply
importance-weighted ones. To add one: a function `name(log_w, **options) -> [B]`, and a row in `BOUNDS` of table.py,
whose docstring shows how.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

Scalar = Float[Array, ""] | float


def elbo_mc(log_w: Float[Array, "K B"]) -> Float[Array, "B"]:
    """ELBO from samples: 1/K Σ_k log w_k (Kingma & Welling 2014, eq. 6, averaged over K)."""
    return log_w.mean(0)


def iwae(log_w: Float[Array, "K B"]) -> Float[Array, "B"]:
    """Importance-weighted bound: log 1/K Σ_k w_k (Burda et al. 2016, eq. 8)."""
    return logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])


def miwae(log_w: Float[Array, "M K B"]) -> Float[Array, "B"]:
    """Multiply importance-weighted bound: 1/M Σ_m log 1/K Σ_k w_mk (Rainforth et al. 2018)."""
    return (logsumexp(log_w, axis=1) - jnp.log(log_w.shape[1])).mean(0)


def piwae(log_w: Float[Array, "M K B"]) -> Float[Array, "B"]:
    """Partially importance-weighted: the value, and the decoder's gradient, are those of IWAE with M·K samples.

    The encoder's gradient is that of `miwae` (Rainforth et al. 2018); see objectives/log_weights.py.
    """
    return iwae(log_w.reshape(-1, log_w.shape[-1]))


def ciwae(log_w: Float[Array, "K B"], ciwae_beta: Scalar) -> Float[Array, "B"]:
    """Combination bound: β·ELBO + (1 − β)·IWAE (Rainforth et al. 2018)."""
    return ciwae_beta * elbo_mc(log_w) + (1 - ciwae_beta) * iwae(log_w)


def renyi(log_w: Float[Array, "K B"], alpha: Scalar) -> Float[Array, "B"]:
    """Rényi bound: 1/(1 − α) log 1/K Σ_k w_k^(1−α) (Li & Turner 2016); α = 1 is the ELBO, 0 the IWAE bound.

    As K → ∞ it tends to log p(x) − D_α(q ‖ p), a lower bound for α ≥ 0.
    """
    power = 1 - jnp.asarray(alpha, log_w.dtype)
    mean = log_w.mean(0)
    centred = log_w - mean[None]
    # Near α = 1, log(mean(exp(ε))) / ε loses everything to rounding; expm1 and log1p of centred weights lose nothing.
    safe_power = jnp.where(power == 0, 1, power)
    scaled = safe_power * centred
    small = jnp.abs(scaled).max(0) < 1
    near = jnp.log1p(jnp.expm1(jnp.where(small[None], scaled, 0)).mean(0)) / safe_power
    far = (logsumexp(jnp.where(small[None], 0, scaled), axis=0) - jnp.log(log_w.shape[0])) / safe_power
    return mean + jnp.where(power == 0, 0, jnp.where(small, near, far))


def vr_max(log_w: Float[Array, "K B"]) -> Float[Array, "B"]:
    """The limit α → −∞ of the Rényi bound: max_k log w_k (Li & Turner 2016). Not smooth.

    It is taken by its index. The derivative of `max` compares log w with the maximum; if a compiler computes log w
    twice and rounds it in two ways, that derivative divides by 0.
    """
    return jnp.take_along_axis(log_w, log_w.argmax(0)[None], axis=0)[0]


def tvo(
    log_w: Float[Array, "K B"],
    tvo_partitions: int,
    tvo_schedule: str,
    tvo_beta: Scalar,
    tvo_sum: str,
    log_measure: Float[Array, "K B"] | None = None,
) -> Float[Array, "B"]:
    """Thermodynamic objective: Σ_j (β_{j+1} − β_j) E_{β_j}[log w], or E_{β_{j+1}} (Masrani et al. 2019).

    E_β weighs samples by normalised w^β. It grows with β, from the ELBO at 0, and its integral from 0 to 1 is the IWAE
    bound: left sums lie between the ELBO and IWAE, right sums between IWAE and max log w, for any weights.

    0 = β_0 < … < β_J = 1 have equal steps (`linear`), equal ratios from β_1 = `tvo_beta` on (`log_uniform`), or equal
    steps of E_β[log w], of each example (`moments`, Brekelmans et al. 2020). `log_measure` (0 if it is not given) is
    the log of the mass of each sample, by which `estimators.covariance` differentiates.
    """
    mean = log_w.mean(0)
    centred = log_w - mean[None]
    log_measure = jnp.zeros_like(log_w) if log_measure is None else log_measure
    j = jnp.arange(tvo_partitions + 1, dtype=log_w.dtype)[:, None]
    if tvo_schedule == "moments":
        beta = equal_steps(centred, log_measure, tvo_partitions)
    elif tvo_schedule == "linear":
        beta = j / tvo_partitions
    else:
        beta = jnp.where(
            j == 0, 0, jnp.asarray(tvo_beta, log_w.dtype) ** ((tvo_partitions - j) / max(tvo_partitions - 1, 1))
        )
    at = beta[:-1] if tvo_sum == "left" else beta[1:]
    return mean + (jnp.diff(beta, axis=0) * tempered_mean(centred, log_measure, at)).sum(0)


def tempered_mean(
    log_w: Float[Array, "K B"], log_measure: Float[Array, "K B"], beta: Float[Array, "J #B"]
) -> Float[Array, "J B"]:
    """E_β[log w] = Σ_k m_k w_k^β log w_k / Σ_k m_k w_k^β."""
    return (tempered(log_w, log_measure, beta) * log_w[None]).sum(1)


def tempered(
    log_w: Float[Array, "K B"], log_measure: Float[Array, "K B"], beta: Float[Array, "J #B"]
) -> Float[Array, "J K B"]:
    """m_k w_k^β, normalised over samples."""
    return jax.nn.softmax(beta[:, None] * log_w[None] + log_measure[None], axis=1)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def equal_steps(
    log_w: Float[Array, "K B"], log_measure: Float[Array, "K B"], num_partitions: int
) -> Float[Array, "J B"]:
    """β_0 = 0 … β_J = 1 of each example, between which E_β[log w] grows by equal steps; by bisection."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = above_target(log_w, log_measure, middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    zeros = jnp.zeros((num_partitions + 1, log_w.shape[1]), log_w.dtype)
    low, high = lax.fori_loop(0, jnp.finfo(log_w.dtype).nmant + 6, halve, (zeros, zeros + 1))
    return ((low + high) / 2).at[0].set(0).at[-1].set(1)


@equal_steps.defjvp
def _(num_partitions, values, tangents):
    # Of the implicit function: its equation at fixed β changes by `change`, and by the variance of log w for each β.
    log_w, log_measure = values
    beta = equal_steps(log_w, log_measure, num_partitions)
    _, change = jax.jvp(lambda log_w, log_measure: above_target(log_w, log_measure, beta), values, tangents)
    distance = log_w[None] - tempered_mean(log_w, log_measure, beta)[:, None]
    variance = (tempered(log_w, log_measure, beta) * distance**2).sum(1)
    inner = (variance > 0).at[0].set(False).at[-1].set(False)
    return beta, jnp.where(inner, -change / jnp.where(inner, variance, 1), 0)


def above_target(
    log_w: Float[Array, "K B"], log_measure: Float[Array, "K B"], beta: Float[Array, "J B"]
) -> Float[Array, "J B"]:
    """By how much E_β[log w] is above the point of its row that divides its way from β = 0 to 1 equally."""
    ends = jnp.asarray([0, 1], log_w.dtype)[:, None]
    first, last = tempered_mean(log_w, log_measure, ends)
    share = jnp.linspace(0, 1, len(beta), dtype=log_w.dtype)[:, None]
    return tempered_mean(log_w, log_measure, beta) - (1 - share) * first[None] - share * last[None]


def jackknife_1(log_w: Float[Array, "K B"]) -> Float[Array, "B"]:
    """Jackknife estimate of order 1; see `jackknife`."""
    return jackknife(log_w, order=1)


def jackknife_2(log_w: Float[Array, "K B"]) -> Float[Array, "B"]:
    """Jackknife estimate of order 2; see `jackknife`."""
    return jackknife(log_w, order=2)


def jackknife(log_w: Float[Array, "K B"], order: int) -> Float[Array, "B"]:
    """Jackknife estimate of log p(x) of order m = 1 or 2: Σ_j c_j L̄_{K−j} (Nowozin 2018). Not a bound.

    It has no maximum: if one weight is far above the others, the estimate of order 1 grows by (K − 1)/K nats for each
    nat by which the second largest falls. So use it to evaluate a trained model rather than to train one.

    L̄_{K−j} is the mean of the importance-weighted bounds that leave j samples out, and
    c_j = (−1)^j (K − j)^m / ((m − j)! j!). Raises ValueError if K ≤ m.
    """
    num_samples = log_w.shape[0]
    if num_samples <= order:
        raise ValueError(f"a jackknife of order {order} needs more than {order} samples, got K = {num_samples}")
    # The coefficients grow like K^m and add up to 1, so what is summed here is L_K and differences from it, which are
    # small: with g_k = −log(1 − w̃_k), L_K − L_{K−1} without sample k is g_k + log(1 − 1/K).
    k, normalized, g = float(num_samples), jax.nn.softmax(log_w, axis=0), fall_without(log_w)
    fall = ((g - normalized).sum(0) + k * math.log1p(-1 / k) + 1) / k  # mean over samples; Σ_k w̃_k = 1 is taken off
    if order == 1:
        return iwae(log_w) + (k - 1) * fall
    # Without both k and l it falls by g_k + g_l + h_kl, which leaves (K − 1)² − (K − 2)² of the first differences.
    interaction = interactions(log_w, normalized, g) / (k * (k - 1)) + math.log1p(-1 / (k - 1) ** 2)
    return iwae(log_w) + (2 * k - 3) * fall - (k - 2) ** 2 / 2 * interaction


NOTHING = -1e30  # log of a weight that is left out; finite, so that its gradient is zero and not NaN
NUM_TERMS = 20  # of Σ_m p^m/m with p ≤ ¼: the rest is below 1e-13


def fall_without(log_w: Float[Array, "K B"]) -> Float[Array, "K B"]:
    """−log(1 − w̃_k), by which log Σ w falls without sample k; exact for a tiny w̃_k and for one that is nearly 1."""
    normalized = jax.nn.softmax(log_w, axis=0)
    small = normalized < 0.5
    of_small = -jnp.log1p(-jnp.where(small, normalized, 0))
    return jnp.where(small, of_small, logsumexp(log_w, axis=0, keepdims=True) - leave_one_out(log_w))


def interactions(
    log_w: Float[Array, "K B"], normalized: Float[Array, "K B"], g: Float[Array, "K B"]
) -> Float[Array, "B"]:
    """Σ_{k≠l} h_kl. Without k and l, log Σ w falls by g_k + g_l + h_kl.

    That is −log(1 − o_k o_l) with odds o = w̃/(1 − w̃). Among all samples but the largest, o_k o_l ≤ ¼, and sums of
    powers of o give it without an array of all pairs.
    """
    largest = jnp.arange(len(log_w))[:, None] == log_w.argmax(0)[None]
    with_largest = jnp.where(largest, 0, fall_without(jnp.where(largest, NOTHING, log_w)) - g).sum(0)
    odds = jnp.where(largest, 0, normalized / (1 - jnp.where(largest, 0, normalized)))
    among_others, power = jnp.zeros_like(log_w[0]), jnp.ones_like(odds)
    for m in range(1, NUM_TERMS + 1):
        power = power * odds
        among_others = among_others + (power.sum(0) ** 2 - (power**2).sum(0)) / m
    return 2 * with_largest + among_others


def leave_one_out(log_w: Float[Array, "K B"]) -> Float[Array, "K B"]:
    """log Σ_{l≠k} w_l, from sums over the samples before and after k: no difference is taken."""
    edge = jnp.full_like(log_w[:1], NOTHING)
    before = lax.cumlogsumexp(jnp.concatenate([edge, log_w[:-1]]))
    after = lax.cumlogsumexp(jnp.concatenate([log_w[1:], edge]), reverse=True)
    return jnp.logaddexp(before, after)
