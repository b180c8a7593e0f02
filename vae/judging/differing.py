"""In which settings do compared runs differ, and which do they share?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vae.objectives.table import ESTIMATORS, REFUSED
from vae.options import flattened, read
from vae.report.words import NOT_READ
from vae.runs import naming
from vae.settings import DERIVED, FIELDS, PROGRAM


def idle(values: Mapping[str, Any]) -> set[str]:
    """The settings that say nothing of a run with these `values`: unread, or without an alternative."""
    fields = {name: option.field_name(name) for name, option in flattened(PROGRAM).items()}
    effective = read(PROGRAM, values)
    unread = {field for name, field in fields.items() if name not in effective}
    has_one_estimator = all((values["objective"], name) in REFUSED for name in ESTIMATORS if name != "reparameterized")
    return unread | {"estimator"} if has_one_estimator else unread


def asked(field: str, value: Any) -> Any:
    """The value of a setting as a user writes it: a name that is an option's default has none in the field."""
    option = FIELDS[field].option if value is None and field in FIELDS else None
    return value if option is None else flattened(PROGRAM)[option].default


def parted(runs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The settings of `runs`, as texts: those that all share, and of those in which they differ a text for each run.

    What a run does not read or give is NOT_READ; what none of them reads or gives is in neither. Seeds tell no runs
    apart.
    """
    idle_of = [idle(values) for values in runs]
    shared, differing = {}, {}
    for name in runs[0]:
        if name == "seed" or name in DERIVED:
            continue
        values = [asked(name, one[name]) for one in runs]
        texts = [
            NOT_READ if name in unread or value in (None, ()) else naming.text(value)
            for value, unread in zip(values, idle_of, strict=True)
        ]
        if len(set(texts)) > 1:
            differing[name] = texts
        elif texts[0] != NOT_READ:
            shared[name] = texts[0]
    return shared, differing
