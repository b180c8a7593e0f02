"""The axes of a sweep: --sweep=name=values, where `name` is a flag of experiments.train, and the points they span.

seed=0:8                      whole numbers from 0 to 7; 0:100:10 in steps of 10
learning_rate=log:1e-4:1e-2:5 five numbers from 1e-4 to 1e-2 at equal ratios, linear: at equal distances (six digits)
objective=elbo,iwae           a list; if a value is itself a list, as in hidden_sizes=200,200/400, values part at /

With --search an axis may also be a range, from which values are drawn:

learning_rate=log:1e-4:1e-2   numbers whose logarithm is even, linear: even numbers; of whole numbers both ends count
latent_dim=2:51               whole numbers from 2 to 50; 2:51:4 in steps of 4
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from experiments.flags.options import AXES
from experiments.flags.parsing import UsageError, flag_value
from vae.configuration import NAMES
from vae.rules import Number, Numbers, as_float32, unknown
from vae.sweeps.space import Axis, Range

MOST_RUNS = 10_000


def parse(specifications: Sequence[str], given: Collection[str] = ()) -> list[Axis]:
    """The axes of the --sweep flags beside the flags `given`; raises UsageError with one line for a mistake."""
    return _checked([_axis(text) for text in specifications], given)


def parse_space(specifications: Sequence[str], given: Collection[str] = ()) -> list[Axis | Range]:
    """The axes of a search: ranges, or lists of values. Raises UsageError as `parse`."""
    return _checked([_interval(text) or _axis(text) for text in specifications], given)


def _checked(axes: list, given: Collection[str]) -> list:
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--sweep={name} is given {names.count(name)} times; list all values in one")
        if name in given:
            raise UsageError(f"--{name} has no effect with --sweep={name}=…; leave one of them out")
    return axes


def points(axes: Sequence[Axis], *, zipped: bool, subset: int | None) -> list[dict[str, Any]]:
    """{flag: value} of every run: the grid, a fixed random `subset` of it, or the axes side by side."""
    lengths = {axis.name: len(axis.values) for axis in axes}
    if zipped:
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UsageError(f"--zip pairs values, so each --sweep needs as many of them: {shown}")
        if subset is not None:
            raise UsageError("--random has no effect with --zip; leave one of them out")
        return [dict(zip(lengths, values, strict=True)) for values in zip(*(a.values for a in axes), strict=True)]
    count = math.prod(lengths.values())
    if subset is not None and subset >= count:
        raise UsageError(f"--random={subset} has no effect: the grid has {count} runs")
    if (subset or count) > MOST_RUNS:
        raise UsageError(f"these are {subset or count} runs, more than {MOST_RUNS}; draw some of them with --random=N")
    chosen = range(count) if subset is None else sorted(random.Random(0).sample(range(count), subset))
    return [dict(_grid_point(axes, position)) for position in chosen]


def _grid_point(axes: Sequence[Axis], position: int) -> Iterator[tuple[str, Any]]:
    """The position-th point of the grid; the first axis varies slowest."""
    stride = math.prod(len(axis.values) for axis in axes)
    for axis in axes:
        stride //= len(axis.values)
        yield axis.name, axis.values[position // stride % len(axis.values)]


def _axis(text: str) -> Axis:
    name, values = _split(text)
    texts = _texts(name, values)
    parsed = [_value(text, name, value) for value in texts]
    used = list(map(as_used, parsed))
    for value, shown in zip(used, texts, strict=True):
        if used.count(value) > 1:
            raise UsageError(f"--sweep={text} has the value {shown} twice")
    return Axis(name, texts, parsed)


def as_used(value: Any) -> Any:
    """`value` as it is computed with: numbers in float32."""
    if isinstance(value, list | tuple):
        return tuple(map(as_used, value))
    return as_float32(value) if isinstance(value, float) else value


def _split(text: str) -> tuple[str, str]:
    """The flag's name and what is to be tried of it."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(f"--sweep={text} is no axis; write --sweep=name=values, as in --sweep=seed=0:8")
    if name not in AXES:
        raise UsageError(f"--sweep={text}: {unknown('training flag', name, AXES)}")
    return name, values


def _value(text: str, name: str, value: str) -> Any:
    try:
        return flag_value(name, value)
    except UsageError as error:
        raise UsageError(f"--sweep={text}: {value!r}: {error}") from error


def _interval(text: str) -> Range | None:
    """The range that an axis is; None if it lists its values."""
    name, values = _split(text)
    rule, (kind, *ends) = NAMES[name].rule, values.split(":")
    whole = isinstance(rule, Number) and rule.integer
    if whole and ends and kind not in ("log", "linear"):
        found = _range(name, values)
        low, high, step = min(found[0], found[-1]), max(found[0], found[-1]), abs(found.step)
        return Range(name, _value(text, name, str(low)), _value(text, name, str(high)), step=step)
    if kind not in ("log", "linear") or len(ends) != 2 or not isinstance(rule, Number):
        return None
    low, high = (_value(text, name, end) for end in ends)
    if low >= high or (kind == "log" and low <= 0):
        positive = " positive" if kind == "log" else ""
        raise UsageError(f"--sweep={text}: write {kind}:low:high with{positive} numbers, the lower one first")
    return Range(name, low, high, kind == "log", 1 if whole else None)


def _texts(name: str, values: str) -> list[str]:
    rule = NAMES[name].rule
    whole = isinstance(rule, Number) and rule.integer
    kind, _, rest = values.partition(":")
    if kind in ("log", "linear") and isinstance(rule, Number):
        return [f"{value:.0f}" if whole else f"{value:.6g}" for value in _spaced(name, kind, rest)]
    if whole and ":" in values:
        return [str(value) for value in _range(name, values)]
    return values.split("/" if isinstance(rule, Numbers) else ",")


def _range(name: str, values: str) -> range:
    try:
        first, end, *step = map(int, values.split(":"))
        found = range(first, end, *step)
    except (TypeError, ValueError):
        found = range(0)
    if not 0 < len(found) <= MOST_RUNS:
        raise UsageError(
            f"--sweep={name}={values}: a range is first:end or first:end:step in whole numbers, without its end, "
            f"as in 0:8, of at most {MOST_RUNS} values"
        )
    return found


def _spaced(name: str, kind: str, rest: str) -> list[float]:
    try:
        low, high, count = rest.split(":")
        low, high, count = float(low), float(high), int(count)
        if not (2 <= count <= MOST_RUNS and math.isfinite(low) and math.isfinite(high)):
            raise ValueError
        steps = [i / (count - 1) for i in range(count)]
        if kind == "linear":
            return [low + step * (high - low) for step in steps]
        return [math.exp((1 - step) * math.log(low) + step * math.log(high)) for step in steps]
    except ValueError:
        positive = " positive" if kind == "log" else ""
        raise UsageError(
            f"--sweep={name}={kind}:{rest}: write {kind}:first:last:count with finite{positive} numbers and a count "
            f"from 2 to {MOST_RUNS}, as in {kind}:1e-4:1e-2:5"
        ) from None
