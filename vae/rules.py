"""What a value may be: a number within bounds, one of some names, a list. Imports neither jax nor numpy.

`rule.fault(value)` says in words what a value must be, and is None for one that is allowed.
"""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

LARGEST = 10**12  # of whole numbers


@runtime_checkable
class Rule(Protocol):
    """What a value may be."""

    def fault(self, value: Any) -> str | None: ...


class Number(NamedTuple):
    """A finite float32, or a whole number, within bounds."""

    integer: bool = False
    above: int | float | None = None
    least: int | float | None = None
    below: int | float | None = None
    most: int | float | None = None

    @property
    def bounds(self) -> str:
        """In words; empty if there are none."""
        limits = [("above", self.above), ("at least", self.least), ("below", self.below), ("at most", self.most)]
        return " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)

    def fault(self, value: Any) -> str | None:
        kinds = int if self.integer else int | float
        if isinstance(value, kinds) and not isinstance(value, bool) and self._holds(value):
            return None
        return f"must be a {'whole' if self.integer else 'finite float32'} number {self.bounds}".rstrip()

    def _holds(self, value: int | float) -> bool:
        used = value if self.integer else as_float32(value)
        bounds = (
            (operator.gt, self.above),
            (operator.ge, self.least),
            (operator.lt, self.below),
            (operator.le, self.most),
        )
        return (self.integer or math.isfinite(used)) and all(
            holds(used, limit) for holds, limit in bounds if limit is not None
        )


class Numbers(NamedTuple):
    """A list of numbers, of any length unless `length` says which."""

    of: Number
    length: int | None = None
    may_be_empty: bool = False

    def fault(self, value: Any) -> str | None:
        if not isinstance(value, list | tuple):
            return "must be a list of numbers"
        if self.length is not None and len(value) != self.length:
            return f"must be {self.length} numbers"
        if not value and not self.may_be_empty and self.length is None:
            return "must not be empty"
        return next((f"{reason} each" for one in value if (reason := self.of.fault(one))), None)


class Choice(NamedTuple):
    """One of some names."""

    names: Sequence[str]

    def fault(self, value: Any) -> str | None:
        return None if isinstance(value, str) and value in self.names else f"must be one of: {', '.join(self.names)}"


class NumberOr(NamedTuple):
    """One of some names, or a number, which may be written as text."""

    number: Number
    names: Sequence[str]

    def fault(self, value: Any) -> str | None:
        if value in self.names:
            return None
        try:
            used = float(value)
        except (TypeError, ValueError, OverflowError):
            used = math.nan
        named = ", ".join(map(repr, self.names))
        return self.number.fault(used) and f"must be {named} or a positive number"


class Switch(NamedTuple):
    """True or false."""

    def fault(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else "must be true or false"


class Text(NamedTuple):
    """Any text except the empty one."""

    def fault(self, value: Any) -> str | None:
        return None if isinstance(value, str) and value else "must be a text"


class Named(NamedTuple):
    """Values by their names."""

    def fault(self, value: Any) -> str | None:
        return None if isinstance(value, dict) else "must be named values in braces"


class Nullable(NamedTuple):
    """Nothing, or what one of `rules` allows."""

    rules: tuple[Rule, ...]

    def fault(self, value: Any) -> str | None:
        faults = [rule.fault(value) for rule in self.rules]
        return (
            None
            if value is None or None in faults
            else " or ".join(["must be null", *(str(reason).removeprefix("must ") for reason in faults)])
        )


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """One line for a misspelt name."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return (
        f"unknown {what} {name!r}"
        + (f"; did you mean {close[0]!r}?" if close else ".")
        + f" One of: {', '.join(known)}"
    )


def as_float32(value: int | float) -> float:
    """`value` as it is computed with: 1e300 is infinite, and 1e-60 is 0."""
    try:
        return ctypes.c_float(value).value
    except OverflowError:  # a whole number beyond float64
        return math.inf
