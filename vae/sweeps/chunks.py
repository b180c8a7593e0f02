"""How the runs of a sweep or a search train: group by group, each in chunks that fit in memory, as populations.

<workdir>/population/<group>-<chunk>/     checkpoints of the population in training
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vae import durable, hosts
from vae.datasets.dataset import Split
from vae.sweeps.planning import Group, Plan, PlannedProgram, Plans
from vae.sweeps.scoreboard import Scoreboard, SweepProgress
from vae.training.keeper import PopulationKeeper
from vae.training.loop import PopulationRun, Values, nobody
from vae.training.start import stored_splits

POPULATION = "population"  # the folder of its checkpoints while it trains


class Watch(NamedTuple):
    """Who watches, and how often a checkpoint of the population in training is saved: `save_every` seconds or more."""

    save_every: float
    report: Callable[[SweepProgress], None]
    should_stop: Callable[[], bool]


class Reporter:
    """Is told of a population while it trains, and says which of its runs end early; this one none."""

    def __init__(self, run: PopulationRun):
        self.run = run

    def epoch_ended(self, epoch: int, values: dict[str, Values]) -> set[str]:
        """As `ending` of PopulationRun.train."""
        return nobody(epoch, values)

    def ended(self) -> None:
        """All runs of the population are done, ended early or failed."""


class ChunkLoop(NamedTuple):
    """The loop over groups, and over the chunks of each; it resumes with the chunk that was in training.

    program_for(group, training data, stored plan) is the group's program and plan; the plan is None if it is new.
    """

    workdir: Path
    plans: Plans
    program_for: Callable[[Group, Split, Plan | None], PlannedProgram]
    watch: Watch
    reporter: Callable[[PopulationRun], Reporter] = Reporter

    def train(self, groups: Mapping[str, Group]) -> bool:
        """Train the groups, by the names of their plans; False if asked to stop."""
        board = Scoreboard(self.workdir, list(groups.values()), self.watch.report)
        return all(self._train_group(plan_name, group, board) for plan_name, group in groups.items())

    def _train_group(self, plan_name: str, group: Group, board: Scoreboard) -> bool:
        names, stored = list(group.configs), self.plans.load(plan_name)
        done = [] if stored is None else names[: stored.done * stored.chunk_size]
        board.were_done(done)
        if len(done) == len(names):
            return True
        splits = stored_splits(group.dataset, group.config.settings.binarization)
        plan, program = self.program_for(group, splits["train"], stored)
        if stored is None:
            self.plans.store(plan_name, plan)
        data = {name: program.layout.share(split) for name, split in splits.items()}
        for chunk in range(plan.done, -(-len(names) // plan.chunk_size)):
            members = names[chunk * plan.chunk_size :][: plan.chunk_size]
            folder = self.workdir / POPULATION / f"{plan_name}-{chunk}"
            records = [group.record(self.workdir, name) for name in members]
            durable.make_folder(folder.parent)
            keeper = PopulationKeeper(folder, self.watch.save_every)
            run = PopulationRun(records, group.dataset, program, data, keeper)
            reporter = self.reporter(run)
            if not run.train(board.update, self.watch.should_stop, reporter.epoch_ended):
                return False
            reporter.ended()
            self.plans.store(plan_name, plan._replace(done=chunk + 1))
            delete(folder)
            board.chunk_ended(members)
        return True


def delete(folder: Path) -> None:
    """Delete a folder of checkpoints, if it exists."""
    if hosts.is_first():
        shutil.rmtree(folder, ignore_errors=True)
