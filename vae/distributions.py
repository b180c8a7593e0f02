"""Densities as small pytrees. They are elementwise; `Independent` sums a log density over an image.

Shapes: K samples, B batch, H W C image. Log densities are in nats.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

LOG_2PI = math.log(2 * math.pi)


class Normal(NamedTuple):
    """N(loc, exp(log_scale)²), elementwise; `log_scale` is a scalar or has the shape of `loc`."""

    loc: Float[Array, "*shape"]
    log_scale: Float[Array, "*#shape"] | Float[Array, ""]

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        standardized = (x - self.loc) * jnp.exp(-self.log_scale)
        return -0.5 * (standardized**2 + LOG_2PI) - self.log_scale

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        return self.loc + jnp.exp(self.log_scale) * jax.random.normal(key, self.loc.shape, self.loc.dtype)

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return self.loc


@jax.custom_jvp
def bernoulli_log_prob(logits: Float[Array, "*shape"], x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """x·logits − log(1 + exp(logits)), exact and finite at any logit, for x in [0, 1]."""
    magnitude = jnp.abs(logits)
    return -magnitude * jnp.where(logits > 0, 1 - x, x) - jnp.log1p(jnp.exp(-magnitude))


@bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals, tangents):
    (logits, x), (logits_dot, x_dot) = primals, tangents
    # The kink of |logits| has no part in the derivative, which is x − sigmoid(logits) at zero too.
    return bernoulli_log_prob(logits, x), (x - jax.nn.sigmoid(logits)) * logits_dot + logits * x_dot


class Bernoulli(NamedTuple):
    """Bernoulli(sigmoid(logits)), elementwise. On x strictly inside (0, 1) it is a cross-entropy, not a density."""

    logits: Float[Array, "*shape"]

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        return bernoulli_log_prob(self.logits, x)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(self.logits)


class Independent(NamedTuple):
    """A distribution of images from one of pixels: `log_prob` sums over the last three axes (H, W, C)."""

    pixels: Any

    def log_prob(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "..."]:
        # One long last axis: XLA's CPU code is not vectorised over a channel axis of length one (8 times slower).
        return jax.tree.map(flatten_image, self.pixels).log_prob(flatten_image(x)).sum(-1)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*batch H W C"]:
        return self.pixels.sample(key)

    @property
    def mean(self) -> Float[Array, "*batch H W C"]:
        return self.pixels.mean


def flatten_image(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """[..., H, W, C] -> [..., H·W·C]; a parameter that all pixels share, with fewer axes, stays as it is."""
    return x if x.ndim < 3 else x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))


def bounded(raw: Float[Array, "*shape"], bound: float = 10.0) -> Float[Array, "*shape"]:
    """bound·tanh(raw / bound): nearly the identity around zero, never outside ±bound, never without a gradient."""
    return bound * jnp.tanh(raw / bound)


def normal_kl_divergence(q: Normal, p: Normal) -> Float[Array, "*shape"]:
    """KL(q ‖ p) of each dimension, in nats: log σ_p/σ_q + (σ_q² + (μ_q − μ_p)²)/(2σ_p²) − ½."""
    log_ratio = q.log_scale - p.log_scale
    return 0.5 * (jnp.expm1(2 * log_ratio) - 2 * log_ratio + ((q.loc - p.loc) * jnp.exp(-p.log_scale)) ** 2)
