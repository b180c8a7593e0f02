"""What did a search find? Its trials by how they ended, and the best one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from vae import untrusted
from vae.runs.files import RunError
from vae.sweeps import samplers, study
from vae.sweeps.planning import RUNS


class SearchOutcome(NamedTuple):
    """The trials of all workers; those that diverged are pruned or complete for Optuna."""

    finished: list[FrozenTrial]
    num_pruned: int
    num_diverged: int
    num_elsewhere: int  # asked for by other workers, and not told

    @property
    def best(self) -> FrozenTrial:
        """The finished trial of the highest value."""
        return max(self.finished, key=lambda trial: -math.inf if trial.value is None else trial.value)

    @property
    def counted(self) -> str:
        return f"{len(self.finished)} finished, {self.num_pruned} pruned, {self.num_diverged} diverged"


def outcome(trials: Sequence[FrozenTrial], space: samplers.Space) -> SearchOutcome:
    """The trials of a study, counted by how they ended; RunError if one that was told is not a point of the space."""
    told = [trial for trial in trials if trial.state in samplers.TOLD]
    for trial in told:
        if trial.params.keys() != space.keys() or not all(_fits(space[n], v) for n, v in trial.params.items()):
            raise RunError(f"trial {trial.number} of the study was not made by this program; use another `study`")
    finished = [trial for trial in told if trial.state == TrialState.COMPLETE]
    num_diverged = sum(bool(trial.user_attrs.get(study.DIVERGED)) for trial in told)
    num_elsewhere = sum(study.counts(trial) for trial in trials) - len(told)
    return SearchOutcome(finished, len(told) - len(finished) - num_diverged, num_diverged, num_elsewhere)


def _fits(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return type(value) in (int, float)


def folder_of(trial: FrozenTrial, workdir: Path, worker: str) -> Path | None:
    """The run folder of a trial, as seen by the `worker` of that id, in `workdir` now.

    None if the study, which others write to, names no valid folder.
    """
    try:
        owner, name = study.worker_of(trial), untrusted.plain_name(trial.user_attrs.get(study.RUN))
    except ValueError:
        return None
    if owner is None or not owner.workdir.isprintable():
        return None
    return (workdir if owner.id == worker else Path(owner.workdir)) / RUNS / name
