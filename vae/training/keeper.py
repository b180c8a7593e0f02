"""Who keeps the checkpoints from which training resumes: a run alone its own, a population one for all its runs.

All have the same methods:

restore(config, num_runs) -> the last Snapshot of that many runs of the program of `config`; None if there is none.
epoch_ended(take, scores): `take` copies the states to the host; `scores` [R] are the validation bounds, or None.
stopped(snapshot): training was asked to stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from vae import hosts
from vae.runs import checkpoint
from vae.runs.config import Config
from vae.runs.metrics import Row
from vae.training.program import of_run
from vae.training.record import MemoryRecord
from vae.training.start import abstract_state

SAVING_SHARE = 0.05  # of the time, at most, goes into checkpoints of a population


class Snapshot(NamedTuple):
    """Where a population is: its states as arrays [R, …], and which of its runs have not ended."""

    step: int
    states: Any
    going: Bool[np.ndarray, "R"]
    rows: Sequence[Sequence[Row]] = ()  # of metrics, of each run since the checkpoint before; empty of older code


class RunKeeper:
    """A run's own folder: a checkpoint after each epoch, of which the last and the best ones stay."""

    def __init__(self, folder: Path, keep_last: int, keep_best: int):
        self._folder, self._keep_last, self._keep_best = folder, keep_last, keep_best

    def restore(self, config: Config, num_runs: int) -> Snapshot | None:
        assert num_runs == 1
        if (step := _newest_intact(self._folder)) is None:
            return None
        state, rows = checkpoint.restore(self._folder, step, abstract_state(config)), _rows(self._folder, step)
        return Snapshot(step, jax.tree.map(lambda leaf: np.asarray(leaf)[None], state), np.ones(1, bool), rows)

    def epoch_ended(self, take: Callable[[], Snapshot], scores: Float[np.ndarray, "R"] | None) -> None:
        step, states, _, rows = take()
        checkpoint.save(self._folder, step, of_run(states, 0), None if scores is None else float(scores[0]), rows)
        checkpoint.prune(self._folder, self._keep_last, self._keep_best)

    def stopped(self, snapshot: Snapshot) -> None:
        checkpoint.save(self._folder, snapshot.step, of_run(snapshot.states, 0), rows=snapshot.rows)


class PopulationKeeper:
    """A folder for all runs together: two checkpoints stay, `save_every` seconds apart or more, to cost little time.

    It is deleted when the runs have ended: each then has its last state in its own folder.
    """

    def __init__(self, folder: Path, save_every: float):
        self._folder, self._save_every, self._due = folder, save_every, time.perf_counter() + save_every

    def restore(self, config: Config, num_runs: int) -> Snapshot | None:
        if (step := _newest_intact(self._folder)) is None:
            return None
        states = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((num_runs, *leaf.shape), leaf.dtype), abstract_state(config)
        )
        like = {"states": states, "going": jax.ShapeDtypeStruct((num_runs,), np.bool_)}
        return Snapshot(step, **checkpoint.restore(self._folder, step, like), rows=_rows(self._folder, step))

    def epoch_ended(self, take: Callable[[], Snapshot], scores: Float[np.ndarray, "R"] | None) -> None:
        del scores
        started = time.perf_counter()
        if hosts.agreed(lambda: started >= self._due):
            self.stopped(take())
            ended = time.perf_counter()
            share = (ended - started) / SAVING_SHARE if self._save_every else 0
            self._due = ended + max(self._save_every, share)

    def stopped(self, snapshot: Snapshot) -> None:
        step, states, going, rows = snapshot
        checkpoint.save(self._folder, step, {"states": states, "going": going}, rows=rows)
        checkpoint.prune(self._folder, keep_last=2, keep_best=0)


def _newest_intact(folder: Path) -> int | None:
    """The last step whose checkpoint is as it was saved; damaged ones after it are set aside. None if there is none."""
    checkpoint.clean(folder)

    def verified() -> int | None:
        for step in reversed(checkpoint.steps(folder)):
            try:
                checkpoint.verify(folder, step)
                return step
            except checkpoint.DamagedError as error:
                checkpoint.set_aside(folder, step, error)
        return None

    return hosts.agreed(verified)


def _rows(folder: Path, step: int) -> list[list[Row]]:
    return hosts.agreed(lambda: checkpoint.rows(folder, step))


class MemoryKeeper:
    """Of a run alone in memory: there is no checkpoint, but the state in which it was stopped."""

    def __init__(self, record: MemoryRecord):
        self._record = record

    def restore(self, config: Config, num_runs: int) -> Snapshot | None:
        del config, num_runs

    def epoch_ended(self, take: Callable[[], Snapshot], scores: Float[np.ndarray, "R"] | None) -> None:
        """There is nothing to keep."""

    def stopped(self, snapshot: Snapshot) -> None:
        self._record.save(snapshot.step, of_run(snapshot.states, 0))


Keeper = RunKeeper | PopulationKeeper | MemoryKeeper
