"""Which setting is best, over its seeds? The table per setting of a sweep, or of any runs that were evaluated alike.

A setting is all of a run but its seed. The best one is marked only if its lead over every other one is more than
chance, by the test of comparisons (vae/evaluation/significance.py) on the seeds that all settings have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae.evaluation import comparison
from vae.evaluation.significance import LEAST_SEEDS, LEVEL
from vae.evaluation.summary import mean_and_error
from vae.judging.groups import RunGroup

MOST_TESTED = 100  # settings; of more there are too many pairs for a difference to be found


class SettingRow(NamedTuple):
    """A setting: each number's mean over seeds, NaN if one is not finite, and its standard error, if there is one."""

    group: RunGroup
    numbers: dict[str, tuple[float, float | None]]
    best: bool  # by more than chance


class SettingTable(NamedTuple):
    """The settings, those with the highest `headline`, the name of a number, first; and what is to be said of that."""

    headline: str
    rows: list[SettingRow]
    verdict: str | None


def table(
    groups: Sequence[RunGroup],
    numbers: Mapping[str, Mapping[Path, float | None]],
    by_image: Mapping[Path, np.ndarray] | None = None,
) -> SettingTable:
    """The table of `groups`: of each number, the first of which is the headline, the value of each run folder.

    by_image: the headline of each image [N], in nats. Without it the images count as given: then a lead is more than
    chance if other seeds would have led too, on the same images. A setting is compared only if its headline is finite
    for all its seeds (see groups.WHOLE).
    """
    headline = next(iter(numbers))
    rows = [
        SettingRow(group, {name: _over_seeds(group, of) for name, of in numbers.items()}, False) for group in groups
    ]
    rows.sort(key=lambda row: np.nan_to_num(row.numbers[headline][0], nan=-np.inf), reverse=True)
    compared = [row.group for row in rows if np.isfinite(row.numbers[headline][0])]
    if len(compared) < 2:
        return SettingTable(headline, rows, None)
    reason = _not_tested(compared)
    if reason is not None:
        return SettingTable(headline, rows, f"no setting is marked: {reason}")

    def scores(folder):
        # One value for all images: twice the same has no variance between images.
        return np.full(2, numbers[headline][folder], float) if by_image is None else by_image[folder]

    stacked = np.stack([[scores(folder) for folder in group.folders.values()] for group in compared])
    pairs = comparison.rows(comparison.compare(stacked), [str(i) for i in range(len(compared))])
    leads = {int(pair["lower"]): pair for pair in pairs if pair["higher"] == "0"}
    # Of settings that agree in every seed, either may be the higher one.
    open_ = [i for i in range(1, len(compared)) if i not in leads or not leads[i]["significant"]]
    if open_:
        lead = rows[0].numbers[headline][0] - rows[open_[0]].numbers[headline][0]
        more = f", and over {len(open_) - 1} more" if len(open_) > 1 else ""
        verdict = f"no setting is marked: its lead over {compared[open_[0]].label} ({lead:.2f}){more} may be chance"
        return SettingTable(headline, rows, verdict)
    rows[0] = rows[0]._replace(best=True)
    others = "the other one" if len(compared) == 2 else f"each of the other {len(compared) - 1}"
    return SettingTable(
        headline, rows, f"it is marked (*): its lead over {others} is more than chance (p < {LEVEL:g} by Holm's method)"
    )


def _over_seeds(group: RunGroup, values: Mapping[Path, float | None]) -> tuple[float, float | None]:
    found = [values.get(folder) for folder in group.folders.values()]
    finite = [value for value in found if value is not None and math.isfinite(value)]
    return mean_and_error(np.array(finite)) if len(finite) == len(found) else (math.nan, None)


def _not_tested(groups: Sequence[RunGroup]) -> str | None:
    """Why these settings cannot be tested against each other; None if they can."""
    seeds = list(groups[0].folders)
    more = f"train {LEAST_SEEDS} or more, as in --sweep=seed=0:{LEAST_SEEDS}"
    if any(list(group.folders) != seeds for group in groups):
        return "they were not trained with the same seeds, by which they would be paired"
    if len(seeds) < LEAST_SEEDS:
        many = "one seed" if len(seeds) == 1 else "two seeds"
        return f"with {many} nothing tells a difference from chance; {more}"
    if len(groups) > MOST_TESTED:
        return f"{len(groups)} settings are too many to be tested, more than {MOST_TESTED}"
    return None


def columns(found: SettingTable, values: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows as those of a file; `values` are those of the axes, by the label of a setting."""
    return [
        {
            "setting": row.group.label,
            **{name: value for name, value in values.get(row.group.label, {}).items() if name != "seed"},
            "seeds": len(row.group.folders),
            "runs": " ".join(folder.name for folder in row.group.folders.values()),
            **{
                key: value
                for name, (mean, error) in row.numbers.items()
                for key, value in ((name, mean if math.isfinite(mean) else None), (f"{name}_se", error))
            },
            "best": "yes" if row.best else "",
        }
        for row in found.rows
    ]
