"""What is maximised: a bound on log p(x) and how its gradient is taken. Nats, per example.

The sign, the mean over the batch and the optimiser are the training step's. table.py holds all that can be trained:
`BOUNDS` on log-weights alone, `REGULARIZERS`, which are a reconstruction minus weighted terms, and `OBJECTIVES`, both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vae.objectives.table import BOUNDS, OBJECTIVES, REFUSED, REGULARIZERS

if TYPE_CHECKING:
    from vae.objectives.checks import check as check
    from vae.objectives.objective import Objective as Objective
    from vae.objectives.objective import ObjectiveError as ObjectiveError
    from vae.objectives.objective import build as build
    from vae.objectives.objective import num_drawn as num_drawn
    from vae.objectives.special_cases import remarks as remarks
    from vae.objectives.special_cases import simplest as simplest

__all__ = [
    "BOUNDS",
    "OBJECTIVES",
    "REFUSED",
    "REGULARIZERS",
    "Objective",
    "ObjectiveError",
    "build",
    "check",
    "num_drawn",
    "remarks",
    "simplest",
]

HOMES = {
    "check": "checks",
    **dict.fromkeys(("Objective", "ObjectiveError", "build", "num_drawn"), "objective"),
    **dict.fromkeys(("remarks", "simplest"), "special_cases"),
}


def __getattr__(name: str) -> Any:
    # Lazily: the tables must not wait for jax.
    if name in HOMES:
        return getattr(importlib.import_module(f"vae.objectives.{HOMES[name]}"), name)
    raise AttributeError(f"module 'vae.objectives' has no attribute {name!r}")
