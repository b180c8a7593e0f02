"""What an objective is. Shapes: B batch."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

from vae.models.model import Batch, Model, sum_layers
from vae.models.protocols import ApproximatePosterior, Layers, Params, PriorDistribution
from vae.settings import Hyperparameters, Settings

FIELDS = {*Hyperparameters._fields, *(field.name for field in dataclasses.fields(Settings))}


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


class Objective(NamedTuple):
    """A bound and how its gradient is taken."""

    init: ObjectiveInit
    apply: ObjectiveApply


Scalar = Float[Array, ""] | float
Terms = dict[str, tuple[Scalar, Float[Array, "B"]]]


class Latents(NamedTuple):
    """q(z|x) of a batch, the prior, and K samples z of each q with their log densities [K, B]."""

    q: ApproximatePosterior
    prior: PriorDistribution
    z: Layers[Float[Array, "K B D"]]
    log_q_z_given_x: Float[Array, "K B"]
    log_p_z: Float[Array, "K B"]
    step: Int[Array, ""] | int
    dataset_size: Int[Array, ""] | int  # N, of the images that the batch was drawn from

    @property
    def kl_per_dimension(self) -> Any:
        """The closed form of KL(q ‖ p), [B, D] for each stochastic layer; raises ObjectiveError where there is none."""
        kl = self.q.kl_per_dimension(self.prior)
        if kl is None:
            raise ObjectiveError(
                "this posterior and this prior have no KL(q ‖ p) in closed form, which the objective needs; "
                "use elbo_mc, beta, or another bound on log-weights"
            )
        return kl

    @property
    def kl(self) -> Float[Array, "B"]:
        """KL(q ‖ p): the closed form where there is one, otherwise the mean of log q(z|x) − log p(z) over samples."""
        if self.q.kl_per_dimension(self.prior) is None:
            return (self.log_q_z_given_x - self.log_p_z).mean(0)
        return sum_layers(jax.tree.map(lambda kl: kl.sum(-1), self.kl_per_dimension))


def no_parameters(key, model) -> dict[str, Any]:
    """The `init` of an objective that trains nothing of its own."""
    del key, model
    return {}


def fields_of(function: Callable[..., Any]) -> list[str]:
    """The fields of `Settings` and `Hyperparameters` that a bound or a regulariser asks for, by its signature."""
    return [name for name in inspect.signature(function).parameters if name in FIELDS]


def numbers_for(function: Callable[..., Any], settings: Settings, hyperparameters: Hyperparameters) -> dict[str, Any]:
    """The value of each of `fields_of(function)`."""
    return {
        name: getattr(hyperparameters if name in Hyperparameters._fields else settings, name)
        for name in fields_of(function)
    }
