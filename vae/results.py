"""The table of a sweep, one row for each run, from the folders that it left."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from vae import run
from vae.planning import RUNS
from vae.record import FAILURE

RESULTS = "results.csv"
FINISHED, DIVERGED, PRUNED, WAITING = "finished", "diverged", "pruned", "waiting"


def rows(workdir: Path) -> list[dict[str, Any]]:
    """For each run of the sweep in `workdir`: name, the values of the axes, status, epoch, and its last metrics.

    A metric's column is `<split>_<metric>`: that of a bound is named after it, so that no column holds two of them.
    """
    found = []
    about = run.read_sweep(workdir)
    for name, values in about["runs"].items():
        folder = workdir / RUNS / name
        metrics = run.read_metrics(folder)
        finished = (folder / run.CHECKPOINTS).exists()
        status = DIVERGED if (folder / FAILURE).exists() else FINISHED if finished else WAITING
        if "search" in about and status == FINISHED and metrics[-1]["epoch"] < run.read_config(folder).epochs:
            status = PRUNED
        row = {"run": name, **values, "status": status, "epoch": metrics[-1]["epoch"] if metrics else 0.0}
        for last in metrics:
            numbers = {key: value for key, value in last.items() if key not in ("step", "epoch", "split", "seconds")}
            numbers.pop("learning_rate", None)
            row |= {f"{last['split']}_{key}": value for key, value in numbers.items()}
        found.append(row)
    return found


def write(workdir: Path) -> Path:
    """results.csv; a metric that is absent or not finite is empty."""
    table = rows(workdir)
    columns = list(dict.fromkeys(column for row in table for column in row))
    path = workdir / RESULTS
    partial = path.with_name(f".{RESULTS}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(column)) for column in columns] for row in table)
    os.replace(partial, path)
    return path


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
