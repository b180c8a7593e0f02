"""What the registry of published tables is made of. Facts only: imports neither jax nor numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from vae.options import flattened
from vae.presets import PRESETS
from vae.settings import OPTIONS

SCHEDULES = [name for name, option in flattened(OPTIONS).items() if option.in_epochs]


class Quantity(NamedTuple):
    """Which number of evaluation.json is compared, what the paper calls it, and the sign that the paper gives it."""

    name: str
    words: str
    sign: int = 1

    def of(self, value: float) -> float:
        """`value` of evaluation.json as the paper prints it."""
        return self.sign * value


NLL = Quantity("log_likelihood", "negative log-likelihood", -1)
LOG_LIKELIHOOD = Quantity("log_likelihood", "log-likelihood")
MINUS_ELBO = Quantity("elbo", "minus the ELBO", -1)


class PrintedNumber(NamedTuple):
    """A printed number, nats per image, with its error if one is printed."""

    value: float
    error: float | None = None
    quoted_by: str | None = None  # second-hand: who quotes it; None: it is the paper's own


class PublishedCell(NamedTuple):
    """A number of a table, and every setting of the run that gave it: a preset, and options that differ from it.

    `num_train` training images and `num_parameters` parameters are those of the protocol.
    """

    published: PrintedNumber | None  # None: the paper has the cell, but nobody has read its number
    preset: str | None
    settings: Mapping[str, Any]
    num_train: int
    num_parameters: int
    runs_of: str | None = None  # the cell whose runs these are, if both train the same
    needs: str | None = None  # what this version lacks to train it
    differs: tuple[str, ...] = ()  # from the paper, beside what its table says

    def values(self, fraction: Fraction = Fraction(1)) -> dict[str, Any]:
        """Every option that is set, with each stage of the schedule scaled and the epochs rounded up to whole ones.

        A patience stays as it is: it says when more epochs change nothing.
        """
        values = {**PRESETS.get(self.preset or "", {}), **self.settings}
        for name in values.keys() & set(SCHEDULES):
            value = values[name]
            several = isinstance(value, tuple)
            values[name] = tuple(float(n * fraction) for n in value) if several else float(value * fraction)
        return values | {"epochs": math.ceil(values["epochs"] * fraction)}

    def num_steps(self, fraction: Fraction = Fraction(1)) -> int:
        """Training steps of a run, at most if it has a patience; an epoch leaves out what does not fill a batch."""
        values = self.values(fraction)
        return values["epochs"] * (self.num_train // values["batch_size"])


class PublishedTable(NamedTuple):
    """A published table: its cells by name, and how it judges them."""

    paper: str
    title: str
    place: str  # of the table in the paper
    quantity: Quantity
    cells: Mapping[str, PublishedCell]
    split: str = "test"
    num_samples: int = 5000  # k
    differs: tuple[str, ...] = ()  # what ours does otherwise in all cells
