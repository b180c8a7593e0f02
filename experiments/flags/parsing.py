"""Kinds of flags that are checked when they are parsed, with one line for a mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import flags

from vae import hosts
from vae.options import Option, flattened
from vae.rules import LARGEST, Choice, Number, Numbers, Rule, Switch, Text, unknown

MOST = 10**9  # of what a script counts, unless its flag says otherwise
flags.disclaim_key_flags()  # they are the script's that defines them: --helpshort lists those


@hosts.shared
class UsageError(ValueError):
    """Flags that do not go together; one line for the user, with names as --num_samples or as `num_samples`."""


def define(options: Mapping[str, Option]) -> None:
    """A flag for each of `options` and of those that their rows read."""
    for name, option in flattened(options).items():
        rule, default, help = option.rule, option.default, with_dashes(option.help)
        if isinstance(rule, Number):
            _number(name, default, help, rule)
        elif isinstance(rule, Numbers):
            _numbers(name, list(map(str, default)), help, rule)
        elif isinstance(rule, Choice):
            choice(name, default, rule.names, help)
        elif isinstance(rule, Switch):
            flags.DEFINE_bool(name, default, help)
        else:
            flags.DEFINE_string(name, default, help)
            if not isinstance(rule, Text):
                flags.register_validator(name, _checker(rule))


def with_dashes(text: str) -> str:
    """`text` of the library as a user of flags knows the names in it: `seed=1` as --seed=1."""
    return re.sub(r"`([a-z]\w*(?:=[^`]*)?)`", r"--\1", text)


def number(name: str, default: Any, help: str, *, integer: bool = False, **bounds: int | float | None) -> None:
    """A whole number of at most MOST, or a finite float32, within `bounds` (see `rules.Number`).

    absl's own bounds let NaN through.
    """
    most = bounds.pop("most", MOST if integer else None)
    _number(name, default, help, Number(integer, most=most, **bounds))


class _NumberParser(flags.ArgumentParser):
    """absl's own for its kind of number; of a text that is none, the error says what the flag wants."""

    def __init__(self, rule: Number):
        self._rule = rule
        self._parser = flags.IntegerParser() if rule.integer else flags.FloatParser()
        self.syntactic_help = self._parser.syntactic_help

    def parse(self, argument: Any) -> int | float:
        try:
            return self._parser.parse(argument)
        except ValueError as error:
            raise ValueError(self._rule.fault(argument)) from error

    def flag_type(self) -> str:
        return self._parser.flag_type()


def _number(name: str, default: Any, help: str, rule: Number) -> None:
    bounds = rule._replace(most=None if rule.most in (LARGEST, MOST) else rule.most).bounds
    shown = f"{help} ({bounds})" if bounds else help
    flags.DEFINE(_NumberParser(rule), name, default, shown, serializer=flags.ArgumentSerializer())
    flags.register_validator(name, _checker(rule))


def _checker(rule: Rule) -> Callable[[Any], bool]:
    def check(value):
        if value is not None and (reason := rule.fault(value)):
            raise flags.ValidationError(reason)
        return True

    return check


def numbers(name: str, default: list[str], help: str, *, integer: bool = False) -> None:
    """A comma-separated list of positive numbers."""
    _numbers(name, default, help, Numbers(Number(integer, above=0, most=MOST if integer else None)))


def _numbers(name: str, default: list[str], help: str, rule: Numbers) -> None:
    flags.DEFINE_list(name, default, help)

    def check(values):
        try:
            fault = rule.fault([int(value) if rule.of.integer else float(value) for value in values])
        except ValueError:
            fault = "must be numbers"
        if fault is None:
            return True
        kind = "whole numbers" if rule.of.integer else "numbers"
        most = f", each at most {rule.of.most}" if rule.of.most else ""
        raise flags.ValidationError(f"must be positive {kind} separated by commas{most}, got {','.join(values)!r}")

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
    """The value of a flag written as `text`, after its own parser and validators; the flag itself stays as it is.

    Raises UsageError with the reason alone.
    """
    flag = flags.FLAGS[name]
    try:
        value = flag.parser.parse(text)
        for validator in flag.validators:
            validator.checker(value)
        return value
    except (ValueError, TypeError, flags.Error) as error:
        raise UsageError(" ".join(str(error).split())) from error
