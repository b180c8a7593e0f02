"""How likely is an interval of the standard normal? Its log probability, to float32 precision wherever it lies.

Of a pixel's 256 values, most cells are far out or narrow: a difference of two distribution functions is then 0.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erfcx, ndtr
from jaxtyping import Array, Float

LOG_2PI = math.log(2 * math.pi)


def log_normal_interval(
    center: Float[Array, "*shape"], half: Float[Array, "*#shape"] | Float[Array, ""]
) -> Float[Array, "*shape"]:
    """log P(|Z − center| < half) of a standard normal Z, to 1e-6 in float32 however narrow or far out it is."""

    def either(center, half):
        return jnp.where(half < 0.1, _log_narrow_interval(center, half), _log_wide_interval(center, half))

    # The usual case takes half the time.
    return lax.cond((half < 0.1).all(), _log_narrow_interval, either, jnp.abs(center), half)


def _log_narrow_interval(center, half):
    """φ(c) ∫ exp(−ct − t²/2) dt with exp(−t²/2) = 1 − t²/2: the sinh(k)/k of c alone, k = c·half, and its mean of t².

    log sinh(k)/k, and the mean of t²/half², 1 − 2 coth(k)/k + 2/k², by their Taylor series if they would cancel.
    """
    half = jnp.minimum(half, 0.1)  # if it is larger, the other form is used
    product = center * half
    near = product < 0.5
    square = jnp.where(near, product, 0) ** 2
    k = jnp.where(near, 1, product)
    rest = -jnp.expm1(-2 * k)
    log_sinh = jnp.where(near, square / 6 - square**2 / 180 + square**3 / 2835, k + jnp.log(rest / (2 * k)))
    mean_square = jnp.where(
        near, 1 / 3 + 2 * square / 45 - 4 * square**2 / 945, 1 - 2 * ((2 - rest) / rest - 1 / k) / k
    )
    return -0.5 * (center**2 + LOG_2PI) + jnp.log(2 * half) + log_sinh - 0.5 * half**2 * mean_square


def _log_wide_interval(center, half):
    """From Mills' ratio R(y) = Φ(−y)/φ(y) at both ends, or what is outside if 0 lies in between."""
    half = jnp.maximum(half, 0.1)
    lower, upper = center - half, center + half
    beyond = jnp.maximum(lower, 0)
    ratios = mills_ratio(beyond) - jnp.exp(-2 * center * half) * mills_ratio(upper)
    outside = ndtr(jnp.minimum(lower, 0)) + ndtr(-upper)
    away = -0.5 * (beyond**2 + LOG_2PI) + jnp.log(jnp.where(lower > 0, ratios, 1))
    return jnp.where(lower > 0, away, jnp.log1p(-jnp.where(lower > 0, 0, outside)))


def mills_ratio(y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Φ(−y)/φ(y), y ≥ 0, to 2e-8; from 12 on by its asymptotic series.

    There jax's erfcx(y/√2) is still a quotient, of an erfc that float32 flushes to 0 between y = 13 and 13.3.
    """
    far = jnp.maximum(y, 12)
    series = 1 - far**-2 * (1 - far**-2 * (3 - far**-2 * (15 - far**-2 * 105)))
    return jnp.where(y < 12, math.sqrt(math.pi / 2) * erfcx(jnp.minimum(y, 12) / math.sqrt(2)), series / far)


def log_ndtr(y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log Φ(y), finite in value and gradient at any y."""
    magnitude = jnp.abs(y)
    log_tail = -0.5 * (magnitude**2 + LOG_2PI) + jnp.log(mills_ratio(magnitude))
    return jnp.where(y < 0, log_tail, jnp.log1p(-jnp.exp(log_tail)))
