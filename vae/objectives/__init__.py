"""What is maximised: a bound on log p(x) and how its gradient is taken. Nats, per example.

The sign, the mean over the batch and the optimiser are training.py's. Bounds on log-weights alone are in `BOUNDS`
(bounds.py), reconstruction minus weighted terms in `REGULARIZERS`; `OBJECTIVES` holds all that can be trained.
"""

from __future__ import annotations

from collections.abc import Callable

from vae.models.model import can_score
from vae.objectives.aggregate import beta_tcvae, dip_i, dip_ii, info
from vae.objectives.bounds import BOUNDS, GROUPED
from vae.objectives.checks import check
from vae.objectives.factor import factor, with_discriminator
from vae.objectives.log_weights import from_log_weights, piwae, rws
from vae.objectives.objective import FIELDS, Objective, ObjectiveError, Terms, fields_of
from vae.objectives.regularized import beta, capacity, elbo, free_bits, regularized, warmup
from vae.objectives.remarks import remarks, simplest
from vae.settings import Settings

__all__ = [
    "BOUNDS",
    "OBJECTIVES",
    "REFUSED",
    "REGULARIZERS",
    "Objective",
    "ObjectiveError",
    "build",
    "check",
    "reads",
    "remarks",
    "simplest",
]

REGULARIZERS: dict[str, Callable[..., Terms]] = {
    "elbo": elbo,
    "beta": beta,
    "warmup": warmup,
    "capacity": capacity,
    "free_bits": free_bits,
    "beta_tcvae": beta_tcvae,
    "dip_i": dip_i,
    "dip_ii": dip_ii,
    "info": info,
    "factor": factor,
}
OBJECTIVES: dict[str, Callable[[Settings], Objective]] = {
    **{name: lambda settings, term=term: regularized(term, settings) for name, term in REGULARIZERS.items()},
    **{name: lambda settings, name=name: from_log_weights(name, settings) for name in BOUNDS},
    "factor": with_discriminator,
    "piwae": piwae,
    "rws": rws,
}

NOT_SMOOTH = "it needs the second derivative of a maximum, which is a pulse at ties; use reparameterized, stl or score"
NO_LOG_WEIGHTS = "its value is no function of log-weights; use the objective elbo_mc, or reparameterized"
OWN_GRADIENT = "reweighted wake-sleep is a gradient of its own, and takes none through the samples; use reparameterized"
# Pairs of objective and estimator that make no sense, and why.
REFUSED: dict[tuple[str, str], str] = {
    **{(name, estimator): NO_LOG_WEIGHTS for name in REGULARIZERS for estimator in ("stl", "dreg", "score")},
    **{("rws", estimator): OWN_GRADIENT for estimator in ("stl", "dreg", "score")},
    ("vr_max", "dreg"): NOT_SMOOTH,
}


def reads(name: str) -> list[str]:
    """The fields of `Settings` and `Hyperparameters` that the objective reads, beside those that all of them do."""
    if name == "factor":
        return [*fields_of(factor), *(name for name in sorted(FIELDS) if name.startswith("discriminator_"))]
    function = REGULARIZERS.get(name) or BOUNDS.get(name)
    return [] if function is None else fields_of(function)


def build(settings: Settings) -> Objective:
    """The objective of `settings`; raises ObjectiveError where it makes no sense. A new run has to pass `check` too."""
    name, estimator = settings.objective, settings.estimator
    if name not in OBJECTIVES:  # a file may hold any text
        raise ObjectiveError(f"there is no objective {name[:60]!r}; the objectives are {', '.join(OBJECTIVES)}")
    samples = settings.num_samples * settings.num_groups
    if reason := REFUSED.get((name, estimator)):
        raise ObjectiveError(f"the estimator {estimator} is not possible for the objective {name}: {reason}")
    if (estimator != "reparameterized" or name == "rws") and not can_score(settings):
        raise ObjectiveError(
            f"the posterior {settings.posterior} can be sampled, but cannot give the density of a given z, which "
            f"{'rws' if name == 'rws' else f'the estimator {estimator}'} needs; use --posterior=iaf or realnvp"
        )
    if estimator == "score" and samples < 2:
        raise ObjectiveError("the score estimator compares samples with each other: it needs num_samples of 2 or more")
    if name.startswith("jackknife") and samples <= int(name[-1]):
        raise ObjectiveError(f"{name} leaves {name[-1]} samples out: it needs a num_samples above that, got {samples}")
    if settings.num_groups > 1 and name not in GROUPED:
        raise ObjectiveError(f"num_groups has no effect with the objective {name}; only with {' and '.join(GROUPED)}")
    return OBJECTIVES[name](settings)
