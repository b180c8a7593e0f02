"""List the runs under a folder: the settings in which they differ, their progress and their scores.

    python -m experiments.runs            # those under runs/
    python -m experiments.runs --folder=/data/sweep --sort=log_likelihood

Scores are nats per image: the last validation bound (with --patience the best one), and evaluation.json's
log-likelihood if there is one; if it is of an earlier checkpoint than would be evaluated now, its step stands beside
it. Sorted by a score, runs that do not compare (vae/sweeps/ranking.py) are sorted apart, and runs of several bounds by
their ELBO.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choice
from vae.places import expanded
from vae.runs import naming

BOUNDS = ("validation", "test")
SCORES = ("epoch", *BOUNDS, "log_likelihood")


def define_flags() -> None:
    flags.DEFINE_string("folder", "runs", "where to look, with all its subfolders")
    choice("sort", "run", ("run", *SCORES), "column to sort by; scores from high to low")
    flags.DEFINE_bool("json", False, "print one JSON object per line, with every setting, instead of a table")


def main(_: StopRequest) -> int:
    from vae.runs.files import RunError
    from vae.runs.folder import CONFIG
    from vae.runs.metrics import summary

    asked = options.read().values
    folder = expanded(asked["folder"])
    if not folder.is_dir():
        raise UsageError(f"--folder={folder} is not a folder; give one that holds run folders")
    found = []
    for path in sorted(folder.rglob(CONFIG)):
        try:
            found.append(summary(path.parent))
        except RunError as error:
            print(script.shown(f"left out: {error}"), file=sys.stderr)
    if not found:
        print(f"no runs under {folder}", file=sys.stderr)
        return 0
    if asked["sort"] != "run":
        found = sorted_by(asked["sort"], found)
    if asked["json"]:
        for row in found:
            print(json.dumps(row))
        return 0
    flat = []
    for row in found:
        settings = dict(row["settings"])
        settings["num_validation"] = settings.pop("validation")  # beside the score of that name
        settings = {name: None if value is None else naming.text(value) for name, value in settings.items()}
        scores = {name: row[name] for name in shown_scores(found)}
        if is_old(row):
            scores["log_likelihood"] = f"{_cell(row['log_likelihood'])} (step {row['log_likelihood_step']})"
        flat.append({"run": row["run"], **settings, **scores})
    names = list(dict.fromkeys(name for row in flat for name in row))
    # Only the settings in which the runs differ.
    always = {"run", "dataset", "objective", *SCORES}
    shown = [name for name in names if name in always or len({str(row.get(name)) for row in flat}) > 1]
    cells = [shown] + [[_cell(row.get(name)) for name in shown] for row in flat]
    widths = [max(len(row[column]) for row in cells) for column in range(len(shown))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if old := [row["run"] for row in found if is_old(row)]:
        print(
            f"(step …): of an earlier checkpoint than would be evaluated now; evaluate again: {', '.join(old[:5])}"
            + (", …" if len(old) > 5 else ""),
            file=sys.stderr,
        )
    return 0


def is_old(row: dict[str, Any]) -> bool:
    """Whether the run was trained further since its log-likelihood was computed."""
    return row["log_likelihood_step"] is not None and row["log_likelihood_step"] < row["step"]


def sorted_by(score: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows from high to low, unknown scores last; those that do not compare with the first ones after them all."""
    from vae.runs.config import read_config
    from vae.sweeps import ranking

    by_run = {row["run"]: row for row in rows}
    configs = {name: read_config(Path(name)) for name in by_run}
    if score != "validation":  # test images are the same however many of the others were held out
        configs = {name: dataclasses.replace(config, validation=None) for name, config in configs.items()}
    groups = ranking.rankings(configs) if score != "epoch" else []
    if len(groups) > 1:
        print(f"runs of {len(groups)} kinds do not compare ({'; '.join(g.title for g in groups)})", file=sys.stderr)
    found = []
    for one in groups:
        column = f"{score}_elbo" if score in BOUNDS and one.metric == "elbo" else score
        if column != score:
            print(f"{ranking.reason(one.changing)}: sorted by the ELBO", file=sys.stderr)
        found += _descending(column, [by_run[name] for name in one.names])
    return found if groups else _descending(score, rows)


def _descending(column: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -math.inf if row[column] is None else row[column], reverse=True)


def shown_scores(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of scores: the ELBO beside the bound if the runs are of several objectives."""
    several = len({row["settings"]["objective"] for row in rows}) > 1
    elbos = [f"{split}_elbo" for split in BOUNDS] if several else []
    return [*SCORES[:-1], *elbos, SCORES[-1]]


def _cell(value) -> str:
    """A score, rounded; settings are texts, of which different ones look different."""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    script.run(define_flags, main)
