"""Bounds on log p(x), to be maximised: nats, per example. Shapes: K samples, B batch.

A bound that depends on the log-weights alone is a function of `log_w` and a row in `BOUNDS`.
The sign, the mean over the batch and the optimiser are training.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from vae.model import Model, sum_layers, weigh
from vae.settings import Settings


class Objective(NamedTuple):
    """A bound and how its gradient is taken.

    init(key, model) -> extra parameters, {} for nearly all; they are trained as params["objective"].
    apply(key, params, model, batch, hyperparameters, step) -> (surrogate [], bound [B], metrics).
        `surrogate` is what is differentiated; `bound` is the value reported under the objective's name;
        `metrics` are per example, [B], in nats. Spends `key`.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


def elbo_mc(log_w: Float[Array, "K B"]) -> Float[Array, "B"]:
    """ELBO from samples: 1/K Σ_k log w_k (Kingma & Welling 2014, eq. 6, averaged over K)."""
    return log_w.mean(0)


BOUNDS: dict[str, Callable[..., Float[Array, "B"]]] = {"elbo_mc": elbo_mc}


def from_log_weights(bound: Callable[..., Float[Array, "B"]], num_samples: int) -> Objective:
    """The objective of a bound on log-weights, differentiated through the reparameterised samples."""

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        weighted = weigh(key, params, model, model.posterior(params, batch), batch, num_samples)
        value = bound(weighted.log_w)
        metrics = {
            "reconstruction": weighted.log_p_x_given_z.mean(0),
            "kl": (weighted.log_q_z_given_x - weighted.log_p_z).mean(0),
        }
        return value.mean(), value, metrics

    return Objective(no_parameters, apply)


def elbo(num_samples: int) -> Objective:
    """ELBO with the analytic KL: 1/K Σ_k log p(x|z_k) − KL(q(z|x) ‖ p(z)) (Kingma & Welling 2014, eq. 7)."""

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        q = model.posterior(params, batch)
        kl_per_dimension = q.kl_per_dimension(model.prior(params, batch.y))
        if kl_per_dimension is None:
            raise ValueError("elbo needs KL(q ‖ p) in closed form, which this pair lacks; use the objective elbo_mc")
        z, _ = q.sample_and_log_prob(key, num_samples)
        reconstruction = model.likelihood(params, z, batch.y).log_prob(batch.x[None]).mean(0)
        kl = sum_layers(jax.tree.map(lambda kl: kl.sum(-1), kl_per_dimension))
        bound = reconstruction - kl
        return bound.mean(), bound, {"reconstruction": reconstruction, "kl": kl}

    return Objective(no_parameters, apply)


def no_parameters(key, model) -> dict[str, Any]:
    """The `init` of an objective that trains nothing of its own."""
    del key, model
    return {}


OBJECTIVES: dict[str, Callable[[Settings], Objective]] = {
    "elbo": lambda settings: elbo(settings.num_samples),
    **{
        name: lambda settings, bound=bound: from_log_weights(bound, settings.num_samples)
        for name, bound in BOUNDS.items()
    },
}
