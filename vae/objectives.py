"""What is maximised: a bound on log p(x) and how its gradient is taken. Nats, per example. K samples, B batch.

The sign, the mean over the batch and the optimiser are training.py's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from vae.bounds import BOUNDS, GROUPED, iwae
from vae.estimators import ESTIMATORS, reparameterized
from vae.model import Model, Weighted, sum_layers
from vae.settings import Hyperparameters, Settings


class ObjectiveError(ValueError):
    """An objective that cannot be trained as asked; one line for the user."""


class Objective(NamedTuple):
    """A bound and how its gradient is taken.

    init(key, model) -> extra parameters, {} for nearly all; they are trained as params["objective"].
    apply(key, params, model, batch, hyperparameters, step) -> (surrogate [], bound [B], metrics).
        `surrogate` is what is differentiated; `bound` is the value reported under the objective's name, whatever the
        estimator; `metrics` are per example, [B], in nats. Spends `key`.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


def elbo(settings: Settings) -> Objective:
    """ELBO with the analytic KL: 1/K Σ_k log p(x|z_k) − KL(q(z|x) ‖ p(z)) (Kingma & Welling 2014, eq. 7)."""

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        q = model.posterior(params, batch)
        kl_per_dimension = q.kl_per_dimension(model.prior(params, batch.y))
        if kl_per_dimension is None:
            raise ObjectiveError("elbo needs KL(q ‖ p) in closed form, which this pair lacks; use elbo_mc")
        z, _ = q.sample_and_log_prob(key, settings.num_samples)
        reconstruction = model.likelihood(params, z, batch.y).log_prob(batch.x[None]).mean(0)
        kl = sum_layers(jax.tree.map(lambda kl: kl.sum(-1), kl_per_dimension))
        bound = reconstruction - kl
        return bound.mean(), bound, {"reconstruction": reconstruction, "kl": kl}

    return Objective(no_parameters, apply)


def from_log_weights(name: str, settings: Settings) -> Objective:
    """The objective of `BOUNDS[name]` with M·K samples and the gradient estimator of `settings`."""
    estimator, num_samples = ESTIMATORS[settings.estimator], settings.num_groups * settings.num_samples

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del step
        bound = on_log_weights(name, settings, hyperparameters)
        q = model.posterior(params, batch)
        z, log_q = q.sample_and_log_prob(key, num_samples)
        surrogate, weighted = estimator(params, model, batch, q, z, log_q, bound)
        return surrogate, bound(weighted.log_w), metrics(weighted)

    return Objective(no_parameters, apply)


def piwae(settings: Settings) -> Objective:
    """The decoder climbs IWAE with M·K samples, the encoder MIWAE (Rainforth et al. 2018); reports the former."""
    estimator, num_samples = ESTIMATORS[settings.estimator], settings.num_groups * settings.num_samples

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        q = model.posterior(params, batch)
        z, log_q = q.sample_and_log_prob(key, num_samples)
        # Held where it is used, not by name: a prior may share the encoder's weights.
        held_decoder = model._replace(
            prior=lambda params, *args: model.prior(lax.stop_gradient(params), *args),
            likelihood=lambda params, *args: model.likelihood(lax.stop_gradient(params), *args),
        )
        for_encoder = on_log_weights("miwae", settings, Hyperparameters())
        held_z, held_log_q = lax.stop_gradient((z, log_q))
        decoders, weighted = reparameterized(params, model, batch, q, held_z, held_log_q, iwae)
        encoders, _ = estimator(params, held_decoder, batch, q, z, log_q, for_encoder)
        return decoders + encoders, iwae(weighted.log_w), metrics(weighted)

    return Objective(no_parameters, apply)


def on_log_weights(name: str, settings: Settings, hyperparameters: Hyperparameters):
    """`BOUNDS[name]` as a function of flat log-weights [M·K, B], with its hyperparameters filled in."""
    bound = BOUNDS[name]
    numbers = {field: getattr(hyperparameters, field) for field in hyperparameters_of(name)}
    if name not in GROUPED:
        return lambda log_w: bound(log_w, **numbers)
    groups = settings.num_groups, settings.num_samples
    return lambda log_w: bound(log_w.reshape(*groups, log_w.shape[-1]), **numbers)


def hyperparameters_of(name: str) -> list[str]:
    """The fields of `Hyperparameters` that the objective reads."""
    if name not in BOUNDS:
        return []
    return [field for field in inspect.signature(BOUNDS[name]).parameters if field in Hyperparameters._fields]


def metrics(weighted: Weighted) -> dict[str, Float[Array, "B"]]:
    """Reconstruction and KL of each example, means over its samples."""
    return {
        "reconstruction": weighted.log_p_x_given_z.mean(0),
        "kl": (weighted.log_q_z_given_x - weighted.log_p_z).mean(0),
    }


def no_parameters(key, model) -> dict[str, Any]:
    """The `init` of an objective that trains nothing of its own."""
    del key, model
    return {}


OBJECTIVES: dict[str, Callable[[Settings], Objective]] = {
    "elbo": elbo,
    **{name: lambda settings, name=name: from_log_weights(name, settings) for name in BOUNDS},
    "piwae": piwae,
}

NOT_SMOOTH = "a maximum has no second derivative; use reparameterized or score"
ANALYTIC = "an analytic KL is no function of log-weights; use the objective elbo_mc"
# Pairs of objective and estimator that make no sense, and why.
REFUSED: dict[tuple[str, str], str] = {
    ("elbo", "stl"): ANALYTIC,
    ("elbo", "dreg"): ANALYTIC,
    ("elbo", "score"): ANALYTIC,
    ("vr_max", "stl"): NOT_SMOOTH,
    ("vr_max", "dreg"): NOT_SMOOTH,
}


def build(settings: Settings) -> Objective:
    """The objective of `settings`; raises ObjectiveError where it makes no sense."""
    name, estimator = settings.objective, settings.estimator
    samples = settings.num_samples * settings.num_groups
    if reason := REFUSED.get((name, estimator)):
        raise ObjectiveError(f"the estimator {estimator} is not possible for the objective {name}: {reason}")
    if estimator == "score" and samples < 2:
        raise ObjectiveError("the score estimator compares samples with each other: it needs num_samples of 2 or more")
    if name.startswith("jackknife") and samples <= int(name[-1]):
        raise ObjectiveError(f"{name} leaves {name[-1]} samples out: it needs a num_samples above that, got {samples}")
    if settings.num_groups > 1 and name not in GROUPED:
        raise ObjectiveError(f"num_groups has no effect with the objective {name}; only with {' and '.join(GROUPED)}")
    return OBJECTIVES[name](settings)
