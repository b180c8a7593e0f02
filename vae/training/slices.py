"""The gradient of a step, in slices of its batch: the same gradient, from arrays that stay in a processor's cache.

A bound is a function of one example. So the gradient of its mean over a batch is the mean of the gradients over slices
of the examples, each with all its samples. q(z|x) and the samples are those of the whole batch, drawn at once: a step
draws the same noise whatever its slices. Shapes: S slices, K samples, B batch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from vae.models.model import Batch, Model
from vae.objectives import OBJECTIVES, Objective, num_drawn
from vae.settings import Hyperparameters, Settings

# Of the samples of p(x|z) in flight. A processor's cache holds them; an accelerator is to be filled, and not more.
BYTES_OF_SLICE, BYTES_OF_SLICE_ON_ACCELERATOR = 4e6, 1e9
WHOLE = -1  # the axis of what all examples of a batch share


def number_of_slices(settings: Settings, platform: str) -> int:
    """S, a divisor of the batch size: so many that the samples of a slice take BYTES_OF_SLICE or less, if they can.

    It is 1 if the objective or the likelihood compares the examples of a batch with each other, or if the objective
    draws images besides.
    """
    of_batch = OBJECTIVES[settings.objective].of_batch or settings.warmup_balance or settings.scale == "optimal"
    if of_batch or settings.rws_phase != "wake_q":
        return 1
    samples = num_drawn(settings)
    bytes_of_batch = 4 * settings.batch_size * samples * math.prod(settings.image_shape)
    wanted = bytes_of_batch / (BYTES_OF_SLICE if platform == "cpu" else BYTES_OF_SLICE_ON_ACCELERATOR)
    divisors = (n for n in range(1, settings.batch_size + 1) if settings.batch_size % n == 0)
    return next((n for n in divisors if n >= wanted), settings.batch_size)


class DrawnPosterior(NamedTuple):
    """q(z|x) with the samples that were drawn of it; the rest is q's."""

    q: Any
    z: Any
    log_q: Any

    def sample_and_log_prob(self, key: Key[Array, ""], num_samples: int) -> tuple[Any, Any]:
        """The samples, whatever the key; it is the one that drew them."""
        del key, num_samples
        return self.z, self.log_q

    def __getattr__(self, name: str) -> Any:
        return getattr(self.q, name)


def gradient(
    key: Key[Array, ""],
    params: Any,
    batch: Batch,
    hyperparameters: Hyperparameters,
    step: Int[Array, ""] | int,
    *,
    model: Model,
    objective: Objective,
    num_samples: int,
    num_slices: int = 1,
) -> tuple[Any, dict[str, Float[Array, "B"]]]:
    """The gradient of minus the mean surrogate, and the bound (`bound`) and metrics of each example; spends `key`.

    More than one slice is for an objective that draws `num_samples` samples of q with `key` itself and is a function of
    one example; the gradient is then that of one slice up to the order of sums.
    """

    def loss(params, model, batch):
        surrogate, bound, metrics = objective.apply(key, params, model, batch, hyperparameters, step)
        return -surrogate, {"bound": bound, **metrics}

    if num_slices == 1:
        return jax.grad(loss, has_aux=True)(params, model, batch)

    def draw(params):
        q = model.posterior(params, batch)
        # The key that `loss` spends: it finds these samples drawn.
        return DrawnPosterior(q, *q.sample_and_log_prob(jax.random.clone(key), num_samples))

    drawn, pull = jax.vjp(draw, params)
    leaves, structure = jax.tree.flatten(drawn)
    axes = _axes_of_examples(drawn)
    slices = (
        [_split(leaf, axis, num_slices) for leaf, axis in zip(leaves, axes, strict=True) if axis != WHOLE],
        jax.tree.map(lambda a: _split(a, 0, num_slices), Batch(batch.x, batch.y, batch.index)),
    )

    def of_slice(params, shared, own, examples):
        shared, own = iter(shared), iter(own)
        posterior = structure.unflatten([next(shared if axis == WHOLE else own) for axis in axes])
        drawn_already = model._replace(posterior=lambda *_: posterior)
        value, values = loss(params, drawn_already, examples._replace(dataset_size=batch.dataset_size))
        return value / num_slices, values

    def add_slice(total, slice_):
        (*of_inputs, of_own), values = jax.grad(of_slice, argnums=(0, 1, 2), has_aux=True)(*inputs, *slice_)
        return jax.tree.map(jnp.add, total, tuple(of_inputs)), (of_own, values)

    inputs = params, [leaf for leaf, axis in zip(leaves, axes, strict=True) if axis == WHOLE]
    zeros = jax.tree.map(jnp.zeros_like, inputs)
    (of_params, of_shared), (of_own, values) = lax.scan(add_slice, zeros, slices)
    of_shared, of_own = iter(of_shared), iter(of_own)
    cotangents = [
        next(of_shared) if axis == WHOLE else _join(next(of_own), axis).astype(leaf.dtype)
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    (through_samples,) = pull(structure.unflatten(cotangents))
    return jax.tree.map(jnp.add, of_params, through_samples), jax.tree.map(lambda a: _join(a, 0), values)


def _axes_of_examples(drawn: DrawnPosterior) -> list[int]:
    """The axis of the examples in each leaf: the second one of samples, and the first one in q, except in networks."""

    def of_part(part):
        return [WHOLE if isinstance(part, Partial) else 0] * len(jax.tree.leaves(part))

    parts = jax.tree.leaves(drawn.q, is_leaf=lambda part: isinstance(part, Partial))
    return [axis for part in parts for axis in of_part(part)] + [1] * len(jax.tree.leaves((drawn.z, drawn.log_q)))


def _split(array: Array, axis: int, num_slices: int) -> Array:
    """Slices of `axis`, along a new first axis."""
    shape = (*array.shape[:axis], num_slices, -1, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis, 0)


def _join(slices: Array, axis: int) -> Array:
    """The inverse of `_split`."""
    slices = jnp.moveaxis(slices, 0, axis)
    return slices.reshape(*slices.shape[:axis], -1, *slices.shape[axis + 2 :])
