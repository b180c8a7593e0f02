"""Who keeps the checkpoints from which training resumes: a run alone its own, a population one for all its runs.

All have the same methods:

restore(config, num_runs) -> the last Snapshot of that many runs of the program of `config`; None if there is none.
epoch_ended(take, scores): `take` copies the states to the host; `scores` [R] are the validation bounds, or None.
stopped(snapshot): training was asked to stop.
ended(): training has come to its end, or failed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
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

SAVING_SHARE = 0.05  # of the time, at most, goes into checkpoints
MOST_HELD = 10  # epochs in memory, of a run alone


class Snapshot(NamedTuple):
    """Where a population is: its states as arrays [R, …], and which of its runs have not ended."""

    step: int
    states: Any
    going: Bool[np.ndarray, "R"]
    rows: Sequence[Sequence[Row]] = ()  # of metrics, of each run since the checkpoint before; empty of older code


class SavingTimes:
    """When checkpoints are due: `save_every` seconds apart or more, and SAVING_SHARE of the time at most.

    With `save_every` = 0 they are always due.
    """

    def __init__(self, save_every: float, first: float):
        """`first`: seconds from now until the first ones are due."""
        self._save_every, self._due = save_every, time.perf_counter() + first

    def due(self) -> bool:
        """Whether checkpoints are to be written now; all processes agree."""
        return hosts.agreed(lambda: time.perf_counter() >= self._due)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """What is written in this block says when the next ones are due."""
        started = time.perf_counter()
        yield
        ended = time.perf_counter()
        share = (ended - started) / SAVING_SHARE if self._save_every else 0
        self._due = ended + max(self._save_every, share)


class HeldEpoch(NamedTuple):
    """The state of a run after an epoch, in memory, that is to be a checkpoint."""

    state: Any
    score: float | None
    rows: list[Row]  # since the epoch before that is held, or that was written


class RunKeeper:
    """A run's own folder, in which the checkpoints of the last epochs and of the best ones stay.

    Those that would stay are held in memory until they are due, so that short epochs do not wait for the disk. They are
    written when training stops, ends or fails, too: a kill costs what was held, and the folder is the same in the end.
    """

    def __init__(self, folder: Path, keep_last: int, keep_best: int, save_every: float):
        self._folder, self._keep_last, self._keep_best = folder, keep_last, keep_best
        self._times = SavingTimes(save_every, first=0.0)
        self._held: dict[int, HeldEpoch] = {}
        self._scores: dict[int, float | None] = {}  # of the epochs that are held, and of those that were written

    def restore(self, config: Config, num_runs: int) -> Snapshot | None:
        assert num_runs == 1
        if (step := _newest_intact(self._folder)) is None:
            return None
        self._scores = dict(hosts.agreed(lambda: list(checkpoint.scores(self._folder).items())))
        state, rows = checkpoint.restore(self._folder, step, abstract_state(config)), _rows(self._folder, step)
        return Snapshot(step, jax.tree.map(lambda leaf: np.asarray(leaf)[None], state), np.ones(1, bool), rows)

    def epoch_ended(self, take: Callable[[], Snapshot], scores: Float[np.ndarray, "R"] | None) -> None:
        self._hold(take(), None if scores is None else float(scores[0]))
        if self._times.due() or len(self._held) > MOST_HELD:
            with self._times.saving():
                self._write()

    def stopped(self, snapshot: Snapshot) -> None:
        self._hold(snapshot, None)
        self._write()

    def ended(self) -> None:
        """Write what is held."""
        self._write()

    def _hold(self, snapshot: Snapshot, score: float | None) -> None:
        """Hold a snapshot, and no longer those that would not stay beside it."""
        # Copies: on a CPU these are views of the arrays that training continues with.
        state = jax.tree.map(np.array, of_run(snapshot.states, 0))
        self._held.setdefault(snapshot.step, HeldEpoch(state, score, list(snapshot.rows[0])))
        self._scores.setdefault(snapshot.step, score)
        stay, rows = checkpoint.kept(self._scores, self._keep_last, self._keep_best), []
        for step, held in list(self._held.items()):
            rows = rows + held.rows
            if step not in stay:
                del self._held[step]
                continue
            self._held[step], rows = held._replace(rows=rows), []

    def _write(self) -> None:
        for step, (state, score, rows) in self._held.items():
            checkpoint.save(self._folder, step, state, score, [rows])
        self._held = {}
        checkpoint.prune(self._folder, self._keep_last, self._keep_best)


class PopulationKeeper:
    """A folder for all runs together: two checkpoints stay, `save_every` seconds apart or more, to cost little time.

    It is deleted when the runs have ended: each then has its last state in its own folder.
    """

    def __init__(self, folder: Path, save_every: float):
        self._folder, self._times = folder, SavingTimes(save_every, first=save_every)

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
        if self._times.due():
            with self._times.saving():
                self.stopped(take())

    def stopped(self, snapshot: Snapshot) -> None:
        step, states, going, rows = snapshot
        checkpoint.save(self._folder, step, {"states": states, "going": going}, rows=rows)
        checkpoint.prune(self._folder, keep_last=2, keep_best=0)

    def ended(self) -> None:
        """Each run leaves its last state in its own folder."""


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

    def ended(self) -> None:
        """The record has the last state."""


Keeper = RunKeeper | PopulationKeeper | MemoryKeeper
