"""Normalizing flows: invertible maps, and the densities that they make from simpler ones.

A step's `forward(z)` gives (f(z), log |det ∂f/∂z|), its `inverse(f(z))` gives (z, the same log-determinant); z is
[K, B, D] and the log-determinant [K, B]. Shapes: K samples, B batch, D latent, H context.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from vae.models.distributions import bounded
from vae.models.logistic import log_sigmoid
from vae.models.networks import FlowNetwork
from vae.settings import Settings

GATE_BIAS = 2.0  # an untrained step of an autoregressive flow is nearly the identity
LOG_4 = math.log(4)
LEAST_SQUARED_NORM = 1e-12  # added to |w|² of a planar flow
MAX_GATE, MAX_LOG_SCALE = 5.0, 3.0  # a step shrinks or stretches only as much as its inverse can undo


class Planar(NamedTuple):
    """z + û tanh(wᵀz + b), eq. 10 of Rezende & Mohamed (2015), with their û(u, w), for which wᵀû > −1.

    Their û = u + (m(wᵀu) − wᵀu) w/|w|², m(a) = −1 + log(1 + exp(a)), has no limit at w = 0: there it is u, by
    `LEAST_SQUARED_NORM`, which the log-determinant takes into account.
    """

    u: Float[Array, "B D"]
    w: Float[Array, "B D"]
    b: Float[Array, "B"]

    def forward(self, z: Float[Array, "K #B D"]) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        product = (self.w * self.u).sum(-1)
        added = jax.nn.softplus(-product) - 1  # m(wᵀu) − wᵀu
        # Where this is positive, w is not 0, and a larger divisor could make wᵀû less than −1.
        least = jnp.where(added < 0, LEAST_SQUARED_NORM, 0)
        divisor = (self.w**2).sum(-1) + least
        u_hat = self.u + (added / divisor)[:, None] * self.w
        argument = (self.w[None] * z).sum(-1) + self.b[None]
        # 1 + wᵀû, of positive terms; below −30, softplus is exp, and might vanish.
        close = jnp.maximum(product, -30)
        log_stretch = jnp.log(jax.nn.softplus(close) - added * (least / divisor)) + (product - close)
        # tanh² + (1 + wᵀû)(1 − tanh²), of positive terms.
        activation = jnp.tanh(argument)
        log_slope = LOG_4 + log_sigmoid(2 * argument) + log_sigmoid(-2 * argument)  # log(1 − tanh²)
        on_plane = activation == 0
        log_square = jnp.where(on_plane, -jnp.inf, 2 * jnp.log(jnp.abs(jnp.where(on_plane, 1, activation))))
        log_determinant = jnp.logaddexp(log_square, log_stretch[None] + log_slope)
        return z + u_hat[None] * activation[..., None], log_determinant


class Autoregressive(NamedTuple):
    """σ ⊙ z + (1 − σ) ⊙ m in reversed order, with (m, gate) a function of the dimensions before (Kingma et al. 2016).

    `network(z, context)` gives [K, B, 2D]; σ = sigmoid(gate). The inverse solves one dimension after the other.
    """

    network: Callable[..., Any]
    context: Float[Array, "B H"]

    def forward(self, z: Float[Array, "K #B D"]) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        mean, log_gate = self._update(z)
        gate = jnp.exp(log_gate)
        return (gate * z + (1 - gate) * mean)[..., ::-1], log_gate.sum(-1)

    def inverse(self, z: Float[Array, "K #B D"]) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        target, dimensions = z[..., ::-1], jnp.arange(z.shape[-1])[None, None]

        def solve_dimension(i, solved):
            mean, log_gate = self._update(solved)
            return jnp.where(dimensions == i, mean + (target - mean) * jnp.exp(-log_gate), solved)

        shape = (z.shape[0], len(self.context), z.shape[-1])
        solved = lax.fori_loop(0, z.shape[-1], solve_dimension, jnp.zeros(shape, z.dtype))
        return solved, self._update(solved)[1].sum(-1)

    def _update(self, z):
        mean, raw_gate = jnp.split(self.network(z, self.context), 2, axis=-1)
        return mean, log_sigmoid(bounded(raw_gate + GATE_BIAS, MAX_GATE))


class Coupling(NamedTuple):
    """The later half of the dimensions scaled and shifted given the first, in reversed order (Dinh et al. 2017).

    `network(first, context)` gives the shift, then the log-scale.
    """

    network: Callable[..., Any]
    context: Float[Array, "B H"] | None

    def forward(self, z: Float[Array, "K #B D"]) -> tuple[Float[Array, "K _ D"], Float[Array, "K _"]]:
        kept, moved = jnp.split(z, [z.shape[-1] // 2], axis=-1)
        shift, log_scale = self._affine(kept)
        return _join(kept, moved * jnp.exp(log_scale) + shift)[..., ::-1], log_scale.sum(-1)

    def inverse(self, z: Float[Array, "K #B D"]) -> tuple[Float[Array, "K _ D"], Float[Array, "K _"]]:
        kept, moved = jnp.split(z[..., ::-1], [z.shape[-1] // 2], axis=-1)
        shift, log_scale = self._affine(kept)
        return _join(kept, (moved - shift) * jnp.exp(-log_scale)), log_scale.sum(-1)

    def _affine(self, kept):
        shift, raw_log_scale = jnp.split(self.network(kept, self.context), 2, axis=-1)
        return shift, bounded(raw_log_scale, MAX_LOG_SCALE)


def _join(kept, moved):
    return jnp.concatenate([jnp.broadcast_to(kept, (*moved.shape[:-1], kept.shape[-1])), moved], axis=-1)


class Flow(NamedTuple):
    """The density of f_F(… f_1(z)) with z from `base`. It has no other closed form."""

    base: Any
    steps: tuple[Any, ...]

    mean = None
    covariance = None

    def sample_and_log_prob(
        self, key: Key[Array, ""], num_samples: int
    ) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        """Samples and their log density in nats; spends `key`."""
        return _push(self.steps, *self.base.sample_and_log_prob(key, num_samples))

    def log_prob(self, z: Float[Array, "K #B D"]) -> Float[Array, "K _"]:
        noise, log_determinant = self._inverse(z)
        return self.base.log_prob(noise) - log_determinant

    def redrawn(self, z: Float[Array, "K B D"]) -> Float[Array, "K B D"]:
        """z as a function of the steps' parameters, as if the flow had drawn it: of the noise that gives it."""
        noise = lax.stop_gradient(self._inverse(z)[0])
        return _push(self.steps, noise, self.base.log_prob(noise))[0]

    def inverse_error(self, z: Float[Array, "K #B D"]) -> Float[Array, "K _"]:
        """How wrong `log_prob` is by rounding, in nats, found by the way z → ε → z'.

        It is |log_prob(z') − log p(ε) + log-determinant of ε → z'|. The distance of z' from z would not show it: where
        the inverse stretches an error of ε, the forward map shrinks it again.
        """
        noise, _ = self._inverse(z)
        there, log_density = _push(self.steps, noise, self.base.log_prob(noise))
        return jnp.abs(self.log_prob(there) - log_density)

    def _inverse(self, z):
        log_determinant = jnp.zeros((1, 1), z.dtype)
        for step in reversed(self.steps):
            z, change = step.inverse(z)
            log_determinant = log_determinant + change
        return z, log_determinant

    def log_prob_per_dimension(self, z) -> None:
        del z

    def kl_per_dimension(self, prior) -> None:
        del prior


class ForwardFlow(NamedTuple):
    """As `Flow`, but of steps without an inverse: the density of a given z is not known, and `log_prob` is None."""

    base: Any
    steps: tuple[Any, ...]

    mean = None
    covariance = None
    log_prob = None

    def sample_and_log_prob(
        self, key: Key[Array, ""], num_samples: int
    ) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        """Samples and their log density in nats; spends `key`."""
        return _push(self.steps, *self.base.sample_and_log_prob(key, num_samples))

    def log_prob_per_dimension(self, z) -> None:
        del z

    def kl_per_dimension(self, prior) -> None:
        del prior


def _push(steps, z, log_density):
    for step in steps:
        z, log_determinant = step.forward(z)
        log_density = log_density - log_determinant
    return z, log_density


class Steps(NamedTuple):
    """The steps of a flow and their networks: init(key) -> params; build(params, context) -> steps."""

    init: Callable[[Any], dict[str, Any]]
    build: Callable[..., tuple[Any, ...]]


def autoregressive_steps(settings: Settings) -> Steps:
    """`num_flows` autoregressive steps, each with its masked network, given a context."""
    dim, size = settings.latent_dim, settings.flow_hidden_size
    return _steps(Autoregressive, FlowNetwork(size, 2 * dim, autoregressive=True), dim, settings, with_context=True)


def coupling_steps(settings: Settings, with_context: bool) -> Steps:
    """`num_flows` coupling steps, each with its network."""
    num_kept = settings.latent_dim // 2
    network = FlowNetwork(settings.flow_hidden_size, 2 * (settings.latent_dim - num_kept))
    return _steps(Coupling, network, num_kept, settings, with_context)


def _steps(step: Callable[..., Any], network: FlowNetwork, num_inputs: int, settings: Settings, with_context: bool):
    names = [f"flow_{number}" for number in range(settings.num_flows)]

    def init(key):
        inputs = [jnp.zeros((1, 1, num_inputs))] + [jnp.zeros((1, settings.flow_hidden_size))] * with_context
        keys = jax.random.split(key, len(names))
        return {name: network.init(key, *inputs)["params"] for name, key in zip(names, keys, strict=True)}

    def build(params, context):
        return tuple(step(Partial(network.apply, {"params": params[name]}), context) for name in names)

    return Steps(init, build)
