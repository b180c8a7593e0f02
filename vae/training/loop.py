"""Training from its first step, or its last checkpoint, to its end: the one epoch loop, of a run alone and of many.

Epochs, held-out bounds, rows of metrics, failures; it stops and resumes without a trace in the result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from vae import hosts
from vae.datasets import images
from vae.datasets.dataset import Dataset
from vae.runs.ending import has_waited
from vae.training import step as training
from vae.training.keeper import Best, Keeper, Snapshot, save_run
from vae.training.program import Program, of_run, run_inputs
from vae.training.record import MemoryRecord, Record, TrainingFailed, epoch_means
from vae.training.start import held_out_split, initial_params, started_from

# Of a call of the compiled program, about: how often progress is seen and a request to stop is heard.
SECONDS_PER_CALL = 1.0
SECONDS_PER_CALL_OF_MANY = 4.0  # each call shuffles the data of every run anew; a signal is answered within 10

Values = dict[str, float]  # a bound (`bound`) and its metrics, in nats per example


def nobody(epoch: int, values: dict[str, Values]) -> set[str]:
    """No run ends early."""
    del epoch, values
    return set()


class PopulationRun:
    """Runs of one program in training: their states on the devices, and what is written of each. R may be 1.

    What `train` reports: `step`; `going` [R], which runs have not left; `training` [R], which of them take further
    steps; `seen`, the states without parameters; `epoch_ended` and, if so, `held_out_values` of the runs that trained
    in this epoch. At the end there are the `test_values` of those that were trained to it. `failures` are of the runs
    that diverged, by their number.
    """

    def __init__(
        self, records: Sequence[MemoryRecord], dataset: Dataset, program: Program, data: dict[str, Any], keeper: Keeper
    ):
        """`data` are the stored_splits of `dataset`, each as program.layout.share returns it."""
        self.records, self.held_out = records, held_out_split(dataset)
        self.pace = Pace(SECONDS_PER_CALL if program.alone else SECONDS_PER_CALL_OF_MANY)
        self.epoch_ended = False
        self.seen: Any = None
        self.held_out_values: dict[str, Values] = {}
        self.test_values: dict[str, Values] = {}
        self.failures: dict[int, TrainingFailed] = {}
        self._program, self._data, self._keeper = program, data, keeper
        # Filled up to the shape that is compiled; what fills it never takes a step.
        configs = [record.config for record in records]
        configs += configs[-1:] * (program.num_runs - len(configs))
        self._inputs = program.layout.put(run_inputs(configs))
        saved = keeper.restore(configs[0], program.num_runs)
        best: Best | None = None
        if saved is None:
            self.step, self.going, rows = 0, np.arange(program.num_runs) < len(records), ()
            self._states = self._first_states(dataset)
            self._reached = np.zeros(program.num_runs, np.int32)
        else:
            self.step, self.going, rows, best = saved.step, np.array(saved.going), saved.rows, saved.best
            self._states = program.layout.put(saved.states)
            self._reached = np.array(saved.states.step)
        self._best = jax.tree.map(np.array, best or self._first_best()) if records[0].wait else None
        self._over = self._has_waited()
        # Not of a run that ended: it may have been trained further, alone.
        of_each = dict(enumerate(rows))
        self._metrics = {
            r: records[r].open_metrics(self.step, of_each.get(r, ()), watched=program.alone) for r in self._going()
        }
        for r in self._going():
            records[r].begins()

    @property
    def names(self) -> list[str]:
        """Of the runs: those of their folders."""
        return [record.name for record in self.records]

    @property
    def training(self) -> Bool[np.ndarray, "R"]:
        """Which runs take further steps: those that go on, except if their patience is over."""
        return self.going & ~self._over

    @property
    def telling_values(self) -> dict[str, Values]:
        """`held_out_values`; of runs with patience only of those whose best epoch so far this one is."""
        if self._best is None:
            return self.held_out_values
        is_best = dict(zip(self.names, self._best.steps == self.step, strict=False))
        return {name: values for name, values in self.held_out_values.items() if is_best[name]}

    @property
    def best_steps(self) -> Int[np.ndarray, "R"] | None:
        """Of runs with patience: the step of each after which its validation bound was the highest."""
        return None if self._best is None else self._best.steps

    def train(
        self,
        report: Callable[[PopulationRun], None],
        should_stop: Callable[[], bool],
        ending: Callable[[int, dict[str, Values]], set[str]] = nobody,
    ) -> bool:
        """Train until all runs are done or failed, or until asked to stop; whether they are done.

        `ending` is given the epoch that ended and the held-out values of each run, and names the runs that end with
        it; they leave a checkpoint.
        """
        num_steps, steps_per_epoch = self.records[0].num_steps, self.records[0].steps_per_epoch
        self._began = time.perf_counter() - self.records[0].seconds_before()
        with contextlib.ExitStack() as opened:
            for metrics in self._metrics.values():
                opened.callback(metrics.close)
            while self.step < num_steps and self.training.any() and not hosts.any_of(should_stop()):
                epoch_end = (self.step // steps_per_epoch + 1) * steps_per_epoch
                self._advance(self.step + self.pace.steps_of_call(epoch_end - self.step))
                self.epoch_ended, self.held_out_values = self.step == epoch_end, {}
                if self.epoch_ended and self.going.any():
                    self._end_epoch(ending)
                report(self)
            if self.step < num_steps and self.training.any():
                self._keeper.stopped(self._snapshot())
                return False
            self._keeper.ended()
            self._end()
            return True

    def drop(self, names: set[str]) -> None:
        """These runs take no further step, and leave nothing."""
        for r in self._going():
            self.going[r] = self.names[r] not in names

    def _advance(self, stop: int) -> None:
        """Train to step `stop`, in this epoch."""
        called, stops = time.perf_counter(), np.where(self.training, stop, 0)
        self._states, seen = self._program.train_steps(self._inputs, self._states, self._data["train"], stops)
        self.pace.saw(stop - self.step, time.perf_counter() - called)
        self.step, self.seen, self._reached = stop, seen, np.array(seen.step)
        finite = [training.last_step_was_finite(of_run(seen, r)) for r in range(self._program.num_runs)]
        self._fail("the bound or its gradient", np.array(finite))

    def _end_epoch(self, ending: Callable[[int, dict[str, Values]], set[str]]) -> None:
        seconds = self._seconds()
        self._states = self._program.refit(self._inputs, self._states, self._data["train"])
        for r in self._trained():
            means = epoch_means(of_run(self.seen, r), self.records[r].steps_per_epoch)
            self.records[r].write(self._metrics[r], self.step, "train", means | seconds)
        values = self._validate(self.held_out) if self.held_out else {}
        if self._best is not None:
            self._hold_best(self._best, values["bound"])
        trained = {self.names[r]: _floats(values, r) for r in self._trained()}
        self._leave(ending(self.step // self.records[0].steps_per_epoch, trained))
        if self.going.any():
            self._keeper.epoch_ended(self._snapshot, values["bound"] if self.held_out == "validation" else None)

    def _validate(self, split: str) -> dict[str, Float[np.ndarray, "R"]]:
        """The bound and metrics of each run on a held-out split, written; runs whose bound is not finite fail."""
        values = self._program.validate(self._inputs, self._states, self._data[split])
        for r in self._trained():
            self.records[r].write(self._metrics[r], self.step, split, _floats(values, r))
        self.held_out_values = {self.names[r]: _floats(values, r) for r in self._trained()}
        self._fail(f"the {split} bound", np.isfinite(values["bound"]))
        return values

    def _hold_best(self, best: Best, bounds: Float[np.ndarray, "R"]) -> None:
        """Hold the states of the runs whose validation bound is higher than ever, and see which have waited enough."""
        better = [r for r in self._trained() if bounds[r] > best.bounds[r]]
        if better:
            best.steps[better], best.bounds[better] = self.step, bounds[better]
            now = self._program.layout.get(self._states)
            jax.tree.map(lambda held, state: held.__setitem__(better, state[better]), best.states, now)
        self._over = self._has_waited()

    def _has_waited(self) -> Bool[np.ndarray, "R"]:
        """Which runs' patience is over."""
        if self._best is None:
            return np.zeros(self._program.num_runs, bool)
        pairs = zip(self._best.steps.tolist(), self._epochs_ended().tolist(), strict=True)
        return np.array([has_waited(best, end, self.records[0].wait) for best, end in pairs])

    def _first_best(self) -> Best:
        """Of runs of which no epoch was validated: any is better than their states now."""
        never = np.full(self._program.num_runs, -np.inf, np.float32)
        return Best(self._program.layout.get(self._states), self._epochs_ended(), never)

    def _epochs_ended(self) -> Int[np.ndarray, "R"]:
        """The step at the end of the last epoch of each run."""
        steps_per_epoch = self.records[0].steps_per_epoch
        return self._reached // steps_per_epoch * steps_per_epoch

    def _fail(self, what: str, finite: Bool[np.ndarray, "R"]) -> None:
        """Mark the runs that are not finite; they take no further step."""
        failed = [r for r in self._going() if not finite[r]]
        states = self._program.layout.get(self._states) if failed else None
        for r in failed:
            self.failures[r] = self.records[r].failure(what, of_run(states, r))
        self.going = self.going & finite

    def _leave(self, names: set[str]) -> None:
        """These runs end before the others."""
        self._save_last([r for r in self._going() if self.names[r] in names])
        self.drop(names)

    def _end(self) -> None:
        """The last checkpoint of every run that did not fail, and the test row of the parameters that it leaves."""
        tested = "test" in self._data and self.going.any()
        judged = self._states if self._best is None else self._program.layout.put(self._best.states)
        steps = self._reached if self._best is None else self._best.steps
        values = self._program.validate(self._inputs, judged, self._data["test"]) if tested else {}
        self._save_last(self._going())
        for r in self._going() if tested else ():
            record, step = self.records[r], int(steps[r])
            self.test_values[self.names[r]] = _floats(values, r)
            if self.held_out != "test" and not record.was_tested(step):
                record.write(self._metrics[r], step, "test", _floats(values, r))
                self._metrics[r].synced()
        for record in () if self._program.alone else self.records:
            if isinstance(record, Record):
                record.show_rows()

    def _save_last(self, runs: list[int]) -> None:
        """The state of each of these runs, in its own folder."""
        if runs:
            snapshot = Snapshot(self.step, self._program.layout.get(self._states), self.going, best=self._best)
            for r in runs:
                save_run(self.records[r], r, snapshot, self._metrics[r].synced())

    def _snapshot(self) -> Snapshot:
        rows = [self._metrics[r].synced() if self.going[r] else [] for r in range(len(self.records))]
        return Snapshot(self.step, self._program.layout.get(self._states), self.going, rows, self._best)

    def _first_states(self, dataset: Dataset) -> Any:
        layout, init_from = self._program.layout, self.records[0].config.init_from
        states = self._program.initialize(self._inputs, layout.share(images.moments(dataset.train.images)))
        if init_from is None:
            return states
        host = layout.get(states)
        params = initial_params(init_from, of_run(host.params, 0))
        repeated = jax.tree.map(lambda a: np.repeat(np.asarray(a)[None], self._program.num_runs, 0), params)
        return layout.put(started_from(host, repeated))

    def _seconds(self) -> Values:
        """Of training up to now, for the rows of a run alone; of one among others they would say nothing."""
        return {"seconds": time.perf_counter() - self._began} if self._program.alone else {}

    def _going(self) -> list[int]:
        return [r for r in range(len(self.records)) if self.going[r]]

    def _trained(self) -> list[int]:
        """The runs that took the last steps."""
        return [r for r in self._going() if self._reached[r] == self.step]


class Pace:
    """How many steps a call of a compiled program takes, so that it lasts about `seconds_per_call`."""

    def __init__(self, seconds_per_call: float):
        self._seconds_per_call, self._compiled = seconds_per_call, False
        self.steps_per_call, self.seconds_per_step = 1, float("nan")

    def steps_of_call(self, left: int) -> int:
        """Of the next call, if `left` steps are: equal calls, at most half as long again, and no short last one."""
        return -(-left // max(1, round(left / self.steps_per_call)))

    def saw(self, num_steps: int, seconds: float) -> None:
        """A call of `num_steps` took `seconds`; the first one, which compiles, tells nothing of the pace."""
        if self._compiled:
            seconds = hosts.agreed(lambda: seconds)
            self.seconds_per_step = seconds / num_steps
            fitting = int(self._seconds_per_call / self.seconds_per_step)
            self.steps_per_call = max(1, min(8 * self.steps_per_call, fitting))
        self._compiled = True


def _floats(values: dict[str, np.ndarray], r: int) -> Values:
    return {name: float(column[r]) for name, column in values.items()}
