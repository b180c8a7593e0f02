"""The pictures of a search: the value of each trial against its number, and against each parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from experiments.pictures.run_pictures import drawn, save
from vae import figures
from vae.sweeps.space import Range, SearchSpace


def draw(workdir: Path, trials: Sequence[FrozenTrial], space: SearchSpace, label: str) -> list[Path]:
    """Write <workdir>/figures/*.png of the trials of all workers that have a result; the paths."""
    told = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    numbers = [trial.number for trial in told]
    # A diverged trial was reported with the lowest possible value.
    scores = [math.nan if trial.value is None or math.isinf(trial.value) else trial.value for trial in told]
    finished = [trial.state == TrialState.COMPLETE for trial in told]
    y_label = f"{label} (nats per image)"
    made: dict[str, Callable[[], Any]] = {
        "search": partial(figures.score_by_trial, numbers, scores, finished, y_label, "Value of each trial")
    }
    for axis in space:
        values = [trial.params[axis.name] for trial in told]
        log = isinstance(axis, Range) and axis.log
        title = f"Value of each trial against {axis.name}"
        made[f"search_against_{axis.name}"] = partial(
            figures.score_against_parameter,
            values,
            np.array(numbers),
            scores,
            finished,
            axis.name,
            y_label,
            title,
            log=log,
        )
    return save(workdir, drawn(made))
