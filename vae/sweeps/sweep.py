"""A sweep: runs that share a program are trained as populations that fit in memory; stops and resumes as a run does.

<workdir>/sweep.json                      what was asked for; per group of runs: strategy, chunks and how many are done
          runs/<name>/                    the folder of a run, as of one that was trained alone
          population/<group>-<chunk>/     checkpoints of the population in training
          results.csv                     a line for each run
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae import hosts
from vae.datasets import images
from vae.runs import checkpoint, tensorboard
from vae.runs.config import Config
from vae.runs.folder import CHECKPOINTS
from vae.runs.metrics import Metrics, read_metrics
from vae.sweeps import planning
from vae.sweeps.planning import Group
from vae.sweeps.scoreboard import Progress, Scoreboard
from vae.training import fit, population
from vae.training import step as training
from vae.training.record import FAILURE, epoch_means

POPULATION = "population"  # the folder of its checkpoints while it trains
SECONDS_PER_CALL = 10.0  # of the compiled program: each call shuffles the data of every run anew
SAVING_SHARE = 0.05  # of the time, at most, goes into checkpoints


def check(grouped: Sequence[Group], devices: Sequence[Any], *, begun: bool = False) -> None:
    """Raises RunError, CheckpointError or ObjectiveError where one of the runs cannot be trained; writes nothing.

    What new runs are refused, those of a sweep that has `begun` are not.
    """
    for group in grouped:
        fit.check(None, group.config, group.dataset, devices[:1], begun=begun)


def sweep(
    workdir: Path,
    grouped: Sequence[Group],
    *,
    devices: Sequence[Any],
    strategy: str = "auto",
    save_every: float = 30.0,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train all runs, from the last checkpoint of the sweep in `workdir` if there is one; whether all are done.

    A run whose bound is not finite ends with failure.json; the others go on. Checkpoints of the population at work
    are at least `save_every` seconds apart. The caller holds the folder's lock and has written sweep.json, and the
    config.json of every run. Raises as fit.fit, but for TrainingFailed.
    """
    board = Scoreboard(workdir, grouped, report)
    for number, group in enumerate(grouped):
        plan, settings = planning.stored(workdir).get(str(number)), group.config.settings
        if plan is not None and plan["done"] * plan["chunk_size"] >= len(group.configs):
            continue
        planning.check_strategy(strategy if plan is None else plan["strategy"])
        splits = {
            name: images.stored(group.dataset, name, settings.binarization, training=name == "train")
            for name in {"train", "test", fit.held_out_split(group.dataset)}
        }
        if plan is None:
            chosen = planning.choose(workdir, group, splits["train"], devices, strategy)
            plan, program = chosen.plan._asdict() | {"done": 0}, chosen.program
            planning.store(workdir, number, plan)
        else:
            program = population.Program(settings, devices, plan["chunk_size"], plan["strategy"])
        data = {name: program.layout.share(split) for name, split in splits.items()}
        names, size = list(group.configs), plan["chunk_size"]
        for chunk in range(plan["done"], -(-len(names) // size)):
            members, folder = names[chunk * size :][:size], workdir / POPULATION / f"{number}-{chunk}"
            crew = Crew(workdir, folder, group, members, program, data)
            if not crew.train(save_every, board, should_stop):
                return False
            planning.store(workdir, number, plan | {"done": chunk + 1})
            _delete(folder)
            board.chunk_ended(members)
    _delete(workdir / POPULATION)
    return True


class Crew:
    """The runs of one population in training: their states on the devices, and their folders."""

    def __init__(
        self,
        workdir: Path,
        checkpoints: Path,
        group: Group,
        names: list[str],
        program: population.Program,
        data: dict[str, Any],
    ):
        self.names, self.program, self.data, self.checkpoints = names, program, data, checkpoints
        self.records = [group.record(workdir, name) for name in names]
        self.held_out = fit.held_out_split(group.dataset)
        # Filled up to the shape that is compiled; what fills it never takes a step.
        configs = [group.configs[name] for name in names]
        configs += configs[-1:] * (program.num_runs - len(configs))
        layout = program.layout
        self.members = layout.put(population.members([c.seed for c in configs], [c.hyperparameters for c in configs]))
        checkpoint.clean(checkpoints)
        saved = hosts.agreed(lambda: checkpoint.steps(checkpoints))
        self.step = saved[-1] if saved else 0
        self.going = np.arange(program.num_runs) < len(names)
        if saved:
            restored = checkpoint.restore(checkpoints, self.step, self._like(configs[0]))
            self.states, self.going = layout.put(restored["states"]), np.asarray(restored["going"])
        else:
            self.states = self._first_states(group)
        # Not of a run that ended: it may have been gone on with alone.
        self.metrics = {
            r: Metrics(record.workdir, self.step, watched=False)
            for r, record in enumerate(self.records)
            if self.going[r]
        }
        for record in self._going(self.records):
            if hosts.is_first():
                (record.workdir / FAILURE).unlink(missing_ok=True)

    def train(
        self,
        save_every: float,
        board: Scoreboard,
        should_stop: Callable[[], bool],
        ended_early: Callable[[int, dict[str, dict[str, float]]], set[str]] = lambda epoch, values: set(),
    ) -> bool:
        """Train until all runs are done or failed, or until asked to stop; whether they are done.

        `ended_early` is given the epoch that ended and the held-out values of each run, and names the runs that end
        with it; they leave a checkpoint.
        """
        record = self.records[0]
        pace, saver = fit.Pace(SECONDS_PER_CALL), Saver(save_every)
        while self.step < record.num_steps and self.going.any() and not hosts.any_of(should_stop()):
            epoch_end = (self.step // record.steps_per_epoch + 1) * record.steps_per_epoch
            stop = min(self.step + pace.steps_per_call, epoch_end)
            called = time.perf_counter()
            stops = np.where(self.going, stop, 0)
            self.states, seen = self.program.train_steps(self.members, self.states, self.data["train"], stops)
            pace.saw(stop - self.step, time.perf_counter() - called)
            self.step = stop
            self._fail("the bound or its gradient", np.asarray(jax.vmap(training.last_step_was_finite)(seen)))
            if stop == epoch_end:
                values = self._end_epoch(seen, board)
                self._leave(ended_early(stop // record.steps_per_epoch, values))
                saver.at_epoch_end(self._save)
            going = int(self.going.sum())
            board.update(self.names, self.held_out, stop, going, pace.seconds_per_step, stop == epoch_end)
        if self.step < record.num_steps and self.going.any():
            self._save()
            return False
        self._end()
        return True

    def drop(self, names: set[str]) -> None:
        """These runs take no further step, and leave nothing."""
        self.going &= np.array([r >= len(self.names) or self.names[r] not in names for r in range(len(self.going))])

    def _leave(self, names: set[str]) -> None:
        states = self.program.layout.get(self.states) if names else None
        for r, record in enumerate(self.records):
            if self.names[r] in names and self.going[r]:
                _save_run(record.workdir, self.step, states, r)
        self.drop(names)

    def _end_epoch(self, seen: training.TrainState, board: Scoreboard) -> dict[str, dict[str, float]]:
        self.states = self.program.refit(self.members, self.states, self.data["train"])
        values = self.program.validate(self.members, self.states, self.data[self.held_out])
        for r, record in enumerate(self.records):
            if self.going[r]:
                means = epoch_means(_of_run(seen, r), record.steps_per_epoch)
                record.write(self.metrics[r], self.step, "train", means)
                record.write(self.metrics[r], self.step, self.held_out, _floats(values, r))
                board.saw(self.names[r], _floats(values, r))
        self._fail(f"the {self.held_out} bound", np.isfinite(values["bound"]))
        return {name: _floats(values, r) for r, name in enumerate(self.names) if self.going[r]}

    def _fail(self, what: str, finite: np.ndarray) -> None:
        """Mark the runs that are not finite; they take no further step."""
        failed = np.flatnonzero(self.going & ~finite)
        states = self.program.layout.get(self.states) if len(failed) else None
        for r in map(int, failed):
            self.records[r].failure(what, _of_run(states, r))
        self.going &= finite

    def _end(self) -> None:
        """The last checkpoint and the test row of every run that did not fail."""
        values = self.program.validate(self.members, self.states, self.data["test"])
        states = self.program.layout.get(self.states)
        for r, record in enumerate(self.records):
            if self.going[r]:
                if self.held_out != "test":
                    record.write(self.metrics[r], self.step, "test", _floats(values, r))
                _save_run(record.workdir, self.step, states, r)
            if hosts.is_first():
                tensorboard.write_rows(record.workdir, read_metrics(record.workdir))

    def _save(self) -> None:
        states = self.program.layout.get(self.states)
        checkpoint.save(self.checkpoints, self.step, {"states": states, "going": self.going})
        checkpoint.prune(self.checkpoints, keep_last=2, keep_best=0)

    def _first_states(self, group: Group) -> Any:
        layout = self.program.layout
        moments = layout.share(images.moments(group.dataset.train.images))
        states = self.program.initialize(self.members, moments)
        if group.config.init_from is None:
            return states
        host = layout.get(states)
        params = fit.initial_params(group.config.init_from, _of_run(host.params, 0))
        repeated = jax.tree.map(lambda a: np.repeat(np.asarray(a)[None], self.program.num_runs, 0), params)
        return layout.put(fit.started_from(host, repeated))

    def _like(self, config: Config) -> dict[str, Any]:
        state = fit.abstract_state(config)
        states = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.program.num_runs, *leaf.shape), leaf.dtype), state
        )
        return {"states": states, "going": jax.ShapeDtypeStruct((self.program.num_runs,), np.bool_)}

    def _going(self, of_all: list[Any]) -> list[Any]:
        return [one for r, one in enumerate(of_all) if self.going[r]]


class Saver:
    """Says when a checkpoint is due: `save_every` seconds after the last one, and seldom enough to cost little."""

    def __init__(self, save_every: float):
        self._save_every, self._due = save_every, time.perf_counter() + save_every

    def at_epoch_end(self, save: Callable[[], None]) -> None:
        started = time.perf_counter()
        if hosts.agreed(lambda: started >= self._due):
            save()
            ended = time.perf_counter()
            share = (ended - started) / SAVING_SHARE if self._save_every else 0
            self._due = ended + max(self._save_every, share)


def _delete(folder: Path) -> None:
    if hosts.is_first():
        shutil.rmtree(folder, ignore_errors=True)


def _save_run(workdir: Path, step: int, states: Any, r: int) -> None:
    folder = workdir / CHECKPOINTS
    checkpoint.clean(folder)
    # Without a score: it is the last one, and need not be the best.
    checkpoint.save(folder, step, _of_run(states, r))


def _of_run(tree: Any, r: int) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf[r]), tree)


def _floats(values: dict[str, np.ndarray], r: int) -> dict[str, float]:
    return {name: float(column[r]) for name, column in values.items()}
