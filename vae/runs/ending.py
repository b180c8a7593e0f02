"""Is a run at its end? After its epochs, or, with `patience`, once its validation bound has stopped growing.

All who ask whether a run is finished ask here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vae.rules import LARGEST
from vae.runs import checkpoint
from vae.runs.config import Config
from vae.runs.folder import CHECKPOINTS
from vae.runs.metrics import Row


def has_waited(best: int, last: int, wait: int) -> bool:
    """Whether training ends after step `last`, since the best bound is `wait` steps old; 0: it never does."""
    return 0 < wait <= last - best


def first_end(bounds: Mapping[int, float], wait: int) -> int | None:
    """The first of the steps after which training ends, by the validation bound of each; None if it does not.

    A bound that equals the best one is no better.
    """
    best, highest = 0, -math.inf
    for step in sorted(bounds):
        if bounds[step] > highest:
            best, highest = step, bounds[step]
        elif has_waited(best, step, wait):
            return step
    return None


class Standing(NamedTuple):
    """How far a run folder is, by its last checkpoint; epoch 0 if there is none.

    `best_epoch` is that of its best checkpoint, of a run with patience alone.
    """

    epoch: float
    finished: bool
    best_epoch: float | None = None


def standing(workdir: Path, config: Config, rows: Sequence[Row]) -> Standing:
    """How far the run in `workdir` is on its way to the end that `config` gives it; `rows` are those of its metrics."""
    folder = workdir / CHECKPOINTS
    saved = checkpoint.steps(folder)
    if not saved:
        return Standing(0.0, False)
    written = rows or [row for of_run in checkpoint.rows(folder, saved[-1]) for row in of_run]
    of_epoch = _steps_per_epoch(written)
    if of_epoch is None:
        return Standing(0.0, False)
    epoch = saved[-1] / of_epoch
    if not config.patience:
        return Standing(epoch, epoch >= config.epochs)
    best = checkpoint.best_step(folder)
    if best is None:
        return Standing(epoch, False)
    last = saved[-1] // of_epoch * of_epoch
    finished = epoch >= config.epochs or has_waited(best, last, config.patience * of_epoch)
    return Standing(epoch, finished, best / of_epoch)


def _steps_per_epoch(rows: Sequence[Row]) -> int | None:
    """By the first row that says it; None if none does."""
    found = (row["step"] / row["epoch"] for row in rows if row["epoch"] > 0)
    return next((round(steps) for steps in found if 0.5 < steps < LARGEST), None)
