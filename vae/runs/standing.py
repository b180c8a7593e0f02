"""How far is a run, and is it finished? All who ask this of a run folder ask here.

By its last checkpoint: what was trained after it may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vae.rules import LARGEST
from vae.runs import checkpoint
from vae.runs.config import Config
from vae.runs.ending import has_waited
from vae.runs.folder import CHECKPOINTS
from vae.runs.metrics import Row


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
