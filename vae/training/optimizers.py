"""How a gradient becomes a step: the optimisers of `OPTIMIZERS` in table.py, and the schedules of the learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vae.settings import Hyperparameters, Settings


def learning_rate(schedule: str, hyperparameters: Hyperparameters, step: Int[Array, ""]) -> Float[Array, ""]:
    """The learning rate of `step` (from 0). Stage s lasts stage_steps[s] steps, and the last one does not end."""
    base = jnp.asarray(hyperparameters.learning_rate, jnp.float32)
    if schedule == "cosine":
        return base * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / hyperparameters.decay_steps, 1.0)))
    if schedule == "stages":
        milestones = jnp.cumsum(jnp.asarray(hyperparameters.stage_steps))
        stage = jnp.minimum((step >= milestones).sum(), len(milestones) - 1)
        return base * jnp.asarray(hyperparameters.stage_factors)[stage]
    return base


def optimizer(settings: Settings, hyperparameters: Hyperparameters) -> optax.GradientTransformation:
    """That of `settings`, after clipping the gradient's norm if asked; the step applies the learning rate.

    A discriminator has an Adam of its own (Kim & Mnih 2018), whose learning rate follows the same schedule, and whose
    gradient is not clipped.
    """
    h = hyperparameters
    if settings.optimizer == "adam_burda":
        adam = scale_by_adam_burda(h.adam_b1, h.adam_b2, h.adam_epsilon, settings.batch_size)
    else:
        adam = optax.scale_by_adam(h.adam_b1, h.adam_b2, h.adam_epsilon)
    of_model = optax.chain(optax.clip_by_global_norm(h.max_gradient_norm), adam) if settings.clip_gradients else adam
    if settings.objective != "factor" or settings.discriminator_optimizer == "shared":
        return of_model
    of_discriminator = optax.chain(
        optax.scale_by_adam(h.discriminator_b1, h.discriminator_b2, h.adam_epsilon),
        optax.scale(h.discriminator_learning_rate / h.learning_rate),
    )
    return optax.partition(
        {"model": of_model, "discriminator": of_discriminator},
        lambda params: {name: "discriminator" if name == "objective" else "model" for name in params},
    )


class AdamBurdaState(NamedTuple):
    """t − 1, and the moments m and v after it, each like the parameters."""

    count: Int[Array, ""]
    first_moment: Any
    second_moment: Any


def scale_by_adam_burda(b1: Any, b2: Any, epsilon: Any, batch_size: int) -> optax.GradientTransformation:
    """Adam as the code of Burda et al. (2016) has it: the step t = 1, 2, … is √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε).

    It differs from Adam's in four ways. The gradient is the batch's sum, not its mean. v starts at 1, so that the first
    thousand steps are smaller. ε is added outside the bias correction. And m and v are those before this step's
    gradient is taken in, since all updates there are computed from the old values: the first step is zero.
    """

    def init(params) -> AdamBurdaState:
        return AdamBurdaState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.ones_like, params)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        t = state.count + 1
        # 1 − βᵗ as it is for β near 1, where β ** t would lose its digits.
        correction = jnp.sqrt(-jnp.expm1(t * jnp.log(b2))) / -jnp.expm1(t * jnp.log(b1))
        m, v = state.first_moment, state.second_moment
        step = jax.tree.map(lambda m, v: correction.astype(m.dtype) * m / (jnp.sqrt(v) + epsilon), m, v)
        total = jax.tree.map(lambda g: batch_size * g, updates)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, total)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, v, total)
        return step, AdamBurdaState(t, m, v)

    return optax.GradientTransformation(init, update)
