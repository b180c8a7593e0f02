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
from jaxtyping import Bool, Float, Int

from vae import hosts
from vae.runs import checkpoint
from vae.runs.config import Config
from vae.runs.ending import ranked
from vae.runs.metrics import Row
from vae.training.program import of_run
from vae.training.record import MemoryRecord
from vae.training.start import abstract_state

SAVING_SHARE = 0.05  # of the time, at most, goes into checkpoints
MOST_HELD = 10  # epochs in memory, of a run alone


class Best(NamedTuple):
    """Of runs with patience: the state of each after the epoch with its highest validation bound; -inf before one."""

    states: Any  # arrays [R, …]
    steps: Int[np.ndarray, "R"]
    bounds: Float[np.ndarray, "R"]


class Snapshot(NamedTuple):
    """Where a population is: its states as arrays [R, …], and which of its runs have not ended."""

    step: int
    states: Any
    going: Bool[np.ndarray, "R"]
    rows: Sequence[Sequence[Row]] = ()  # of metrics, of each run since the checkpoint before; empty of older code
    best: Best | None = None


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
        best = self._restore_best(config) if config.patience else None
        rows = _rows(self._folder, step)
        return Snapshot(step, self._restore_state(config, step), np.ones(1, bool), rows, best)

    def _restore_best(self, config: Config) -> Best | None:
        """That of the best checkpoint that is as it was saved; None if no epoch was validated."""
        step = _first_intact(self._folder, ranked(self._scores))
        there = hosts.agreed(lambda: checkpoint.steps(self._folder))
        self._scores = {one: score for one, score in self._scores.items() if one in there}
        if step is None:
            return None
        bounds = np.asarray([self._scores[step]], np.float32)
        return Best(self._restore_state(config, step), np.asarray([step], np.int32), bounds)

    def _restore_state(self, config: Config, step: int) -> Any:
        """As of a population of one."""
        state = checkpoint.restore(self._folder, step, abstract_state(config))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], state)

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
        if config.patience:
            steps, bounds = (jax.ShapeDtypeStruct((num_runs,), dtype) for dtype in (np.int32, np.float32))
            like["best"] = {"states": states, "steps": steps, "bounds": bounds}
        found, rows = checkpoint.restore(self._folder, step, like), _rows(self._folder, step)
        best = Best(**found["best"]) if config.patience else None
        return Snapshot(step, found["states"], found["going"], rows, best)

    def epoch_ended(self, take: Callable[[], Snapshot], scores: Float[np.ndarray, "R"] | None) -> None:
        del scores
        if self._times.due():
            with self._times.saving():
                self.stopped(take())

    def stopped(self, snapshot: Snapshot) -> None:
        step, states, going, rows, best = snapshot
        arrays = {"states": states, "going": going} | ({} if best is None else {"best": best._asdict()})
        checkpoint.save(self._folder, step, arrays, rows=rows)
        checkpoint.prune(self._folder, keep_last=2, keep_best=0)

    def ended(self) -> None:
        """Each run leaves its last state in its own folder."""


def _newest_intact(folder: Path) -> int | None:
    """The last step whose checkpoint is as it was saved; damaged ones after it are set aside. None if there is none."""
    checkpoint.clean(folder)
    return _first_intact(folder, hosts.agreed(lambda: checkpoint.steps(folder)[::-1]))


def _first_intact(folder: Path, steps: Sequence[int]) -> int | None:
    """The first of `steps` whose checkpoint is as it was saved; damaged ones before it are set aside."""

    def verified() -> int | None:
        for step in steps:
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
    """Of a run alone in memory: there is no checkpoint, but the state in which it was stopped, and the best one."""

    def __init__(self, record: MemoryRecord):
        self._record = record

    def restore(self, config: Config, num_runs: int) -> Snapshot | None:
        del config, num_runs

    def epoch_ended(self, take: Callable[[], Snapshot], scores: Float[np.ndarray, "R"] | None) -> None:
        """There is nothing to keep."""

    def stopped(self, snapshot: Snapshot) -> None:
        save_run(self._record, 0, snapshot, [])

    def ended(self) -> None:
        """The record has the last state."""


def save_run(record: MemoryRecord, r: int, snapshot: Snapshot, rows: Sequence[Row]) -> None:
    """Save run `r` of a snapshot in its own record: its last state with the `rows` since the checkpoint before.

    Of a run with patience its best state comes first, with its score: who has the last one has all.
    """
    state, best = of_run(snapshot.states, r), snapshot.best
    step, score = int(state.step), None
    if best is not None and np.isfinite(best.bounds[r]):
        best_step, best_score = int(best.steps[r]), float(best.bounds[r])
        if best_step == step:
            score = best_score
        else:
            record.save(best_step, of_run(best.states, r), score=best_score)
    record.save(step, state, rows, score)


Keeper = RunKeeper | PopulationKeeper | MemoryKeeper
