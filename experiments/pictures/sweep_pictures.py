"""The pictures of a sweep, from its folder: score against each axis, over pairs of axes, and learning curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pictures.run_pictures import controlled, drawn, save
from vae import figures
from vae.figures.canvas import PALETTE
from vae.objectives import OBJECTIVES
from vae.runs.config import read_config
from vae.runs.files import read_json
from vae.runs.metrics import read_metrics
from vae.runs.naming import folder_name, text
from vae.sweeps import ranking, results
from vae.sweeps.planning import RUNS
from vae.sweeps.sweep_file import SWEEP

MOST_LINES = 8
Row = dict[str, Any]


def draw(workdir: Path) -> list[Path]:
    """Write <workdir>/figures/*.png for all runs that compare with each other (vae/sweeps/ranking.py); the paths."""
    about = read_json(workdir / SWEEP)
    rows = results.rows(workdir)
    configs = {row["run"]: read_config(workdir / RUNS / row["run"]) for row in rows}
    found = results.ranked(rows, configs)
    axes = [axis.partition("=")[0] for axis in about["sweep"]]
    made = {}
    for one in found:
        chosen = [row | {"score": one.scores[row["run"]]} for row in rows if row["run"] in one.scores]
        if not any(math.isfinite(row["score"]) for row in chosen):
            continue
        varied = [axis for axis in axes if len({str(row[axis]) for row in chosen}) > 1]
        pictures = _of_ranking(workdir, chosen, varied, one, configs)
        suffix = "" if len(found) == 1 else f"_{suffix_of(one.ranking.images)}"
        made |= {f"{name}{suffix}": draw for name, draw in pictures.items()}
    return save(workdir, drawn(made))


def suffix_of(images: dict[str, Any]) -> str:
    """The end of a file's name; different values have different ones."""
    (first, value), *rest = images.items()
    return folder_name(f"{first}={text(value)}", dict(rest))


def _of_ranking(
    workdir: Path, rows: list[Row], axes: list[str], one: results.Ranked, configs
) -> dict[str, Callable[[], Any]]:
    """What draws each picture of runs that compare, by its name."""
    others = [axis for axis in axes if axis != "seed"]
    split = one.split
    label = f"{split} {one.ranking.title} (nats per image)"
    made = {f"{split}_against_{axis}": partial(_against, rows, axis, others, label) for axis in others}
    for x, y in itertools.combinations(others, 2):
        made[f"{split}_over_{x}_and_{y}"] = partial(_heat_map, rows, x, y, others, label)
    made["learning_curves"] = partial(_learning_curves, workdir, rows, others, one, configs, label)
    objectives = {configs[row["run"]].settings.objective for row in rows}
    if len(objectives) == 1 and OBJECTIVES[objectives.pop()].holds:
        first = rows[: len(PALETTE)]
        made["controlled"] = partial(controlled, {row["run"]: workdir / RUNS / row["run"] for row in first})
    return made


def _against(rows: list[Row], axis: str, axes: list[str], label: str):
    values = _values(rows, axis)
    rest = [other for other in axes if other != axis]
    settings = list(dict.fromkeys(_named(row, rest) for row in rows))
    if len(settings) <= MOST_LINES:
        of_line = {name: [row for row in rows if _named(row, rest) == name] for name in settings}
        lines = {name or label: [_at(members, {axis: value}) for value in values] for name, members in of_line.items()}
        title = "Mean and standard error over seeds"
    else:
        lines = {label: [_best(rows, {axis: value}, rest) for value in values]}
        title = f"At the best {' and '.join(rest)} for each {axis}"
    numbers, log = _as_numbers(values)
    return figures.score_against_axis(numbers, lines, axis, label, title, log=log)


def _heat_map(rows: list[Row], x: str, y: str, axes: list[str], label: str):
    columns, lines = _values(rows, x), _values(rows, y)
    rest = [axis for axis in axes if axis not in (x, y)]
    scores = [[figures.mean_and_error(_best(rows, {x: a, y: b}, rest))[0] for a in columns] for b in lines]
    title = f"{label}, mean over seeds" + (f", at the best {' and '.join(rest)}" if rest else "")
    return figures.score_heat_map(_as_numbers(columns)[0], _as_numbers(lines)[0], np.array(scores), x, y, title)


def _learning_curves(workdir: Path, rows: list[Row], axes: list[str], one: results.Ranked, configs, label: str):
    curves, ends_early = {}, any(configs[row["run"]].patience for row in rows)
    for name in dict.fromkeys(_named(row, axes) for row in rows):
        of_seeds = []
        for row in rows:
            if _named(row, axes) == name:
                objective = configs[row["run"]].settings.objective
                written = [r for r in read_metrics(workdir / RUNS / row["run"]) if r["split"] == one.split]
                values = {r["epoch"]: ranking.value(one.ranking.metric, objective, r) for r in written}
                of_seeds.append({epoch: v if math.isfinite(v) else math.nan for epoch, v in values.items()})
        epochs = sorted({epoch for seed in of_seeds for epoch in seed})
        if ends_early:  # later, the mean would be over those that train for longest
            epochs = [epoch for epoch in epochs if all(epoch <= max(seed) for seed in of_seeds if seed)]
        if epochs:
            values = np.array([[seed.get(epoch, math.nan) for epoch in epochs] for seed in of_seeds])
            curves[name or one.ranking.title] = (epochs, values)
    title = "Learning curves, mean over seeds" + " while all of them train" * ends_early
    return figures.learning_curves_of_sweep(curves, "epoch", label, title)


def _at(rows: Sequence[Row], point: Row) -> list[float]:
    return [row["score"] for row in rows if all(row[axis] == value for axis, value in point.items())]


def _best(rows: Sequence[Row], point: Row, rest: list[str]) -> list[float]:
    """The scores of the seeds at `point` for the values of the `rest` of the axes with the highest mean."""
    here = [row for row in rows if all(row[axis] == value for axis, value in point.items())]
    groups = [[row["score"] for row in here if _named(row, rest) == n] for n in {_named(row, rest) for row in here}]
    return max(groups, key=lambda scores: np.nan_to_num(figures.mean_and_error(scores)[0], nan=-np.inf), default=[])


def _named(row: Row, axes: list[str]) -> str:
    return ", ".join(f"{axis}={_text(row[axis])}" for axis in axes)


def _values(rows: list[Row], axis: str) -> list[Any]:
    """The values of an axis, each once, numbers in ascending order."""
    found = list({_text(row[axis]): row[axis] for row in rows}.values())
    return sorted(found) if all(isinstance(value, int | float) for value in found) else found


def _as_numbers(values: list[Any]) -> tuple[list[Any], bool]:
    """Numbers as they are, and whether a logarithmic axis suits them; anything else as text."""
    if not all(isinstance(value, int | float) for value in values):
        return [_text(value) for value in values], False
    return values, min(values) > 0 and max(values) / min(values) >= 20


def _text(value: Any) -> str:
    return ",".join(map(text, value)) if isinstance(value, list) else text(value)
