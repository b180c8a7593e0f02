"""The chains of a batch of examples as compiled programs: where they start, how they are tuned, how they anneal.

Shapes: N examples, C chains for each; z has leaves [N, C, 1, D_l].
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vae.evaluation.annealing.hamiltonian import Target, point_at, transition
from vae.models.model import Batch, Model, sum_layers
from vae.streams import Stream, stream

GAIN = 0.2  # of the log step size, for each unit of acceptance
TARGET_ACCEPTANCE = 0.65  # Neal 2011; Wu et al. 2017
PILOT, FORWARD, REVERSE = range(3)  # each with its own noise


def _target(params, example: Batch, model: Model) -> Target:
    """Of one example, x [H, W, C]; z has the leaves [C, 1, D_l]."""
    batch = jax.tree.map(lambda a: a[None], example)
    prior = model.prior(params, batch.y)  # once, not at every step of the chains: it may be a network
    return Target(
        log_p_z=lambda z: sum_layers(prior.log_prob(z))[:, 0],
        log_p_x_given_z=lambda z: model.likelihood(params, z, batch.y).log_prob(batch.x[None])[:, 0],
    )


def _keys(root, index, purpose):
    """The keys of the samples to start from, and of the transitions."""
    return jax.random.split(stream(root, Stream.ANNEAL, index, purpose))


@partial(jax.jit, static_argnums=(4, 5))
def start(root, params, examples: Batch, purpose, model: Model, num_chains: int):
    """Points of samples of the prior."""

    def one(example):
        batch = jax.tree.map(lambda a: a[None], example)
        key, _ = _keys(root, example.index, purpose)
        z, _ = model.prior(params, batch.y).sample_and_log_prob(key, num_chains)
        return point_at(_target(params, example, model), z)

    return jax.vmap(one)(examples)


@partial(jax.jit, static_argnums=(3, 4))
def start_at(params, examples: Batch, z, model: Model, num_chains: int):
    """Points at z, with leaves [N, 1, 1, D_l]."""

    def one(example, z):
        return point_at(_target(params, example, model), jax.tree.map(lambda a: a.repeat(num_chains, 0), z))

    return jax.vmap(one)(examples, z)


@partial(jax.jit, static_argnums=4)
def simulate(root, params, labels, index, model: Model):
    """(z, x) of the model, z with leaves [N, 1, 1, D_l]."""

    def one(label, index):
        key_z, key_x = jax.random.split(stream(root, Stream.SIMULATE, index))
        y = None if label is None else label[None]
        z, _ = model.prior(params, y).sample_and_log_prob(key_z, 1)
        return z, model.likelihood(params, z, y).sample(key_x)[0, 0]

    return jax.vmap(one)(labels, index)


class Stretch(NamedTuple):
    """Temperatures that one call passes: `count` of those in `betas`, the first of which is number `first` of all."""

    betas: Any  # [T]
    first: int
    count: int
    direction: int  # PILOT, FORWARD or REVERSE: which noise
    increments: Any = None  # [T], of each from the one before


@partial(jax.jit, static_argnames=("model", "num_leapfrog"))
def tune(root, params, examples: Batch, points, log_step_size, stretch: Stretch, *, model: Model, num_leapfrog: int):
    """(points, log step sizes [N, T]); each grows from the one before if more than `TARGET_ACCEPTANCE` is accepted."""
    betas = stretch.betas

    def one(example, point, log_step_size):
        _, key = _keys(root, example.index, stretch.direction)
        target = _target(params, example, model)

        def step(t, carry):
            point, log_step_size, found = carry
            key_t, beta = jax.random.fold_in(key, stretch.first + t), betas[t].astype(found.dtype)
            point, accepted = transition(key_t, target, point, beta, jnp.exp(log_step_size), num_leapfrog)
            log_step_size = log_step_size + GAIN * (accepted.mean() - TARGET_ACCEPTANCE)
            return point, log_step_size, found.at[t].set(log_step_size)

        found = jnp.zeros(len(betas), log_step_size.dtype)
        point, _, found = lax.fori_loop(0, stretch.count, step, (point, log_step_size, found))
        return point, found

    return jax.vmap(one)(examples, points, log_step_size)


@partial(jax.jit, static_argnames=("model", "num_leapfrog"))
def anneal(root, params, examples: Batch, points, step_sizes, stretch: Stretch, *, model: Model, num_leapfrog: int):
    """(points, log-weights gained [N, C], acceptance summed [N])."""
    betas, increments = stretch.betas, stretch.increments

    def one(example, point, step_sizes):
        _, key = _keys(root, example.index, stretch.direction)
        target = _target(params, example, model)

        def step(t, carry):
            point, log_w, acceptance = carry
            log_w = log_w + increments[t].astype(log_w.dtype) * point.log_p_x_given_z
            key_t, beta = jax.random.fold_in(key, stretch.first + t), betas[t].astype(log_w.dtype)
            point, accepted = transition(key_t, target, point, beta, step_sizes[t], num_leapfrog)
            return point, log_w, acceptance + accepted.mean()

        nothing = jnp.zeros_like(point.log_p_z)
        return lax.fori_loop(0, stretch.count, step, (point, nothing, nothing[0]))

    return jax.vmap(one)(examples, points, step_sizes)
