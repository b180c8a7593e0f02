"""Densities as small pytrees. They are elementwise; `Independent` sums a log density over an image.

`log_mass(x)` is the log probability of the value x = k/255, k = 0…255: of a density, its integral over the cell of that
value. The 256 masses add up to one, so that −log₂ of a mass is a code length. None: there are no such masses.

Shapes: K samples, B batch, H W C image. Log densities are in nats.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from vae.datasets.images import flatten_image
from vae.models.intervals import LOG_2PI, log_ndtr, log_normal_interval
from vae.models.logistic import log_one_plus_exp, log_sigmoid

MAX_VALUE = 255  # a discretised value is k/255, k = 0..255
LEAST_LOG_SCALE = -10.0  # for errors that vanish; the same bound as in `bounded`


class Normal(NamedTuple):
    """N(loc, exp(log_scale)²), elementwise; `log_scale` is a scalar or has the shape of `loc`."""

    loc: Float[Array, "*shape"]
    log_scale: Float[Array, "*#shape"] | Float[Array, ""]

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        standardized = (x - self.loc) * jnp.exp(-self.log_scale)
        return -0.5 * (standardized**2 + LOG_2PI) - self.log_scale

    def log_mass(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        """Masses of cells 1/255 wide; the first is open to −∞ and the last to ∞ (Ho et al. 2020, eq. 13).

        So values outside of [0, 1] count as black and white, as in `DiscretizedLogistic`.
        """
        k = jnp.round(MAX_VALUE * x)
        half = 0.5 * jnp.exp(-self.log_scale) / MAX_VALUE  # of a cell, in standard deviations
        # k − 255·loc, in products that are exact: two cells must agree where they meet, fused into another sum or not.
        center = 2 * half * ((k - (MAX_VALUE + 1) * self.loc) + self.loc)
        open_end = log_ndtr(half + jnp.where(k == 0, center, -center))
        return jnp.where((k == 0) | (k == MAX_VALUE), open_end, log_normal_interval(center, half))

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        return self.loc + jnp.exp(self.log_scale) * jax.random.normal(key, self.loc.shape, self.loc.dtype)

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return self.loc


class OptimalNormal(NamedTuple):
    """N(loc, σ²) whose σ² is the mean squared error of the x that it scores, over all of its axes.

    That σ² maximises the mean log density, −½ (log 2π σ² + 1) per value (Rybkin et al. 2021). It is constant
    in the gradient. For an average of log densities, as in the ELBO, this changes nothing. Under any other bound, every
    gradient estimator stays what it is at a given σ.
    """

    loc: Float[Array, "*shape"]

    log_mass = None  # none: a code must not depend on what it encodes

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        log_scale = optimal_log_scale(lax.stop_gradient((x - self.loc) ** 2).mean())
        return Normal(self.loc, log_scale).log_prob(x)


def optimal_log_scale(squared_error: Float[Array, ""]) -> Float[Array, ""]:
    """½ log of a mean squared error, not below `LEAST_LOG_SCALE`."""
    return 0.5 * jnp.log(jnp.maximum(squared_error, math.exp(2 * LEAST_LOG_SCALE)))


@jax.custom_jvp
def bernoulli_log_prob(logits: Float[Array, "*shape"], x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """x·logits − log(1 + exp(logits)), exact and finite at any logit, for x in [0, 1]."""
    magnitude = jnp.abs(logits)
    return -magnitude * jnp.where(logits > 0, 1 - x, x) - log_one_plus_exp(-magnitude)


@bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals, tangents):
    (logits, x), (logits_dot, x_dot) = primals, tangents
    # The kink of |logits| has no part in the derivative, which is x − sigmoid(logits) at zero too.
    return bernoulli_log_prob(logits, x), (x - jax.nn.sigmoid(logits)) * logits_dot + logits * x_dot


class Bernoulli(NamedTuple):
    """Bernoulli(sigmoid(logits)), elementwise. On x strictly inside (0, 1) it is a cross-entropy, not a density."""

    logits: Float[Array, "*shape"]

    log_mass = None

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        return bernoulli_log_prob(self.logits, x)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(self.logits)


def continuous_bernoulli_mean(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1/(1 − exp(−η)) − 1/η, and ½ at η = 0; by its Taylor series if the two terms would cancel."""
    near = jnp.abs(logits) < 0.5
    eta = jnp.where(near, logits, 0.0)
    series = eta * (1 / 12 - eta**2 * (1 / 720 - eta**2 * (1 / 30240 - eta**2 * (1 / 1209600 - eta**2 / 47900160))))
    magnitude = jnp.where(near, 1.0, jnp.abs(logits))
    lower = 1 / magnitude + jnp.exp(-magnitude) / jnp.expm1(-magnitude)
    return jnp.where(near, 0.5 + series, jnp.where(logits > 0, 1 - lower, lower))


def log_integral(rate: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log ∫ exp(−rate·t) dt over [0, 1], rate ≥ 0: log((1 − exp(−rate))/rate)."""
    near = rate < 1e-6
    away = jnp.where(near, 1.0, rate)
    return jnp.where(near, -rate / 2, jnp.log(-jnp.expm1(-away) / away))


@jax.custom_jvp
def continuous_bernoulli_log_prob(logits: Float[Array, "*shape"], x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """x·η − log((exp(η) − 1)/η), finite at any η and x in [0, 1]; log 1 at η = 0."""
    magnitude = jnp.abs(logits)
    return -magnitude * jnp.where(logits > 0, 1 - x, x) - log_integral(magnitude)


@continuous_bernoulli_log_prob.defjvp
def _continuous_bernoulli_log_prob_jvp(primals, tangents):
    (logits, x), (logits_dot, x_dot) = primals, tangents
    slope = x - continuous_bernoulli_mean(logits)
    return continuous_bernoulli_log_prob(logits, x), slope * logits_dot + logits * x_dot


class ContinuousBernoulli(NamedTuple):
    """A density on [0, 1], C(λ) λ^x (1 − λ)^(1−x), λ = sigmoid(logits) (Loaiza-Ganem & Cunningham 2019)."""

    logits: Float[Array, "*shape"]

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        return continuous_bernoulli_log_prob(self.logits, x)

    def log_mass(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        """Masses of cells 1/255 wide; the first and the last end at 0 and 1 and are half as wide."""
        k = jnp.round(MAX_VALUE * x)
        width = jnp.where((k == 0) | (k == MAX_VALUE), 0.5, 1.0).astype(x.dtype)  # in cells
        # The density falls exponentially from one end; this is the distance from it at which the cell begins.
        start = jnp.maximum(jnp.where(self.logits > 0, MAX_VALUE - k, k) - 0.5, 0)
        magnitude = jnp.abs(self.logits)
        rate = magnitude / MAX_VALUE
        return jnp.log(width / MAX_VALUE) - rate * start + log_integral(rate * width) - log_integral(magnitude)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        """The inverse of the distribution function at a uniform draw."""
        u = jax.random.uniform(key, self.logits.shape, self.logits.dtype)
        magnitude = jnp.abs(self.logits)
        flat = magnitude < 1e-6
        from_end = jnp.where(flat, u, -jnp.log1p(u * jnp.expm1(-magnitude)) / jnp.where(flat, 1.0, magnitude))
        return jnp.where(self.logits > 0, 1 - from_end, from_end)

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return continuous_bernoulli_mean(self.logits)


class DiscretizedLogistic(NamedTuple):
    """Masses of the 256 values k/255: a logistic's over the cells around them (Kingma et al. 2016).

    A cell is 1/255 wide; the first is open to −∞ and the last to ∞ (Salimans et al. 2017).
    """

    loc: Float[Array, "*shape"]
    log_scale: Float[Array, "*shape"]

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        """log(σ(u) − σ(l)) = log σ(u) + log σ(−l) + log(1 − exp(l − u)): no difference of nearly equal numbers."""
        half, inverse_scale = 0.5 / MAX_VALUE, jnp.exp(-self.log_scale)
        below_upper_end = log_sigmoid((x + half - self.loc) * inverse_scale)
        above_lower_end = log_sigmoid((self.loc - x + half) * inverse_scale)
        both = below_upper_end + above_lower_end + jnp.log(-jnp.expm1(-2 * half * inverse_scale))
        return jnp.where(x < half, below_upper_end, jnp.where(x > 1 - half, above_lower_end, both))

    log_mass = log_prob

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        x = self.loc + jnp.exp(self.log_scale) * jax.random.logistic(key, self.loc.shape, self.loc.dtype)
        return jnp.round(MAX_VALUE * jnp.clip(x, 0, 1)) / MAX_VALUE

    @property
    def mean(self) -> Float[Array, "*shape"]:
        """1/255 Σ_k P(x ≥ k/255), one k after the other: all of them at once may not fit into memory."""
        inverse_scale = jnp.exp(-self.log_scale)

        def add(k, total):
            return total + jax.nn.sigmoid((self.loc - (k - 0.5) / MAX_VALUE) * inverse_scale)

        return lax.fori_loop(1, MAX_VALUE + 1, add, jnp.zeros_like(self.loc)) / MAX_VALUE


class Mixture(NamedTuple):
    """Σ_m softmax(logits)_m p_m(x), elementwise; the leaves of `logits` and `components` are [M, …]."""

    logits: Float[Array, "M *shape"]
    components: Any

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        return logsumexp(jax.nn.log_softmax(self.logits, axis=0) + self.components.log_prob(x[None]), axis=0)

    log_mass = log_prob  # of components that are masses

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        key_component, key_x = jax.random.split(key)
        chosen = jax.random.categorical(key_component, self.logits, axis=0)
        return jnp.take_along_axis(self.components.sample(key_x), chosen[None], axis=0)[0]

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return (jax.nn.softmax(self.logits, axis=0) * self.components.mean).sum(0)


class Categorical(NamedTuple):
    """softmax(logits) over the 256 values k/255, elementwise; `logits` are [256, …]."""

    logits: Float[Array, "V *shape"]

    def log_prob(self, x: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        chosen = jnp.round(MAX_VALUE * x)[None] == self._values(MAX_VALUE)
        return jnp.where(chosen, self.logits, 0).sum(0) - logsumexp(self.logits, axis=0)

    log_mass = log_prob

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*shape"]:
        return jax.random.categorical(key, self.logits, axis=0).astype(self.logits.dtype) / MAX_VALUE

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return (jax.nn.softmax(self.logits, axis=0) * self._values(1)).sum(0)

    def _values(self, largest: int) -> Float[Array, "V *ones"]:
        """0 to `largest` along the first axis."""
        values = jnp.arange(MAX_VALUE + 1, dtype=self.logits.dtype) * (largest / MAX_VALUE)
        return values.reshape(-1, *(1,) * (self.logits.ndim - 1))


class Independent(NamedTuple):
    """A distribution of images from one of pixels: `log_prob` and `log_mass` sum over the last three axes (H, W, C)."""

    pixels: Any

    def log_prob(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "..."]:
        # One long last axis: XLA's CPU code is not vectorised over a channel axis of length one (8 times slower).
        return jax.tree.map(flatten_image, self.pixels).log_prob(flatten_image(x)).sum(-1)

    def log_mass(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "..."] | None:
        log_mass = jax.tree.map(flatten_image, self.pixels).log_mass
        return None if log_mass is None else log_mass(flatten_image(x)).sum(-1)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*batch H W C"]:
        return self.pixels.sample(key)

    @property
    def mean(self) -> Float[Array, "*batch H W C"]:
        return self.pixels.mean


def bounded(raw: Float[Array, "*shape"], bound: float = 10.0) -> Float[Array, "*shape"]:
    """bound·tanh(raw / bound): nearly the identity around zero, never outside ±bound, never without a gradient."""
    return bound * jnp.tanh(raw / bound)


def unbounded(value: Float[Array, "*shape"], bound: float = 10.0) -> Float[Array, "*shape"]:
    """The inverse of `bounded`, of a value that is first brought within ±0.9 bound."""
    return bound * jnp.arctanh(jnp.clip(value / bound, -0.9, 0.9))


def normal_kl_divergence(q: Normal, p: Normal) -> Float[Array, "*shape"]:
    """KL(q ‖ p) of each dimension, in nats: log σ_p/σ_q + (σ_q² + (μ_q − μ_p)²)/(2σ_p²) − ½."""
    log_ratio = q.log_scale - p.log_scale
    return 0.5 * (jnp.expm1(2 * log_ratio) - 2 * log_ratio + ((q.loc - p.loc) * jnp.exp(-p.log_scale)) ** 2)
