"""What an objective is, and how one is made of settings. Shapes: B batch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

from vae.models.model import Batch, Model, can_score, redraws_prior, sum_layers
from vae.models.protocols import ApproximatePosterior, Layers, Params, PriorDistribution
from vae.models.table import POSTERIORS, PRIORS
from vae.objectives.regularizer_table import SCHEDULE
from vae.objectives.rows import Baseline, EstimatorRow, ObjectiveRow
from vae.objectives.table import BASELINES, ESTIMATORS, OBJECTIVES, REFUSED
from vae.options import Row, load
from vae.settings import Hyperparameters, Settings


class ObjectiveError(ValueError):
    """An objective that cannot be trained as asked; one line for the user."""


@runtime_checkable
class ObjectiveInit(Protocol):
    def __call__(self, key: Key[Array, ""], model: Model, /) -> dict[str, Any]:
        """Parameters of its own, {} for nearly all; they are trained as params["objective"]. Spends `key`."""
        ...


@runtime_checkable
class ObjectiveApply(Protocol):
    def __call__(
        self,
        key: Key[Array, ""],
        params: Params,
        model: Model,
        batch: Batch,
        hyperparameters: Hyperparameters,
        step: Int[Array, ""] | int,
        /,
    ) -> tuple[Float[Array, ""], Float[Array, "B"], dict[str, Float[Array, "B"]]]:
        """(surrogate, bound, metrics), in nats. Spends `key`.

        The surrogate is what is differentiated; the bound is the value reported under the objective's name, whatever
        the estimator.
        """
        ...


@runtime_checkable
class InitState(Protocol):
    def __call__(self, hyperparameters: Hyperparameters, /) -> Any:
        """The state before step 0, a pytree of arrays; None if the objective has none."""
        ...


@runtime_checkable
class UpdateState(Protocol):
    def __call__(
        self,
        state: Any,
        means: Mapping[str, Float[Array, ""]],
        hyperparameters: Hyperparameters,
        step: Int[Array, ""] | int,
        /,
    ) -> Any:
        """The state after `step`; `means` are of its whole batch: of the bound (`bound`) and of each metric."""
        ...


def no_state(hyperparameters) -> None:
    """The `init_state` of an objective that is a function of parameters, data and step alone."""
    del hyperparameters


def as_it_is(state, means, hyperparameters, step) -> Any:
    """The `update` of a state that no step changes."""
    del means, hyperparameters, step
    return state


class Objective(NamedTuple):
    """A bound and how its gradient is taken.

    It may have a state: arrays that training carries from step to step and no gradient changes, as a Lagrange
    multiplier or what a controller has summed up. `apply` then has a keyword `state`, which is None outside training.
    During a step the state is a constant; `update` makes the next one of the means over the batch. The surrogate may
    depend on it, and metrics that training alone has. The bound may not: bounds of different epochs are compared.
    """

    init: ObjectiveInit
    apply: ObjectiveApply
    init_state: InitState = no_state
    update: UpdateState = as_it_is

    def at(self, state: Any) -> Objective:
        """The objective while it is in `state`; itself if it has none."""
        apply: Any = self.apply
        return self if state is None else self._replace(apply=functools.partial(apply, state=state))


OF_SCHEDULE = Row("", **SCHEDULE).fields
Scalar = Float[Array, ""] | float
Terms = dict[str, tuple[Scalar, Float[Array, "B"]]]


class Latents(NamedTuple):
    """q(z|x) of a batch, the prior, and K samples z of each q with their log densities [K, B]."""

    q: ApproximatePosterior
    prior: PriorDistribution
    z: Layers[Float[Array, "K B D"]]
    log_q_z_given_x: Float[Array, "K B"]
    log_p_z: Float[Array, "K B"]
    log_q_over_p: Layers[Float[Array, "K B"]]  # of each stochastic layer
    step: Int[Array, ""] | int
    dataset_size: Int[Array, ""] | int  # N, of the images that the batch was drawn from

    @property
    def kl_per_dimension(self) -> Any:
        """The closed form of KL(q ‖ p), [B, D] for each stochastic layer; raises ObjectiveError if there is none."""
        kl = self.q.kl_per_dimension(self.prior)
        if kl is None:
            raise ObjectiveError(
                "this posterior and this prior have no KL(q ‖ p) in closed form, which the objective needs; "
                "use elbo_mc, beta, free_bits with `free_bits_group_size=0`, or another bound on log-weights"
            )
        return kl

    @property
    def kl(self) -> Float[Array, "B"]:
        """KL(q ‖ p): the closed form if there is one, otherwise the mean of log q(z|x) − log p(z) over samples."""
        if self.q.kl_per_dimension(self.prior) is None:
            return (self.log_q_z_given_x - self.log_p_z).mean(0)
        return sum_layers(jax.tree.map(lambda kl: kl.sum(-1), self.kl_per_dimension))

    @property
    def kl_of_layers(self) -> Layers[Float[Array, "B"]]:
        """The part of each stochastic layer in `kl`: that of q(z_l|…) and p(z_l|…), given the samples of the others.

        Of two layers, z1 below z2, they are log q(z1|x) − log p(z1|z2), and log q(z2|z1) − log p(z2). The mean of the
        first over z2 ~ q(z2|z1) is a KL only if q is the posterior; it may be negative.
        """
        if (kl := self.q.kl_per_dimension(self.prior)) is not None:
            return jax.tree.map(lambda kl: kl.sum(-1), kl)
        return jax.tree.map(lambda log_ratio: log_ratio.mean(0), self.log_q_over_p)


@functools.lru_cache(maxsize=64)
def build(settings: Settings) -> Objective:
    """The objective of `settings`; raises ObjectiveError if it makes no sense. A new run has to pass `check` too."""
    name, estimator = settings.objective, settings.estimator
    if name not in OBJECTIVES:  # a file may hold any text
        raise ObjectiveError(f"there is no objective {name[:60]!r}; the objectives are {', '.join(OBJECTIVES)}")
    row, how = OBJECTIVES[name], ESTIMATORS[estimator]
    samples = settings.num_samples * settings.num_groups
    if reason := REFUSED.get((name, estimator)):
        raise ObjectiveError(f"the estimator {estimator} is not possible for the objective {name}: {reason}")
    if (how.needs_density or row.needs_density) and not can_score(settings):
        by_networks = [other for other, one in POSTERIORS.items() if one.can_score and one.options]
        raise ObjectiveError(
            f"the posterior {settings.posterior} can be sampled, but cannot give the density of a given z, which "
            f"{name if row.needs_density else f'the estimator {estimator}'} needs; "
            f"use `posterior={' or '.join(by_networks)}`"
        )
    if how.redraws_prior and not redraws_prior(settings):
        by_networks = [other for other, one in PRIORS.items() if one.redraws]
        raise ObjectiveError(
            f"the estimator {estimator} moves samples with the parameters of the prior, which prior {settings.prior} "
            f"cannot; use dreg, `prior={' or '.join(by_networks)}`, or two stochastic layers"
        )
    if samples < how.least_samples:
        raise ObjectiveError(
            f"the {estimator} estimator compares samples with each other: it needs num_samples of {how.least_samples} "
            "or more"
        )
    baseline = BASELINES[settings.baseline] if "baseline" in how.options else Baseline()
    if samples <= row.leaves_out + baseline.leaves_out:
        others = f", and the baseline {settings.baseline} {baseline.leaves_out}" if baseline.leaves_out else ""
        raise ObjectiveError(
            f"{name} leaves {row.leaves_out} samples out{others}: it needs a num_samples above that, got {samples}"
        )
    if settings.num_groups > 1 and baseline.leaves_out:
        raise ObjectiveError(
            f"the baseline {settings.baseline} leaves one sample out of a group of {name}, and groups have the same "
            "size; use `num_groups=1` or `baseline=vimco`"
        )
    if settings.num_groups > 1 and not row.grouped:
        grouped = [other for other, one in OBJECTIVES.items() if one.grouped]
        raise ObjectiveError(f"num_groups has no effect with the objective {name}; only with {' and '.join(grouped)}")
    return load(row.builder)(settings)


def no_parameters(key, model) -> dict[str, Any]:
    """The `init` of an objective that trains nothing of its own."""
    del key, model
    return {}


def num_drawn(settings: Settings) -> int:
    """Samples of q for each example that a step draws: the M·K of the bound, and the estimator's own."""
    more = ESTIMATORS[settings.estimator].more_samples
    return settings.num_groups * settings.num_samples + (getattr(settings, more) if more else 0)


def values_for(
    row: ObjectiveRow | EstimatorRow, settings: Settings, hyperparameters: Hyperparameters
) -> dict[str, Any]:
    """The arguments of a row's function: the value of each field that it reads.

    M is in the shape of log-weights, and a schedule is of the weights that the function returns.
    """
    return {
        name: getattr(hyperparameters if name in Hyperparameters._fields else settings, name)
        for name in row.fields
        if name not in ("num_groups", *OF_SCHEDULE)
    }
