"""How far a sweep is, for the one who watches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vae import fit, planning
from vae.record import FAILURE


class Progress(NamedTuple):
    """What a watcher of a sweep sees. Bounds are nats per example, of the objective being trained."""

    num_runs: int
    finished: int
    diverged: int
    training: int  # runs of the population at work
    epoch: float  # of that population
    num_epochs: int
    held_out_split: str
    best: dict[str, tuple[str, float]]  # by objective: the run with the highest last held-out bound, and that bound
    epoch_ended: bool
    steps_per_second: float  # summed over runs
    seconds_left: float


class Scoreboard:
    """What all runs of a sweep have reached, for the one who watches."""

    def __init__(self, workdir: Path, grouped: Sequence[planning.Group], report: Callable[[Progress], None]):
        self._report = report
        self._records = {name: group.record(workdir, name) for group in grouped for name in group.configs}
        self._left: dict[str, int] = {}  # steps
        self._bounds: dict[str, float] = {}
        self._ended: dict[str, bool] = {}  # whether it diverged
        for number, group in enumerate(grouped):
            plan = planning.stored(workdir).get(str(number), {"done": 0, "chunk_size": 0})
            done = plan["done"] * plan["chunk_size"]
            for position, name in enumerate(group.configs):
                record = self._records[name]
                self._left[name] = record.num_steps
                if position < done:
                    bound = record.last_bound(fit.held_out_split(group.dataset))
                    self.saw(name, float("nan") if bound is None else bound)
                    self.chunk_ended([name])

    def saw(self, name: str, bound: float) -> None:
        """The held-out bound of a run at the end of an epoch."""
        self._bounds[name] = bound

    def chunk_ended(self, names: list[str]) -> None:
        for name in names:
            self._left[name], self._ended[name] = 0, (self._records[name].workdir / FAILURE).exists()

    def best(self) -> dict[str, tuple[str, float]]:
        """By objective, since bounds of different objectives do not compare."""
        found: dict[str, tuple[str, float]] = {}
        for name, bound in self._bounds.items():
            objective = self._records[name].config.settings.objective
            if math.isfinite(bound) and (objective not in found or bound > found[objective][1]):
                found[objective] = name, bound
        return found

    def update(
        self, names: list[str], held_out: str, step: int, going: int, seconds_per_step: float, epoch_ended: bool
    ) -> None:
        """The population of the runs `names` is at `step`, and `going` of them go on."""
        record = self._records[names[0]]
        others = sum(left for name, left in self._left.items() if name not in set(names))
        rate = going / seconds_per_step if going else float("nan")
        left = others + going * (record.num_steps - step)
        self._report(
            Progress(
                num_runs=len(self._records),
                finished=len(self._ended) - sum(self._ended.values()),
                diverged=sum(self._ended.values()) + len(names) - going,
                training=going,
                epoch=step / record.steps_per_epoch,
                num_epochs=record.config.epochs,
                held_out_split=held_out,
                best=self.best(),
                epoch_ended=epoch_ended,
                steps_per_second=rate,
                seconds_left=left / rate,
            )
        )
