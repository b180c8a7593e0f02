"""The public API: what the scripts do, as functions of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax

from vae.models import model as models
from vae.settings import Settings
from vae.training import start


class LoadedRun(NamedTuple):
    """model, params and settings of a trained run; `params` are the averaged ones if the run averages its weights."""

    model: Any
    params: Any
    settings: Settings


def load_run(workdir: str | Path, checkpoint: str | int = "last") -> LoadedRun:
    """Load the run in `workdir` at its last or best checkpoint, or at a step; raises RunError or CheckpointError.

    "best" is the checkpoint with the highest validation bound.
    """
    config, state = start.saved_state(Path(workdir).expanduser(), checkpoint)
    return LoadedRun(models.build(config.settings), jax.device_put(state.evaluated_params), config.settings)
