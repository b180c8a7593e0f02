"""Objectives whose weight is a state: it follows the reconstruction or the KL of the steps before, by no gradient.

Both report the ELBO, which has no weight, so that their values at different steps compare; the weight is in the
surrogate. Nats, per example. Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae.models.model import Model
from vae.objectives.objective import InitState, Objective, Scalar, UpdateState, no_parameters
from vae.objectives.regularized import encode, logged
from vae.settings import Hyperparameters, Settings


class Multiplier(NamedTuple):
    """λ, and the moving average of C = κ − E log p(x|z), which is above 0 while the constraint is broken."""

    multiplier: Scalar
    average: Scalar


class Controller(NamedTuple):
    """I, what is summed up of the error, and P + I + β_min, which is β if it is within its limits."""

    integral: Scalar
    output: Scalar


def geco(settings: Settings) -> Objective:
    """Climbs λ·(E log p(x|z) − κ) − KL(q ‖ p): the least KL with E log p(x|z) ≥ κ (GECO; Rezende & Viola 2018).

    λ is 1 at first; `next_multiplier` has the rest. κ = `geco_reconstruction` is in nats. The paper wants E‖x − g(z)‖²
    ≤ τ² with a tolerance τ. Under p(x|z) = N(g(z), σ²I) on D pixels, this is κ = −τ²/(2σ²) − D/2·log(2πσ²), and the
    paper's λ is this one divided by 2σ².
    """

    def start(hyperparameters):
        del hyperparameters
        return Multiplier(jnp.ones(()), jnp.zeros(()))

    def surrogate(reconstruction, kl, multiplier, hyperparameters):
        return multiplier * (reconstruction - hyperparameters.geco_reconstruction) - kl

    return _weighted(settings, "multiplier", lambda state, _: state.multiplier, surrogate, start, next_multiplier)


def next_multiplier(state: Multiplier, means, hyperparameters: Hyperparameters, step) -> Multiplier:
    """λ ← λ·exp(ν·C̄) within its limits, with C̄ ← α·C̄ + (1 − α)·C, and C̄ = C at step 0 (GECO's algorithm 1).

    C = κ − E log p(x|z) is the batch's, α = `geco_decay` and ν = `geco_rate`.
    """
    h = hyperparameters
    constraint = h.geco_reconstruction - means["reconstruction"]
    average = jnp.where(step == 0, constraint, h.geco_decay * state.average + (1 - h.geco_decay) * constraint)
    multiplier = jnp.clip(state.multiplier * jnp.exp(h.geco_rate * average), h.geco_min, h.geco_max)
    return Multiplier(multiplier, average)


def control(settings: Settings) -> Objective:
    """Climbs E log p(x|z) − β·KL(q ‖ p), with a β that holds the KL at a set point (ControlVAE; Shao et al. 2020).

    β is `control_min` at first; `next_output` has the rest. The β of a step is that of the KL one step before.
    """

    def start(hyperparameters):
        return Controller(jnp.zeros(()), jnp.zeros(()) + hyperparameters.control_min)

    def weight(state: Controller, hyperparameters):
        return jnp.clip(state.output, hyperparameters.control_min, hyperparameters.control_max)

    def surrogate(reconstruction, kl, weight, hyperparameters):
        del hyperparameters
        return reconstruction - weight * kl

    return _weighted(settings, "beta", weight, surrogate, start, next_output)


def next_output(state: Controller, means, hyperparameters: Hyperparameters, step) -> Controller:
    """P + I + β_min with e = v − KL, P = K_p/(1 + exp(e)) and I ← I − K_i·e (Shao et al. 2020, algorithm 1).

    The KL is the batch's, v = `control_kl`, K_p = `control_kp` and K_i = `control_ki`. I rests while the output is out
    of its limits and e drives it further out. In the algorithm it rests whatever e is; after one step with K_i·|e| >
    K_p beyond a limit, β would stay at this limit for ever.
    """
    del step
    h = hyperparameters
    error = h.control_kl - means["kl"]
    driven_out = jnp.where(error > 0, state.output < h.control_min, state.output > h.control_max)
    integral = jnp.where(driven_out, state.integral, state.integral - h.control_ki * error)
    return Controller(integral, h.control_kp * jax.nn.sigmoid(-error) + integral + h.control_min)


def _weighted(
    settings: Settings,
    name: str,
    weight: Callable[[Any, Hyperparameters], Scalar],
    surrogate: Callable[[Float[Array, "B"], Float[Array, "B"], Scalar, Hyperparameters], Float[Array, "B"]],
    start: InitState,
    update: UpdateState,
) -> Objective:
    """Climbs `surrogate(reconstruction, kl, weight, hyperparameters)`, with the weight of the state as metric `name`.

    Without a state there is no weight, and it is the ELBO.
    """

    def apply(key, params, model: Model, batch, hyperparameters, step, state=None):
        latents, reconstruction = encode(key, params, model, batch, step, settings.num_samples)
        metrics = logged(latents, reconstruction, {})
        elbo = reconstruction - metrics["kl"]
        if state is None:
            return elbo.mean(), elbo, metrics
        now = weight(state, hyperparameters)
        climbed = surrogate(reconstruction, metrics["kl"], now, hyperparameters)
        return climbed.mean(), elbo, metrics | {name: jnp.broadcast_to(now, elbo.shape)}

    return Objective(no_parameters, apply, start, update)
