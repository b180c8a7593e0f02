"""Cases of a parametrised test that only `pytest -m soak` runs."""

from collections.abc import Iterable
from typing import Any

import pytest


def soaked(cases: Iterable[Any], *chosen: Any) -> list[Any]:
    """`cases`, of which the `chosen` ones are marked "soak"."""
    return [pytest.param(case, marks=pytest.mark.soak) if case in chosen else case for case in cases]
