"""What q(z|x) can be: pytrees that can be sampled and scored. Shapes: K samples, B batch, D latent.

Every leaf is an array, the weights of the networks inside q among them: `lax.stop_gradient(q)` holds all of q, and only
q. To add one: the pytree, a function of the settings as `diagonal` below, and a row in `POSTERIORS` of table.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from vae.models.distributions import bounded
from vae.models.flows import Flow, ForwardFlow, Planar, autoregressive_steps, coupling_steps
from vae.models.networks import MLP
from vae.models.normals import DiagonalNormal, FullNormal, diagonal_normal, normal
from vae.settings import Settings


class TwoLayers(NamedTuple):
    """q(z1|x) q(z2|z1), the two-layer recognition model of Burda et al. (2016); z is the pair (z1, z2).

    `upper(z1)` gives means and unbounded log-scales of z2, [K, B, 2·D2]. `mean` and `covariance` are those of z1.
    """

    lower: DiagonalNormal
    upper: Callable[..., Any]

    @property
    def mean(self) -> Float[Array, "B D"]:
        return self.lower.mean

    @property
    def covariance(self) -> Float[Array, "B D D"]:
        return self.lower.covariance

    def sample_and_log_prob(self, key: Key[Array, ""], num_samples: int):
        """((z1, z2), (log q(z1|x), log q(z2|z1))): [K, B, D1] and [K, B, D2], twice [K, B] in nats; spends `key`."""
        key_lower, key_upper = jax.random.split(key)
        z1, _ = self.lower.sample_and_log_prob(key_lower, num_samples)
        z = z1, normal(self.upper(z1)).sample(key_upper)
        return z, self.log_prob(z)

    def log_prob(self, z):
        z1, z2 = z
        return self.lower.log_prob(z1), normal(self.upper(z1)).log_prob(z2).sum(-1)

    def log_prob_per_dimension(self, z) -> None:
        del z

    def kl_per_dimension(self, prior) -> None:
        """None: p(z1) has no closed form."""
        del prior


class Posterior(NamedTuple):
    """How the encoder's outputs become q(z|x).

    `init(key)` gives the parameters of the networks inside q, which stand beside the encoder's layers in
    params["encoder"]; `distribution(params, outputs)` takes outputs [B, num_outputs].
    """

    num_outputs: int
    init: Callable[[Any], dict[str, Any]]
    distribution: Callable[[dict[str, Any], Float[Array, "B N"]], Any]


def diagonal(settings: Settings) -> Posterior:
    """Independent normals (Kingma & Welling 2014)."""
    return Posterior(2 * settings.latent_dim, no_networks, lambda params, outputs: diagonal_normal(outputs))


def full(settings: Settings) -> Posterior:
    """A normal with full covariance; D(D − 1)/2 more outputs are the strict lower triangle of `unit`, bounded."""
    dim = settings.latent_dim
    rows, columns = jnp.tril_indices(dim, -1)

    def distribution(params, outputs):
        del params
        base = diagonal_normal(outputs[:, : 2 * dim])
        unit = jnp.broadcast_to(jnp.eye(dim, dtype=outputs.dtype), (len(outputs), dim, dim))
        return FullNormal(*base, unit.at[:, rows, columns].set(bounded(outputs[:, 2 * dim :])))

    return Posterior(2 * dim + dim * (dim - 1) // 2, no_networks, distribution)


def planar(settings: Settings) -> Posterior:
    """Planar flows whose u, w and b are outputs of the encoder, as in Rezende & Mohamed (2015)."""
    dim, shape = settings.latent_dim, (settings.num_flows, 2 * settings.latent_dim + 1)

    def distribution(params, outputs):
        del params
        raw = outputs[:, 2 * dim :].reshape(-1, *shape)
        steps = tuple(Planar(raw[:, f, :dim], raw[:, f, dim:-1], raw[:, f, -1]) for f in range(shape[0]))
        return ForwardFlow(diagonal_normal(outputs[:, : 2 * dim]), steps)

    return Posterior(2 * dim + math.prod(shape), no_networks, distribution)


def iaf(settings: Settings) -> Posterior:
    """Inverse autoregressive flow, given `flow_hidden_size` outputs of the encoder (Kingma et al. 2016)."""
    return _with_context(settings, autoregressive_steps(settings))


def realnvp(settings: Settings) -> Posterior:
    """Affine couplings (Dinh et al. 2017), given `flow_hidden_size` outputs of the encoder."""
    return _with_context(settings, coupling_steps(settings, with_context=True))


def _with_context(settings, steps):
    dim = settings.latent_dim

    def distribution(params, outputs):
        return Flow(diagonal_normal(outputs[:, : 2 * dim]), steps.build(params, outputs[:, 2 * dim :]))

    return Posterior(2 * dim + settings.flow_hidden_size, steps.init, distribution)


def two_layers(settings: Settings) -> Posterior:
    """Two stochastic layers: `upper_hidden_sizes` lead from z1, of `latent_dim`, to z2, of `upper_latent_dim`."""
    network = MLP(settings, settings.upper_hidden_sizes, 2 * settings.upper_latent_dim)

    def init(key):
        return {"upper": network.init(key, jnp.zeros((1, settings.latent_dim)))["params"]}

    def distribution(params, outputs):
        return TwoLayers(diagonal_normal(outputs), Partial(network.apply, {"params": params["upper"]}))

    return Posterior(2 * settings.latent_dim, init, distribution)


def no_networks(key) -> dict[str, Any]:
    """The `init` of a posterior without networks of its own."""
    del key
    return {}
