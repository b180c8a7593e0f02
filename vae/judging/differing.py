"""In which settings do compared runs differ, and which do they share?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vae.objectives.table import ESTIMATORS, REFUSED
from vae.options import flattened, read
from vae.report.words import NOT_READ
from vae.runs import naming
from vae.settings import DERIVED, PROGRAM


def idle(values: Mapping[str, Any]) -> set[str]:
    """The settings that say nothing of a run with these `values`: unread, or without an alternative."""
    fields = {name: option.field_name(name) for name, option in flattened(PROGRAM).items()}
    effective = read(PROGRAM, values)
    unread = {field for name, field in fields.items() if name not in effective}
    has_one_estimator = all((values["objective"], name) in REFUSED for name in ESTIMATORS if name != "reparameterized")
    return unread | {"estimator"} if has_one_estimator else unread


def parted(runs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The settings of `runs`, as texts: those that all share, and of those in which they differ a text for each run.

    What a run does not read is NOT_READ; what none of them reads or gives is in neither. Seeds tell no runs apart.
    """
    idle_of = [idle(values) for values in runs]
    shared, differing = {}, {}
    for name in runs[0]:
        if name == "seed" or name in DERIVED:
            continue
        texts = [
            NOT_READ if name in unread or values[name] in (None, ()) else naming.text(values[name])
            for values, unread in zip(runs, idle_of, strict=True)
        ]
        if len(set(texts)) > 1:
            differing[name] = texts
        elif texts[0] != NOT_READ:
            shared[name] = texts[0]
    return shared, differing
