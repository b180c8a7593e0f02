"""A sweep: runs that share a program are trained as populations that fit in memory; stops and resumes as a run does.

<workdir>/sweep.json                      what was asked for; per group of runs: strategy, chunks and how many are done
          runs/<name>/                    the folder of a run, as of one that was trained alone
          population/<group>-<chunk>/     checkpoints of the population in training
          results.csv                     a line for each run
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vae.datasets.dataset import Split
from vae.sweeps import chunks, planning
from vae.sweeps.planning import Group, Plan, PlannedProgram, Plans
from vae.sweeps.scoreboard import SweepProgress
from vae.training import start
from vae.training.program import cached_program


def check(grouped: Sequence[Group], devices: Sequence[Any], *, begun: bool = False) -> None:
    """Raises RunError, CheckpointError or ObjectiveError if one of the runs cannot be trained; writes nothing.

    A sweep that has `begun` is not refused what a new one is.
    """
    for group in grouped:
        start.check(None, group.config, group.dataset, devices[:1], begun=begun)


def sweep(
    workdir: Path,
    grouped: Sequence[Group],
    *,
    devices: Sequence[Any],
    strategy: str = "auto",
    save_every: float = 30.0,
    report: Callable[[SweepProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train all runs, from the last checkpoint of the sweep in `workdir` if there is one; whether all are done.

    A run whose bound is not finite ends with failure.json; the others continue. Checkpoints of the population in
    training are at least `save_every` seconds apart. The caller holds the folder's lock and has written sweep.json, and
    the config.json of every run. Raises as fit.fit, except TrainingFailed.
    """

    def program_for(group: Group, data: Split, plan: Plan | None) -> PlannedProgram:
        planning.check_strategy(strategy if plan is None else plan.strategy)
        if plan is None:
            return planning.choose(group, data, devices, strategy)
        program = cached_program(group.config.settings, tuple(devices), plan.chunk_size, plan.strategy)
        return PlannedProgram(plan, program)

    watch = chunks.Watch(save_every, report, should_stop)
    loop = chunks.ChunkLoop(workdir, Plans(workdir), program_for, watch)
    finished = loop.train({str(number): group for number, group in enumerate(grouped)})
    if finished:
        chunks.delete(workdir / chunks.POPULATION)
    return finished
