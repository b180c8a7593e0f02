"""Which values may a search try? The axes of its space, what no search can compare, and what Optuna draws from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vae.configuration import ConfigurationError
from vae.sweeps import ranking

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from vae.runs.config import Config

FIELD_OF = {"conditional": "num_classes"}  # fields of a Config whose option has another name


class Axis(NamedTuple):
    """An option and its values, as a user writes them and as they are."""

    name: str
    texts: list[str]
    values: list[Any]


class Range(NamedTuple):
    """An option whose values are drawn from `low` to `high`, both of which count; `step` of whole numbers."""

    name: str
    low: float
    high: float
    log: bool = False
    step: int | None = None


SearchSpace = Sequence[Axis | Range]


def check(space: SearchSpace, sampler: str) -> None:
    """Raises ConfigurationError for an axis that a search cannot have."""
    for axis in space:
        if axis.name == "seed":
            raise ConfigurationError(
                "`sweep=seed` is no axis of a search: the best seed is luck; train the winner with several seeds in a "
                "sweep without `search`"
            )
        if axis.name == "epochs":
            raise ConfigurationError(
                "`sweep=epochs` is no axis of a search: all trials have the same number; use `epochs`"
            )
        if _changes_images(axis):
            raise ConfigurationError(
                f"`sweep={axis.name}` is no axis of a search: bounds on other data, or under another likelihood, do "
                "not compare; make a search for each"
            )
        if sampler == "cmaes" and isinstance(axis, Axis):
            raise ConfigurationError(
                f"`search=cmaes` takes numbers, and `sweep={axis.name}` is a list; write a range, as in "
                "`sweep=learning_rate=log:1e-4:1e-2`, or use `search=tpe`"
            )


def _changes_images(axis: Axis | Range) -> bool:
    """Whether the held-out images, or the likelihood of them, are others at another value of the axis."""
    field = FIELD_OF.get(axis.name, axis.name)
    if field not in ranking.IMAGES:
        return False
    values = [ranking.as_held_out(field, value) for value in axis.values] if isinstance(axis, Axis) else []
    return not values or any(value != values[0] for value in values)


def corners(space: SearchSpace) -> list[dict[str, Any]]:
    """Points at which every end of each axis is tried; of a list, every value. All else is at the first value."""
    ends = {axis.name: axis.values if isinstance(axis, Axis) else [axis.low, axis.high] for axis in space}
    first = {name: values[0] for name, values in ends.items()}
    return [first, *({**first, name: value} for name, values in ends.items() for value in values[1:])]


def programs(space: SearchSpace, at_corners: Sequence[Any]) -> dict[str, int]:
    """How many programs each axis spans that spans more than one; `at_corners` tells those at `corners` apart."""
    first, rest, found = at_corners[0], iter(at_corners[1:]), {}
    for axis in space:
        if isinstance(axis, Axis):
            found[axis.name] = len({first, *(next(rest) for _ in axis.values[1:])})
        else:
            found[axis.name] = 1 if next(rest) == first else 1 + int((axis.high - axis.low) // (axis.step or 1))
    return {name: count for name, count in found.items() if count > 1}


def changes_of_bound(runs: Mapping[str, Config]) -> list[str]:
    """The fields that change what the bound means among the runs at the corners; the ELBO compares trials then."""
    return [field for one in ranking.rankings(runs) for field in one.changing]


def metric_of(changing: Sequence[str], asked: str | None) -> str:
    """The value of a trial: "bound", or "elbo" if fields that are `changing` change what the bound means.

    Raises ConfigurationError if the bound is `asked` for, but does not compare.
    """
    if changing and asked == "bound":
        raise ConfigurationError(
            f"`metric=bound` compares what is not comparable: {ranking.reason(changing[:1])}; use `metric=elbo`"
        )
    return "elbo" if changing else asked or "bound"


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The axes as Optuna's distributions; a list is of the texts of its values."""
    from optuna import distributions as kinds

    found: dict[str, BaseDistribution] = {}
    for axis in space:
        if isinstance(axis, Axis):
            found[axis.name] = kinds.CategoricalDistribution(axis.texts)
        elif axis.step is not None:
            found[axis.name] = kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=axis.step)
        else:
            found[axis.name] = kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def point_of(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the axes at a trial's parameters."""
    lists = {axis.name: dict(zip(axis.texts, axis.values, strict=True)) for axis in space if isinstance(axis, Axis)}
    return {name: lists[name][value] if name in lists else value for name, value in params.items()}
