"""What a row of the tables of objectives says: the kinds of rows, and the reasons of refusals.

Imports neither jax nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae.options import Row

DISTANT = ("stl", "dreg", "gdreg", "score", "ovis", "covariance")  # all estimators except reparameterized
NOT_SMOOTH = dict.fromkeys(
    ("dreg", "gdreg"),
    "it needs the second derivative of a maximum, which is a pulse at ties; use reparameterized, stl or score",
)
HELD_PRIOR = "the encoder's bound, for which the estimator is, holds the prior; use dreg"
NO_LOG_WEIGHTS = "its value is no function of log-weights; use the objective elbo_mc, or reparameterized"
OWN_GRADIENT = "reweighted wake-sleep is a gradient of its own; use reparameterized, or dreg for its wake phase of q"


class EstimatorRow(Row):
    """`path` is a function as those of estimators.py."""

    needs_density: bool = False  # of q at a given z
    redraws_prior: bool = False  # it moves samples with the prior's parameters
    least_samples: int = 1
    only: tuple[str, ...] = ()  # the bounds that it is made for; all if there are none
    more_samples: str = ""  # the option that says how many it draws besides those of the bound


class ObjectiveRow(Row):
    """What is true of an objective except its equation."""

    builder: str = ""  # the function of the settings that returns the Objective
    refuses: Mapping[str, str] = {}
    needs_density: bool = False  # of q at a given z, whatever the estimator
    needs_closed_form_kl: bool = False  # for its value to mean something; what cannot be computed says so itself
    of_batch: bool = False  # its bound of an example depends on the others in the batch: no gradient in slices
    least_batch: int = 1  # images that it compares with each other
    least_samples: int = 1
    leaves_out: int = 0  # samples that its terms leave out: it needs more than these
    of_sizes: bool = False  # its value depends on the sizes of the batch and of z, whose runs compare by the ELBO
    of_one_sample: bool = False  # of one sample, K·M = 1, it is log w
    same_as: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # the simpler objective that it is with these values
    holds: tuple[str, str, str] | None = (
        None  # a metric, the option with its wanted value, and the metric of the weight
    )

    @property
    def grouped(self) -> bool:
        """Whether its log-weights are [M, K, B]."""
        return "num_groups" in self.options


class Bound(ObjectiveRow):
    """A function `path(log_w, **options)` of bounds.py: [K, B] → [B], to be maximised."""

    builder = "vae.objectives.log_weights:from_log_weights"


class Regularizer(ObjectiveRow):
    """reconstruction − Σ weight · term, with the terms of a function `path(latents, **options)`."""

    builder = "vae.objectives.regularized:regularized"
    refuses = dict.fromkeys(DISTANT, NO_LOG_WEIGHTS)
    of_batch = True  # unless the row says that its terms are functions of one example
    draws: bool = False  # it takes a `key`
    scheduled: tuple[str, ...] = ()  # the terms whose weights `weight_schedule` multiplies, if it reads that


class Baseline(Row):
    """A control variate of the score-function estimator."""

    leaves_out: int = 0  # samples that the bound is without in it
