"""The table of a sweep, one row for each run, from its run folders."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae import durable
from vae.evaluation import summary
from vae.runs.config import Config, read_config
from vae.runs.folder import EVALUATION
from vae.runs.metrics import SPLITS, epochs, read_evaluation, read_metrics, telling
from vae.runs.standing import standing
from vae.sweeps import ranking
from vae.sweeps.planning import RUNS
from vae.sweeps.sweep_file import read_sweep
from vae.training.record import FAILURE, TrainingFailed

RESULTS = "results.csv"
FINISHED, DIVERGED, PRUNED, WAITING = "finished", "diverged", "pruned", "waiting"


def rows(workdir: Path) -> list[dict[str, Any]]:
    """For each run of the sweep in `workdir`: name, folder, the values of the axes, status, epoch, its metrics.

    The metrics are the last ones; of a run with patience those of its best epoch, which is `best_epoch`.
    The folder, `path`, is below `workdir`: it is right wherever the sweep is moved. Of each evaluation that the folder
    holds there is every number, under `<file>_<number>`.
    The column of a metric is `<split>_<metric>`. A bound has the name of its objective, so that no column holds two
    bounds.
    """
    found = []
    about = read_sweep(workdir)
    for name, values in about["runs"].items():
        folder = workdir / RUNS / name
        metrics, config = read_metrics(folder), read_config(folder)
        stands = standing(folder, config, metrics)
        if (folder / FAILURE).exists():
            status = DIVERGED
        elif stands.finished:
            status = FINISHED
        else:
            status = PRUNED if "search" in about and stands.epoch else WAITING
        row = {"run": name, "path": f"{RUNS}/{name}", **values, "status": status, "epoch": epochs(metrics)}
        if config.patience:
            row["best_epoch"] = stands.best_epoch
        # In one order, whichever rows were lost.
        for one in sorted(telling(metrics, config).values(), key=lambda one: SPLITS.index(one["split"])):
            numbers = {key: value for key, value in one.items() if key not in ("step", "epoch", "split", "seconds")}
            numbers.pop("learning_rate", None)
            row |= {f"{one['split']}_{key}": value for key, value in numbers.items()}
        for path in sorted(folder.glob(f"{Path(EVALUATION).stem}*.json")):
            row |= {f"{path.stem}_{key}": value for key, value in summary.numbers(read_evaluation(path)).items()}
        found.append(row)
    return found


class Ranked(NamedTuple):
    """A ranking of a sweep, and the value of each run on `split`; NaN unless it finished and is finite."""

    ranking: ranking.Ranking
    split: str
    scores: dict[str, float]


def ranked(table: Sequence[Mapping[str, Any]], configs: Mapping[str, Config]) -> list[Ranked]:
    """The groups of runs of `rows` that may be compared, with the held-out value of each run."""
    by_name = {row["run"]: row for row in table}
    found = []
    for one in ranking.rankings(configs):
        bounds = {name: configs[name].settings.objective for name in one.names}
        is_held_out = any(f"validation_{bound}" in by_name[name] for name, bound in bounds.items())
        split = "validation" if is_held_out else "test"
        scores = {
            # The last bound of a run that diverged is meaningless.
            name: ranking.value(one.metric, bound, _of_split(by_name[name], split))
            if by_name[name]["status"] == FINISHED
            else math.nan
            for name, bound in bounds.items()
        }
        found.append(Ranked(one, split, {n: s if math.isfinite(s) else math.nan for n, s in scores.items()}))
    return found


def not_tested(workdir: Path, table: Sequence[Mapping[str, Any]], configs: Mapping[str, Config]) -> list[str]:
    """The runs that finished, but whose test bound is not finite; raises TrainingFailed if these are all of them."""
    finished = [row for row in table if row["status"] == FINISHED]
    found = [row["run"] for row in finished if row.get(f"test_{configs[row['run']].settings.objective}", 0.0) is None]
    if found and len(found) == len(finished):
        raise TrainingFailed(
            "the test bound of all runs is not finite: their models give some test image no likelihood that float32 "
            f"holds; they are trained and saved in {workdir / RUNS}; look for that image in the test data, or use "
            "other values"
        )
    return found


def _of_split(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name.removeprefix(f"{split}_"): value for name, value in row.items() if name.startswith(f"{split}_")}


def write(workdir: Path) -> Path:
    """results.csv; a metric that is absent or not finite is empty."""
    return write_table(workdir / RESULTS, rows(workdir))


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> Path:
    """A table as a .csv file; its columns are those of all rows, and what a row lacks is empty."""
    columns = list(dict.fromkeys(column for row in table for column in row))
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in table)
    durable.write(path, content.getvalue().encode())
    return path


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
