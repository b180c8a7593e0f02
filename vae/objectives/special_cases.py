"""What is true of an objective with these numbers and easily missed: lines for the user, and never a reason to stop."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from vae.objectives.table import OBJECTIVES
from vae.settings import Hyperparameters, Settings

NAMES = {"elbo": "the ELBO", "elbo_mc": "the ELBO", "iwae": "the IWAE bound"}


class Same(NamedTuple):
    """`because` of its settings an objective is another one, of the name `objective`."""

    objective: str
    because: str


def same_as(settings: Settings, numbers: Hyperparameters) -> Same | None:
    """The simpler objective that this one is with its settings, bound and gradient; None if it is one of its own."""
    row = OBJECTIVES.get(settings.objective)
    if row is None:
        return None
    if row.of_one_sample and settings.num_samples * settings.num_groups == 1:
        return Same("elbo_mc", "num_samples=1")
    for other, values in () if settings.weight_schedule != "constant" else row.same_as:
        if all(getattr(numbers, field, getattr(settings, field, None)) == value for field, value in values.items()):
            return Same(other, ", ".join(f"{field}={value}" for field, value in values.items()))
    return None


def simplest(settings: Settings, numbers: Hyperparameters) -> Settings:
    """`settings` with the simpler objective that theirs is: those of two runs that train on the same bound are equal.

    The M·K samples of a grouped bound are K samples of one that is not.
    """
    same = same_as(settings, numbers)
    if same is None:
        return settings
    samples = settings.num_samples * settings.num_groups
    return dataclasses.replace(settings, objective=same.objective, num_samples=samples, num_groups=1)


def remarks(settings: Settings, numbers: Hyperparameters) -> list[str]:
    """One line each: what a run with these settings and numbers is, if its name says otherwise."""
    found, name = [], settings.objective
    if same := same_as(settings, numbers):
        remedy = "; a tighter bound takes more samples, as `num_samples=50`" if same.because == "num_samples=1" else ""
        found.append(f"{name} with {same.because} is {NAMES[same.objective]}{remedy}")
    elif name == "info" and numbers.info_alpha <= 0:
        found.append(
            f"info with info_alpha={numbers.info_alpha:g} values mutual information no more than the ELBO does; "
            "`info_alpha=1` leaves it free, as the MMD-VAE of the paper"
        )
    if name == "beta_tcvae" and settings.prior != "standard":
        found.append(
            f"the prior {settings.prior} does not factorise over dimensions, so dimension_wise_kl is no sum of KLs: it "
            "is the mean of log Π_j q(z_j) − log p(z), and may be negative"
        )
    return found
