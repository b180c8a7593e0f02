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
    return [group._replace(folders=dict(sorted(group.folders.items()))) for group in found.values()]


def print_table(found: SettingTable, heads: Mapping[str, str]) -> None:
    """Print the settings, the best first; `heads` are the titles of the numbers that are shown, by their names."""
    lines = [["setting", *heads.values(), "seeds"]]
    for row in found.rows[:MOST_SHOWN]:
        cells = [shown(row, name, found.headline) for name in heads]
        lines.append([row.group.label, *cells, str(len(row.group.folders))])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if (more := len(found.rows) - MOST_SHOWN) > 0:
        print(f"… and {more} more")


def shown(row: SettingRow, name: str, headline: str) -> str:
    """A number of a setting with its standard error over seeds; a star if it is the best one by more than chance."""
    mean, error = row.numbers[name]
    if not math.isfinite(mean):
        return "not finite"
    return f"{mean:.2f}{'' if error is None else f' ± {error:.2f}'}{' *' * (row.best and name == headline)}"


def names(found: SettingTable, what: str) -> str:
    """The best setting in a line, by `what`."""
    best = found.rows[0]
    count, value = len(best.group.folders), shown(best, found.headline, "")
    return f"best setting by {what}: {best.group.label} ({value}, {count} seed{'s' * (count > 1)})"


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The table as a .csv file."""
    from vae.sweeps import results

    return results.write_table(path, rows)
