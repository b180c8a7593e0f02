"""Draws of one bound's gradient at fixed parameters and one fixed batch: their moments, and how long one takes.

A draw is one independent estimate of the gradient of the batch's mean bound, which is climbed. Gradients are compared
by group: the subtrees of the parameters (encoder, decoder, prior). Shapes: R draws, P parameters of a group, J blocks.
Only sums over draws are kept, so that memory does not grow with R.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vae.models.model import Batch, Model
from vae.objectives import Objective
from vae.settings import Hyperparameters
from vae.streams import Stream, stream

NUM_BLOCKS = 10  # J: independent parts of the draws, for standard errors and the test of the whole gradient
LEAST_DRAWS = 2 * NUM_BLOCKS


class GradientMoments(NamedTuple):
    """Of `count` draws: their mean and the sum of squared deviations from it. A pytree, or vectors [P]."""

    count: Any
    mean: Any
    m2: Any


def draw_gradient(
    key, params: Any, batch: Batch, hyperparameters: Hyperparameters, step, *, model: Model, objective: Objective
) -> Any:
    """One draw: ∂surrogate/∂params, in the direction in which the bound grows; spends `key`."""
    return jax.grad(lambda params: objective.apply(key, params, model.in_training, batch, hyperparameters, step)[0])(
        params
    )


@partial(jax.jit, static_argnames=("model", "objective"))
def draw_moments(
    key,
    params: Any,
    batch: Batch,
    hyperparameters: Hyperparameters,
    step,
    first,
    stop,
    *,
    model: Model,
    objective: Objective,
) -> GradientMoments:
    """Moments of draws `first` to `stop` − 1 (Welford 1962); draw r is made with fold_in(key, r)."""

    def add(r, moments):
        key_draw = jax.random.fold_in(key, r)
        draw = draw_gradient(key_draw, params, batch, hyperparameters, step, model=model, objective=objective)
        count = moments.count + 1
        mean = jax.tree.map(lambda m, g: m + (g - m) / count.astype(g.dtype), moments.mean, draw)
        m2 = jax.tree.map(lambda s, g, old, new: s + (g - old) * (g - new), moments.m2, draw, moments.mean, mean)
        return GradientMoments(count, mean, m2)

    zeros = jax.tree.map(jnp.zeros_like, params)
    return lax.fori_loop(first, stop, add, GradientMoments(jnp.zeros((), jnp.int32), zeros, zeros))


def merge(a: GradientMoments, b: GradientMoments) -> GradientMoments:
    """Moments of the draws of both, from those of vectors (Chan et al. 1979)."""
    count = a.count + b.count
    delta = b.mean - a.mean
    return GradientMoments(
        count, a.mean + delta * (b.count / count), a.m2 + b.m2 + delta**2 * (a.count * b.count / count)
    )


class GradientBlock(NamedTuple):
    """Consecutive draws: the moments of each group of parameters, vectors [P], and the seconds of one draw."""

    moments: dict[str, GradientMoments]
    seconds: float


def draw_blocks(
    root,
    params: Any,
    batch: Batch,
    num_draws: int,
    *,
    model: Model,
    objective: Objective,
    num_samples: int,
    hyperparameters: Hyperparameters,
    step: int = 0,
    reference: bool = False,
) -> Iterator[GradientBlock]:
    """J consecutive blocks of `num_draws` draws, each drawn when it is asked for.

    So the blocks of several estimators can take turns, and their times compare on a machine that others use too. The
    noise is a function of `root`, `num_samples`, `reference` and the draw: estimators see the same samples, a reference
    sees others. Seconds are of the gradient and of adding it to the moments, without compilation. Raises ValueError for
    fewer than 2J draws, LikelihoodError if p(x|z) cannot score `batch`, FloatingPointError if a gradient is not finite.
    """
    model.check_images(np.asarray(batch.x))
    if num_draws < LEAST_DRAWS:
        raise ValueError(f"{num_draws} draws are too few: {NUM_BLOCKS} blocks need {LEAST_DRAWS} or more")
    key_draws = stream(root, Stream.GRADIENTS, num_samples, int(reference))
    groups = [name for name in sorted(params, key=reading_order) if jax.tree.leaves(params[name])]

    def draw(first: int, stop: int) -> GradientMoments:
        given = key_draws, params, batch, hyperparameters, step, first, stop
        return jax.block_until_ready(draw_moments(*given, model=model, objective=objective))

    draw(0, 0)  # compiles
    for first, stop in pairwise(block * num_draws // NUM_BLOCKS for block in range(NUM_BLOCKS + 1)):
        started = time.perf_counter()
        drawn = draw(first, stop)
        seconds = (time.perf_counter() - started) / (stop - first)
        count, mean, m2 = jax.device_get(drawn)
        moments = {name: GradientMoments(int(count), vector(mean[name]), vector(m2[name])) for name in groups}
        for name, of_group in moments.items():
            if not np.isfinite(of_group.m2).all():
                raise FloatingPointError(f"the gradient of the {name} is not finite")
        yield GradientBlock(moments, seconds)


def reading_order(group: str) -> int:
    """Encoder, decoder, prior, then the parameters that belong to an objective."""
    return {"encoder": 0, "decoder": 1, "prior": 2}.get(group, 3)


def vector(tree: Any) -> np.ndarray:
    """The leaves of a pytree end to end, [P]."""
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


def of_group(blocks: Sequence[GradientBlock], group: str) -> list[GradientMoments]:
    """The moments of one group of parameters in each block, in float64, as statistics take them."""
    found = [block.moments[group] for block in blocks]
    return [GradientMoments(one.count, *(values.astype(np.float64) for values in one[1:])) for one in found]
