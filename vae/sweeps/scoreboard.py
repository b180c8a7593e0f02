"""How far a sweep is, for the one who watches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae.sweeps import planning, ranking
from vae.training.loop import PopulationRun
from vae.training.start import held_out_split


class SweepProgress(NamedTuple):
    """What a watcher of a sweep sees. Values are nats per example."""

    num_runs: int
    finished: int
    diverged: int
    population: int  # runs of the population at work
    training: int  # those of them that have not ended
    epoch: float  # of that population
    num_epochs: int
    held_out_split: str | None
    best: dict[str, tuple[str, float]]  # of each ranking, as `validation elbo`: the run with the highest value
    epoch_ended: bool
    steps_per_second: float  # summed over runs
    seconds_left: float


class Scoreboard:
    """What all runs of a sweep have reached, for the one who watches."""

    def __init__(self, workdir: Path, grouped: Sequence[planning.Group], report: Callable[[SweepProgress], None]):
        self._report = report
        self._records = {name: group.record(workdir, name) for group in grouped for name in group.configs}
        self._rankings = ranking.rankings({name: record.config for name, record in self._records.items()})
        self._metric = {name: one.metric for one in self._rankings for name in one.names}
        self._held_out = {name: held_out_split(group.dataset) for group in grouped for name in group.configs}
        self._left = {name: record.num_steps for name, record in self._records.items()}
        self._values: dict[str, float] = {}
        self._ended: dict[str, bool] = {}  # whether it diverged

    def were_done(self, names: Sequence[str]) -> None:
        """These runs were done before this call of the sweep."""
        for name in names:
            record = self._records[name]
            self.saw(name, record.telling_row(self._held_out[name]), record.config.settings.objective)
        self.chunk_ended(names)

    def saw(self, name: str, row: Mapping[str, Any], bound: str = "bound") -> None:
        """The held-out metrics of a run at the end of an epoch, its bound under the name `bound`."""
        self._values[name] = ranking.value(self._metric[name], bound, row)

    def chunk_ended(self, names: Sequence[str]) -> None:
        """These runs are done."""
        for name in names:
            self._left[name], self._ended[name] = 0, self._records[name].failed_step() is not None

    def best(self) -> dict[str, tuple[str, float]]:
        """Of each of `ranking.rankings`, since runs of different ones do not compare."""
        found = {}
        for one in self._rankings:
            scored = [name for name in one.names if math.isfinite(self._values.get(name, math.nan))]
            if scored:
                name = max(scored, key=self._values.__getitem__)
                found[f"{self._held_out[name]} {one.title}"] = name, self._values[name]
        return found

    def update(self, run: PopulationRun) -> None:
        """Report how far the population in training is."""
        for name, values in run.telling_values.items():
            self.saw(name, values)
        record, training, names = run.records[0], int(run.training.sum()), set(run.names)
        others = sum(left for name, left in self._left.items() if name not in names)
        rate = training / run.pace.seconds_per_step if training else float("nan")
        left = others + training * (record.num_steps - run.step)
        self._report(
            SweepProgress(
                num_runs=len(self._records),
                finished=len(self._ended) - sum(self._ended.values()),
                diverged=sum(self._ended.values()) + len(names) - int(run.going.sum()),
                population=len(names),
                training=training,
                epoch=run.step / record.steps_per_epoch,
                num_epochs=record.config.epochs,
                held_out_split=run.held_out,
                best=self.best(),
                epoch_ended=run.epoch_ended,
                steps_per_second=rate,
                seconds_left=left / rate,
            )
        )
