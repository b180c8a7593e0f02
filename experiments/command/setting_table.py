"""The table per setting that experiments.sweep and experiments.evaluate end with, and its file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.flags.points import label

if TYPE_CHECKING:
    from vae.judging.by_setting import SettingRow, SettingTable
    from vae.judging.groups import RunGroup
    from vae.runs.config import Config

MOST_SHOWN = 20  # settings


def groups_of(workdir: Path, values: Mapping[str, Mapping[str, Any]], configs: Mapping[str, Config]) -> list[RunGroup]:
    """The runs of a sweep in `workdir` by setting; `values` are those of the axes of each run, by its name."""
    from vae.judging.groups import RunGroup
    from vae.sweeps.planning import RUNS

    found: dict[Config, RunGroup] = {}
    for name, config in configs.items():
        axes = {axis: value for axis, value in values[name].items() if axis != "seed"}
        group = found.setdefault(dataclasses.replace(config, seed=0), RunGroup(label(axes) or "all runs", config, {}))
        group.folders[config.seed] = workdir / RUNS / name
    labels = [group.label for group in found.values()]
    return [
        group._replace(
            # Some of its runs were trained for longer since.
            label=f"{group.label}, epochs={group.config.epochs}" if labels.count(group.label) > 1 else group.label,
            folders=dict(sorted(group.folders.items())),
        )
        for group in found.values()
    ]


def print_table(found: SettingTable, heads: Mapping[str, str], scales: Mapping[str, float] | None = None) -> None:
    """Print the settings, the best first; `heads` are the titles of the numbers that are shown, by their names.

    scales: what a number is multiplied by to be shown.
    """
    lines = [["setting", *heads.values(), "seeds"]]
    for row in found.rows[:MOST_SHOWN]:
        cells = [shown(row, name, found.headline, (scales or {}).get(name, 1)) for name in heads]
        lines.append([row.group.label, *cells, str(len(row.group.folders))])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if (more := len(found.rows) - MOST_SHOWN) > 0:
        print(f"… and {more} more")


def shown(row: SettingRow, name: str, headline: str, scale: float = 1) -> str:
    """A number of a setting with its standard error over seeds; a star if it is the best one by more than chance."""
    mean, error = row.numbers[name]
    if not math.isfinite(mean):
        return "not finite"
    text = f"{scale * mean:.2f}" + ("" if error is None else f" ± {scale * error:.2f}")
    return text + " *" * (row.best and name == headline)


def named(found: SettingTable) -> str:
    """The setting with the highest headline, in words."""
    best = found.rows[0]
    count, value = len(best.group.folders), shown(best, found.headline, "")
    return f"{best.group.label} ({value}, {count} seed{'s' * (count > 1)})"


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The table as a .csv file."""
    from vae.sweeps import results

    return results.write_table(path, rows)
