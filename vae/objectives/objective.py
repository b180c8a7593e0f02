"""What an objective is. Shapes: B batch."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from vae.settings import Hyperparameters, Settings

FIELDS = {*Hyperparameters._fields, *(field.name for field in dataclasses.fields(Settings))}


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
