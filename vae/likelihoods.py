"""p(x|z): from the decoder's raw outputs to a distribution of images.

To add one: write its density in distributions.py and a row in `LIKELIHOODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from vae.distributions import Bernoulli, Independent, Normal, bounded, flatten_image
from vae.settings import Settings


class Likelihood(NamedTuple):
    """How raw decoder outputs become a distribution of x.

    `init(mean_image)` gives the parameters it adds to the decoder's; `bias` makes the untrained decoder output the
    mean training image (Burda et al. 2016, authors' code). `distribution(params, raw)` takes raw [..., H, W, C·n].
    """

    outputs_per_channel: int
    init: Callable[[Float[Array, "H W C"]], dict[str, Any]]
    distribution: Callable[[dict[str, Any], Float[Array, "... H W N"]], Any]


def add_bias(raw: Float[Array, "... H W N"], bias: Float[Array, "H W N"]) -> Float[Array, "... H W N"]:
    """raw + bias, over one long axis (see `Independent.log_prob`)."""
    flat = flatten_image(raw)
    return (flat + jnp.broadcast_to(bias.reshape(-1), flat.shape)).reshape(raw.shape)


def bernoulli(settings: Settings) -> Likelihood:
    """One logit per value; the bias starts at the logit of the mean image, clipped to [0.001, 0.999]."""
    del settings

    def init(mean_image):
        p = jnp.clip(mean_image, 0.001, 0.999)
        return {"bias": jnp.log(p) - jnp.log1p(-p)}

    def distribution(params, raw):
        return Independent(Bernoulli(add_bias(raw, params["bias"])))

    return Likelihood(1, init, distribution)


def normal(settings: Settings) -> Likelihood:
    """N(mean, σ²) with one σ for all values: `settings.scale`, or learned and bounded (Rybkin et al. 2021)."""

    def init(mean_image):
        return {"bias": mean_image} | ({"log_scale": jnp.zeros(())} if settings.scale is None else {})

    def distribution(params, raw):
        log_scale = bounded(params["log_scale"]) if settings.scale is None else jnp.asarray(math.log(settings.scale))
        return Independent(Normal(add_bias(raw, params["bias"]), log_scale.astype(raw.dtype)))

    return Likelihood(1, init, distribution)


LIKELIHOODS: dict[str, Callable[[Settings], Likelihood]] = {"bernoulli": bernoulli, "normal": normal}
