"""p(x|z): from the decoder's raw outputs to a distribution of images.

To add one: a function as `bernoulli` below, with its density if distributions.py lacks it, and a row in `LIKELIHOODS`
of table.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae.models.distributions import (
    MAX_VALUE,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Independent,
    Mixture,
    Normal,
    OptimalNormal,
    bounded,
    flatten_image,
    optimal_log_scale,
    unbounded,
)
from vae.settings import Settings

LEAST_SPREAD = 0.001  # images that are all alike would have a scale of 0


class LikelihoodRefit(NamedTuple):
    """Parameters of a likelihood that no gradient trains: they are set in closed form after every epoch.

    in_training(params, raw): p(x|z) as a training step sees it, which does not read these parameters.
    statistic(p, x) -> [B]: what their optimum depends on, for each image; p is p(x|z) of one z, [1, B].
    solve(mean) -> the optimum, a part of `params`; `mean` is that of the statistic over the training set.
    """

    in_training: Callable[[dict[str, Any], Float[Array, "... H W N"]], Any]
    statistic: Callable[[Any, Float[Array, "B H W C"]], Float[Array, "B"]]
    solve: Callable[[Float[Array, ""]], dict[str, Any]]


class Likelihood(NamedTuple):
    """How raw decoder outputs become a distribution of x.

    `init(mean_image, spread)` gives the parameters it adds to the decoder's; `bias` makes the untrained decoder output
    the mean training image (Burda et al. 2016, authors' code), and a learned scale begins at `spread`, the root mean
    square of the training images about it, which is the best one for that decoder. `distribution(params, raw)` takes
    raw [..., H, W, n·C], the n outputs of each channel one block of C after the other. `refit`: None if gradients
    train all of it.
    """

    outputs_per_channel: int
    init: Callable[[Float[Array, "H W C"], Float[Array, ""]], dict[str, Any]]
    distribution: Callable[[dict[str, Any], Float[Array, "... H W N"]], Any]
    refit: LikelihoodRefit | None = None


def add_bias(raw: Float[Array, "... H W N"], bias: Float[Array, "H W N"]) -> Float[Array, "... H W N"]:
    """raw + bias, over one long axis (see `Independent.log_prob`)."""
    flat = flatten_image(raw)
    return (flat + jnp.broadcast_to(bias.reshape(-1), flat.shape)).reshape(raw.shape)


def outputs_first(raw: Float[Array, "... H W N"], num_outputs: int) -> Float[Array, "n ... H W C"]:
    """The n outputs of each channel along the first axis."""
    return jnp.moveaxis(raw.reshape(*raw.shape[:-1], num_outputs, -1), -2, 0)


def outputs_last(outputs: Float[Array, "n H W C"]) -> Float[Array, "H W N"]:
    """The inverse of `outputs_first`."""
    return jnp.moveaxis(outputs, 0, -2).reshape(*outputs.shape[1:3], -1)


def solve(
    mean: Callable[[Float[Array, "H W C"]], Float[Array, "H W C"]], mean_image: Float[Array, "H W C"], largest: float
) -> Float[Array, "H W C"]:
    """The parameter in ±`largest` at which the increasing function `mean` is the mean image, by bisection."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = mean(middle) < mean_image
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = lax.fori_loop(0, 40, halve, (jnp.full_like(mean_image, -largest), jnp.full_like(mean_image, largest)))
    return (low + high) / 2


def clipped(mean_image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """To [0.001, 0.999] (Burda et al. 2016, authors' code): a pixel that never changes would have an infinite bias."""
    return jnp.clip(mean_image, 0.001, 0.999)


def bernoulli(settings: Settings) -> Likelihood:
    """One logit per value."""
    del settings

    def init(mean_image, spread):
        p = clipped(mean_image)
        return {"bias": jnp.log(p) - jnp.log1p(-p)}

    def distribution(params, raw):
        return Independent(Bernoulli(add_bias(raw, params["bias"])))

    return Likelihood(1, init, distribution)


def continuous_bernoulli(settings: Settings) -> Likelihood:
    """One logit per value, for grey values (Loaiza-Ganem & Cunningham 2019)."""
    del settings

    def init(mean_image, spread):
        return {"bias": solve(lambda logits: ContinuousBernoulli(logits).mean, clipped(mean_image), largest=2000.0)}

    def distribution(params, raw):
        return Independent(ContinuousBernoulli(add_bias(raw, params["bias"])))

    return Likelihood(1, init, distribution)


def normal(settings: Settings) -> Likelihood:
    """N(mean, σ²) with one σ for all values (Rybkin et al. 2021): `settings.scale`, or learned and bounded, or optimal.

    Optimal: in training σ² is the mean squared error of the batch, elsewhere exp(2·log_scale), which has no gradient.
    After every epoch it is set to the mean squared error of all values of the training set, with one z of q(z|x) for
    each image.
    """
    fixed = settings.scale if isinstance(settings.scale, int | float) else None

    def init(mean_image, spread):
        if fixed is not None:
            return {"bias": mean_image}
        wide = settings.initial_scale == "wide"
        log_scale = jnp.zeros(()) if wide else jnp.log(jnp.maximum(spread, LEAST_SPREAD))
        return {"bias": mean_image, "log_scale": log_scale if settings.scale == "optimal" else unbounded(log_scale)}

    def distribution(params, raw):
        if fixed is not None:
            log_scale = jnp.asarray(math.log(fixed))
        elif settings.scale == "optimal":
            log_scale = lax.stop_gradient(params["log_scale"])
        else:
            log_scale = bounded(params["log_scale"])
        return Independent(Normal(add_bias(raw, params["bias"]), log_scale.astype(raw.dtype)))

    def in_training(params, raw):
        return Independent(OptimalNormal(add_bias(raw, params["bias"])))

    def squared_error(p, x):
        return (flatten_image(p.mean[0] - x) ** 2).mean(-1)

    def solve(mean):
        return {"log_scale": optimal_log_scale(mean)}

    refit = LikelihoodRefit(in_training, squared_error, solve) if settings.scale == "optimal" else None
    return Likelihood(1, init, distribution, refit)


def discretized_logistic(settings: Settings) -> Likelihood:
    """Masses of a logistic (Kingma et al. 2016) whose location and bounded log-scale are outputs for each value."""

    def init(mean_image, spread):
        return {"bias": outputs_last(jnp.stack(logistic_at(mean_image, spread, settings)))}

    def distribution(params, raw):
        loc, raw_log_scale = outputs_first(add_bias(raw, params["bias"]), 2)
        return Independent(DiscretizedLogistic(loc, bounded_log_scale(raw_log_scale)))

    return Likelihood(2, init, distribution)


def logistic_mixture(settings: Settings) -> Likelihood:
    """A mixture of `settings.num_logistics` discretised logistics for each value (Salimans et al. 2017).

    The channels of a pixel are independent given z: without that paper's coupling of red, green and blue.
    """
    num_logistics = settings.num_logistics

    def init(mean_image, spread):
        outputs = jnp.stack([jnp.zeros_like(mean_image), *logistic_at(mean_image, spread, settings)])
        return {"bias": outputs_last(jnp.repeat(outputs, num_logistics, axis=0))}

    def distribution(params, raw):
        outputs = outputs_first(add_bias(raw, params["bias"]), 3 * num_logistics)
        logits, loc, raw_log_scale = jnp.split(outputs, 3)
        return Independent(Mixture(logits, DiscretizedLogistic(loc, bounded_log_scale(raw_log_scale))))

    return Likelihood(3 * num_logistics, init, distribution)


def logistic_at(
    mean_image: Float[Array, "H W C"], spread: Float[Array, ""], settings: Settings
) -> tuple[Float[Array, "H W C"], Float[Array, "H W C"]]:
    """Location and unbounded log-scale of discretised logistics of mean m and standard deviation `spread`.

    If that is more than values in [0, 1] of mean m can have, it is theirs: √(m(1 − m)), of black and white.
    """
    m = clipped(mean_image)
    if settings.initial_scale == "wide":
        log_scale = 0.5 * jnp.log(3 * m * (1 - m)) - math.log(math.pi)
        return solve(lambda loc: DiscretizedLogistic(loc, bounded(log_scale)).mean, m, largest=5.0), log_scale
    deviation = jnp.minimum(jnp.maximum(spread, LEAST_SPREAD), jnp.sqrt(m * (1 - m)))
    log_scale = unbounded(jnp.log(deviation) + math.log(math.sqrt(3) / math.pi))  # a logistic's variance is s²π²/3
    return solve(lambda loc: DiscretizedLogistic(loc, bounded(log_scale)).mean, m, largest=5.0), log_scale


def bounded_log_scale(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`bounded`, over one long axis (see `Independent.log_prob`)."""
    return bounded(flatten_image(raw)).reshape(raw.shape)


def categorical(settings: Settings) -> Likelihood:
    """256 logits per value; the bias starts at the distribution of largest entropy that has the mean image's mean."""
    del settings

    def logits_at(slope):
        values = jnp.arange(MAX_VALUE + 1, dtype=slope.dtype) / MAX_VALUE
        return values[:, None, None, None] * slope[None]

    def init(mean_image, spread):
        slope = solve(lambda slope: Categorical(logits_at(slope)).mean, clipped(mean_image), largest=2000.0)
        return {"bias": outputs_last(logits_at(slope))}

    def distribution(params, raw):
        return Independent(Categorical(outputs_first(add_bias(raw, params["bias"]), MAX_VALUE + 1)))

    return Likelihood(MAX_VALUE + 1, init, distribution)
