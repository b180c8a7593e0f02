"""Kinds of flags that are checked when they are parsed, with one line for a mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from absl import flags

from vae import hosts
from vae.rules import Number, as_float32

flags.disclaim_key_flags()  # they are the script's that defines them: --helpshort lists those


@hosts.shared
class UsageError(ValueError):
    """Flags that do not go together; one line for the user."""


def number(name: str, default: Any, help: str, *, integer: bool = False, **bounds: int | float | None) -> None:
    """A whole number, or a finite float32, within `bounds` (see `rules.Number`); absl's own bounds let NaN through."""
    rule = Number(integer, **bounds)

    def check(value):
        if value is not None and (reason := rule.fault(value)):
            raise flags.ValidationError(reason)
        return True

    define = flags.DEFINE_integer if integer else flags.DEFINE_float
    define(name, default, f"{help} ({rule.bounds})" if rule.bounds else help)
    flags.register_validator(name, check)


def numbers(name: str, default: list[str], help: str, *, integer: bool = False, may_be_empty: bool = False) -> None:
    """A comma-separated list of positive numbers."""
    flags.DEFINE_list(name, default, help)

    def check(values):
        try:
            positive = all(0 < (int(value) if integer else as_float32(float(value))) < math.inf for value in values)
        except ValueError:
            positive = False
        if positive and (values or may_be_empty):
            return True
        kind = "whole numbers" if integer else "numbers"
        raise flags.ValidationError(f"must be positive {kind} separated by commas, got {','.join(values)!r}")

    flags.register_validator(name, check)


class _Choice(flags.EnumParser):
    def __init__(self, name: str, values: Iterable[str]):
        super().__init__(values)
        self._name = name

    def parse(self, argument: str) -> str:
        if argument not in self.enum_values:
            raise ValueError(unknown(self._name, argument, list(self.enum_values)))
        return argument


def choice(name: str, default: str | None, values: Iterable[str], help: str) -> None:
    """One of `values`; an error names the closest."""
    parser = _Choice(name, values)
    flags.DEFINE(parser, name, default, f"<{'|'.join(values)}>: {help}", serializer=flags.ArgumentSerializer())


def choices(name: str, values: Iterable[str], help: str) -> None:
    """Some of `values`, separated by commas; none by default."""
    flags.DEFINE_list(name, [], f"<{','.join(values)}>: {help}")

    def check(chosen):
        for value in chosen:
            if value not in values:
                raise flags.ValidationError(unknown(name, value, list(values)))
        return True

    flags.register_validator(name, check)


def indices(name: str, default: str | None, help: str, count: int | None = None) -> None:
    """A comma-separated list of positions in a data set, from 0."""
    flags.DEFINE_list(name, default, help)

    def check(values):
        if values is None:
            return True
        if all(value.strip().isdecimal() for value in values) and len(values) == (count or max(1, len(values))):
            return True
        wanted = f"{count} whole numbers" if count else "whole numbers"
        raise flags.ValidationError(f"must be {wanted} from 0, separated by commas, got {','.join(values)!r}")

    flags.register_validator(name, check)


def flag_value(name: str, text: str) -> Any:
    """The value of a flag written as `text`, after its own parser and validators; the flag keeps the value it has.

    Raises UsageError with the reason alone.
    """
    flag = flags.FLAGS[name]
    before = flag.value
    try:
        value = flag.parser.parse(text)
        setattr(flags.FLAGS, name, value)
        return value
    except (ValueError, TypeError, flags.Error) as error:
        raise UsageError(" ".join(re.sub(rf"^flag --{name}=.*?: ", "", str(error)).split())) from error
    finally:
        flag.value = before


def unknown(what: str, name: str, known: list[str]) -> str:
    """One line for a misspelt name."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return (
        f"unknown {what} {name!r}"
        + (f"; did you mean {close[0]!r}?" if close else ".")
        + f" One of: {', '.join(known)}"
    )
