"""When does training end early? With `patience`, once the validation bound has not exceeded its best for so long.

A bound that equals the best one is no better: the best is the first of equals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def ranked(scores: Mapping[int, float | None]) -> list[int]:
    """The steps that have a score, from the highest on."""
    return [step for _, step in sorted((-value, step) for step, value in scores.items() if value is not None)]


def has_waited(best: int, last: int, wait: int) -> bool:
    """Whether training ends after step `last`, since the best bound is `wait` steps old; 0: it never does."""
    return 0 < wait <= last - best


def first_end(bounds: Mapping[int, float], wait: int) -> int | None:
    """The first of the steps after which training ends, by the validation bound of each; None if it does not."""
    best, highest = 0, -math.inf
    for step in sorted(bounds):
        if bounds[step] > highest:
            best, highest = step, bounds[step]
        elif has_waited(best, step, wait):
            return step
    return None
