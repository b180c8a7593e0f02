"""Hamiltonian Monte Carlo on p(z) p(x|z)^β, for C chains that share one x (Neal 2011)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

Scalar = Float[Array, ""] | float

JITTER = 0.2


class Target(NamedTuple):
    """The two densities, functions of z, a pytree of [C, …]; nats, [C]."""

    log_p_z: Callable[[Any], Float[Array, "C"]]
    log_p_x_given_z: Callable[[Any], Float[Array, "C"]]


class Point(NamedTuple):
    """Where the chains are: z, a pytree of [C, …], the log densities there, [C], and their gradients, like z."""

    z: Any
    log_p_z: Float[Array, "C"]
    log_p_x_given_z: Float[Array, "C"]
    gradient_of_log_p_z: Any
    gradient_of_log_p_x_given_z: Any

    def log_density(self, beta: Scalar) -> Float[Array, "C"]:
        """log p(z) + β log p(x|z)."""
        return self.log_p_z + beta * self.log_p_x_given_z

    def gradient(self, beta: Scalar) -> Any:
        return jax.tree.map(
            lambda prior, likelihood: prior + beta * likelihood,
            self.gradient_of_log_p_z,
            self.gradient_of_log_p_x_given_z,
        )


def point_at(target: Target, z: Any) -> Point:
    """Score `z`."""

    def value_and_gradient(log_density):
        def total(z):
            values = log_density(z)
            return values.sum(), values

        (_, values), gradient = jax.value_and_grad(total, has_aux=True)(z)
        return values, gradient

    log_p_z, gradient_of_log_p_z = value_and_gradient(target.log_p_z)
    log_p_x_given_z, gradient_of_log_p_x_given_z = value_and_gradient(target.log_p_x_given_z)
    return Point(z, log_p_z, log_p_x_given_z, gradient_of_log_p_z, gradient_of_log_p_x_given_z)


def leapfrog(
    target: Target, point: Point, momentum: Any, beta: Scalar, step_size: Scalar, num_steps: int
) -> tuple[Point, Any]:
    """`num_steps` of the leapfrog integrator with unit mass: reversible, and it keeps volume."""

    def kick(momentum, point):
        return jax.tree.map(lambda r, g: r + 0.5 * step_size * g, momentum, point.gradient(beta))

    def step(_, carry):
        point, momentum = carry
        momentum = kick(momentum, point)
        point = point_at(target, jax.tree.map(lambda z, r: z + step_size * r, point.z, momentum))
        return point, kick(momentum, point)

    return lax.fori_loop(0, num_steps, step, (point, momentum))


def transition(
    key: Key[Array, ""], target: Target, point: Point, beta: Scalar, step_size: Scalar, num_steps: int
) -> tuple[Point, Float[Array, "C"]]:
    """One transition that leaves p(z) p(x|z)^β invariant, and the probability with which each chain took it, [C].

    Its step size is drawn within `JITTER` of `step_size`, so that no trajectory is always a period of the target (Neal
    2011).
    Spends `key`. A proposal whose density is not a number is not taken.
    """
    key_momentum, key_accept, key_step_size = jax.random.split(key, 3)
    step_size = step_size * jax.random.uniform(key_step_size, (), point.log_p_z.dtype, 1 - JITTER, 1 + JITTER)
    leaves, structure = jax.tree.flatten(point.z)
    keys = jax.random.split(key_momentum, len(leaves))
    normals = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    momentum = structure.unflatten(normals)
    proposal, end = leapfrog(target, point, momentum, beta, step_size, num_steps)
    log_ratio = proposal.log_density(beta) - kinetic(end) - point.log_density(beta) + kinetic(momentum)
    probability = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    accept = jax.random.uniform(key_accept, probability.shape, probability.dtype) < probability
    return jax.tree.map(lambda new, old: jnp.where(_along(accept, new), new, old), proposal, point), probability


def kinetic(momentum: Any) -> Float[Array, "C"]:
    """½ Σ r² of each chain."""
    layers = [0.5 * (r**2).reshape(len(r), -1).sum(1) for r in jax.tree.leaves(momentum)]
    return jnp.stack(layers).sum(0)


def _along(values, like):
    """[C] as [C, 1, …] with the number of axes of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
