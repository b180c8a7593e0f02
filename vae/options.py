"""What a run can be asked for: options, and tables of choices whose rows declare the options that they read.

Of each option follow a flag of the scripts, a keyword of the library, and a field of `Settings` or `Hyperparameters`.
A row carries all that is true of a choice except its equation. Imports neither jax nor numpy, so that a script's
`--helpshort` is instant; a row names its function as "module:name", which is imported when it is used.
"""

from __future__ import annotations

import dataclasses
import functools
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vae.rules import LARGEST, Choice, Number, NumberOr, Numbers, Rule, Switch, Text

SAME = object()  # in place of a value: the default


class Row:
    """A choice: its function, the options that it reads (`alpha=number(…)`), and its facts (`can_score=False`).

    The facts that a kind of rows has are the attributes of its class, with the values that most rows have.
    """

    def __init__(self, path: str = "", **about: Any):
        self.path = path
        self.options: dict[str, Option] = {name: one for name, one in about.items() if isinstance(one, Option)}
        for name, value in about.items():
            if name not in self.options:
                if not hasattr(type(self), name):
                    raise TypeError(f"{type(self).__name__} has no fact {name!r}")
                setattr(self, name, value)

    @property
    def function(self) -> Any:
        """What `path` names."""
        return load(self.path)

    @functools.cached_property
    def fields(self) -> list[str]:
        """The fields of `Settings` and `Hyperparameters` that the choice reads."""
        return [option.field_name(name) for name, option in flattened(self.options).items()]


class Opened(Row):
    """The options that have an effect if a number is above 0."""

    otherwise: str = ""  # what 0 means, in words
    example: int = 1  # a number that opens them


@dataclasses.dataclass(frozen=True, eq=False)
class Option:
    """A value that a run can be asked for. The functions below make them, one for each kind."""

    default: Any  # None: it follows from other options (configuration.py)
    help: str
    rule: Rule
    static: bool = True  # it shapes the program: a field of Settings; otherwise of Hyperparameters, an array
    rows: Mapping[str, Row] = dataclasses.field(default_factory=dict)  # of a choice: what each of its values is
    above_zero: Opened | None = None  # of a number: the row that has an effect if it is above 0
    in_epochs: bool = False  # named x_epochs, of the field x_steps: the data set says how many steps an epoch has
    since: int = 1  # the format of config.json that came with its field: for a new one, that of today plus 1
    before: Any = SAME  # what a file of an older format means by not having its field
    field: str | None = None  # its field if that has another name
    field_rule: Rule | None = None  # what its field may be if that differs
    unset: Any = SAME  # its field's value in `Settings()`, and if it has a default, while no chosen row reads it

    def row(self, value: Any) -> Row | None:
        """What `value` is: the row whose options have an effect with it."""
        if self.above_zero is not None:
            return self.above_zero if value else None
        return self.rows.get(value) if isinstance(value, str) else None

    def all_rows(self) -> dict[str, Row]:
        """Every row, by a value that chooses it."""
        return {str(self.above_zero.example): self.above_zero} if self.above_zero else dict(self.rows)

    def field_name(self, name: str) -> str:
        """The field that the option `name` sets."""
        return self.field or (name.removesuffix("_epochs") + "_steps" if self.in_epochs else name)


class Field(NamedTuple):
    """A field of `Settings` or `Hyperparameters`, and the option that sets it, None if several do."""

    default: Any
    rule: Rule
    static: bool = True
    since: int = 1
    before: Any = None
    option: str | None = None


def field_of(name: str, option: Option) -> Field:
    """The field that the option `name` sets."""
    default = option.unset if option.unset is not SAME else 0 if option.in_epochs else option.default
    rule = option.field_rule or option.rule
    if isinstance(rule, Number) and not option.static:
        default, rule = float(default), rule._replace(integer=False)
    if isinstance(rule, Numbers) and default == ():
        rule = rule._replace(may_be_empty=True)
    before = default if option.before is SAME else option.before
    return Field(default, rule, option.static, option.since, before, name)


def number(default: float | None, help: str, *, static: bool = False, **about: Any) -> Option:
    """A finite number within bounds: `above`, `least`, `below`, `most`. An array unless it is static."""
    bounds = {name: about.pop(name) for name in ("above", "least", "below", "most") if name in about}
    return Option(default, help, Number(**bounds), static=static, **about)


def whole(default: int | None, help: str, *, least: int = 1, most: int = LARGEST, **about: Any) -> Option:
    """A whole number."""
    return Option(default, help, Number(integer=True, least=least, most=most), **about)


def choice(default: str | None, values: Mapping[str, Row] | Sequence[str], help: str, **about: Any) -> Option:
    """One of some names; those of a table have rows."""
    rows = values if isinstance(values, Mapping) else {}
    return Option(default, help, Choice(tuple(values)), rows=rows, **about)


def number_or(default: str, names: Sequence[str], help: str, **about: Any) -> Option:
    """A positive number, or one of some names."""
    return Option(default, help, NumberOr(Number(above=0), tuple(names)), **about)


def sizes(default: Sequence[int], help: str, *, may_be_empty: bool = False, **about: Any) -> Option:
    """A list of whole numbers, each at least 1."""
    of = Number(integer=True, least=1, most=LARGEST)
    return Option(tuple(default), help, Numbers(of, may_be_empty=may_be_empty), **about)


def numbers(default: Sequence[int | float], help: str, **about: Any) -> Option:
    """A list of positive numbers."""
    return Option(tuple(default), help, Numbers(Number(above=0)), **about)


def switch(help: str, **about: Any) -> Option:
    """On or off; off unless it is asked for."""
    return Option(False, help, Switch(), **about)


def text(default: str | None, help: str) -> Option:
    """Any text."""
    return Option(default, help, Text())


@functools.cache
def load(path: str) -> Any:
    """What "module:name" names."""
    return pkgutil.resolve_name(path)


def flattened(options: Mapping[str, Option]) -> dict[str, Option]:
    """`options`, and after each of them those of its rows. An option that several rows read is one object."""
    found: dict[str, Option] = {}
    for name, option in options.items():
        below = [flattened(row.options) for row in option.all_rows().values()]
        for other, one in [(name, option), *(pair for options in below for pair in options.items())]:
            if found.setdefault(other, one) is not one:
                raise TypeError(f"the option {other} is declared twice; declare it once, and name it in each row")
    return found


def read(options: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Option]:
    """Those of `options` and of their rows that have an effect with `values`, which hold every choice."""
    found = dict(options)
    for name, option in options.items():
        if option.all_rows() and (row := option.row(values[name])) is not None:
            found |= read(row.options, values)
    return found


class Unread(NamedTuple):
    """A choice that gives an option no effect, in words, and the choices that would."""

    chosen: str
    instead: str


def unread_because(name: str, options: Mapping[str, Option], values: Mapping[str, Any]) -> list[Unread]:
    """Why the option `name` has no effect with `values`: each choice of which another value would read it."""
    found = []
    for decider, option in options.items():
        readers = {value: row for value, row in option.all_rows().items() if name in flattened(row.options)}
        if not readers:
            continue
        row = option.row(values[decider])
        if row is not None and row in readers.values():
            found += unread_because(name, row.options, values)
        else:
            chosen = option.above_zero.otherwise if option.above_zero else f"`{decider}={values[decider]}`"
            found.append(Unread(chosen, f"`{decider}={either(list(readers))}`"))
    return found


def either(names: Sequence[str]) -> str:
    """a, b or c."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
