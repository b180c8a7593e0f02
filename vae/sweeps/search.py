"""Search: rounds of trials that a sampler asks for, each trained as populations, pruned while they train, and told.

<workdir>/sweep.json                      what was asked for, the worker's id, the trials, and the round in training
          runs/<trial>/                   the folder of a trial's run, as of one that was trained alone
          population/<trial>-<chunk>/     checkpoints of the population in training

With one worker the trials are a function of the seed and of what is asked for. Workers that share a storage also draw
on their own entropy, without which all would ask for the same.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from vae import durable
from vae.datasets.dataset import Dataset
from vae.runs.config import Config, read_config, write_config
from vae.runs.files import RunError, write_json
from vae.sweeps import folders, planning, ranking, samplers, study
from vae.sweeps.chunks import ChunkLoop, Reporter, Watch
from vae.sweeps.planning import RUNS, Plans
from vae.sweeps.programs import ProgramCache
from vae.sweeps.scoreboard import SweepProgress
from vae.sweeps.study import StudyWorker
from vae.sweeps.sweep_file import ROUND, SWEEP, read_sweep
from vae.training.loop import PopulationRun, Values


class TrialRun(NamedTuple):
    """A trial as a run: the values of the axes, its Config, and what else its config.json holds."""

    values: dict[str, Any]
    config: Config
    about: dict[str, Any]


def search(
    workdir: Path,
    worker: StudyWorker,
    spec: samplers.Spec,
    configure: Callable[[dict[str, Any]], TrialRun],
    load: Callable[[Config], Dataset],
    *,
    devices: Sequence[Any],
    strategy: str = "auto",
    save_every: float = 30.0,
    report: Callable[[SweepProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Ask, train and tell until the study's trials are told or in training elsewhere; False if asked to stop.

    `configure` makes a run of a trial's parameters. The round that was in training when the process ended resumes from
    its last checkpoint, without the trials that others have failed since. The caller holds the folder's lock, and has
    written `worker` and `runs` into sweep.json. Raises RunError as planning.choose, study.check_asked and `configure`.
    """
    watch = Watch(save_every, report, should_stop)
    rounds = Rounds(workdir, worker, spec, ProgramCache(devices, strategy, spec.population))
    with worker.beating():
        while not should_stop():
            if not stored(workdir) and not rounds.begin(configure):
                return True
            if not rounds.train(load, watch):
                return False
    return False


def stored(workdir: Path) -> dict[str, Any]:
    """The round in training: its `trials`, and by the first trial of each group, how it is trained."""
    return read_sweep(workdir).get(ROUND, {})


def worth(metric: str, objective: str, row: dict[str, Any]) -> float:
    """What a trial is told to be worth: that of `ranking.value`, the lowest of all if it is not finite."""
    value = ranking.value(metric, objective, row)
    return value if math.isfinite(value) else -math.inf


class Rounds:
    """The rounds of one worker: which trials they are, how each is trained, and what the study is told of it."""

    def __init__(self, workdir: Path, worker: StudyWorker, spec: samplers.Spec, programs: ProgramCache):
        self._workdir, self._worker, self._spec, self._programs = workdir, worker, spec, programs
        self._pruner = samplers.pruner(spec.pruner, spec.epochs)

    def begin(self, configure: Callable[[dict[str, Any]], TrialRun]) -> bool:
        """Ask for the trials of a round and write their folders; whether there were any to ask for."""
        worker, spec = self._worker, self._spec
        worker.free_the_dead(spec.space)
        wanted = min(spec.population, len(worker.asked_before()) + worker.num_left())
        asked = worker.ask(wanted, spec.space, lambda number: samplers.sampler(spec, number), self._pruner)
        try:
            runs = {planning.run_name(n, worker.num_trials): configure(params) for n, params in asked.items()}
            self._check_new(list(runs))
        except Exception:
            for number in asked:
                worker.fail(worker.id_of(number), "its run could not be made")
            raise
        for name, one in runs.items():
            folder = self._workdir / RUNS / name
            durable.make_folder(folder)
            write_config(folder, one.config, **one.about)
        if asked:
            known = read_sweep(self._workdir)["runs"]
            values = {name: one.values for name, one in runs.items()}
            self._store({"runs": known | values, ROUND: {"trials": list(asked), "names": list(runs), "plans": {}}})
        return bool(asked)

    def _check_new(self, names: list[str]) -> None:
        """Raises RunError if the folder of a new trial holds a run: the study has forgotten the trials before."""
        for path in (self._workdir / RUNS / name for name in names):
            if folders.was_trained(path):
                raise RunError(
                    f"{path} holds a run of another study than {self._worker.name}; choose another `workdir`"
                )

    def train(self, load: Callable[[Config], Dataset], watch: Watch) -> bool:
        """Train the stored round and tell its trials; False if asked to stop."""
        about, worker = stored(self._workdir), self._worker
        names = dict(zip(about["names"], about["trials"], strict=True))
        if lost := set(about["trials"]) - {trial.number for trial in worker.trials()}:
            raise RunError(
                f"the study {worker.name} has no trial {min(lost)}, which {self._workdir / SWEEP} says is in training: "
                "put the study's storage back, or choose another `workdir`"
            )
        study_of_round = worker.study(pruner=self._pruner)
        handles = {name: worker.trial(study_of_round, number) for name, number in names.items()}
        for trial in worker.trials():
            if trial.number in about["trials"] and trial.state in study.UNTOLD:
                worker.hold(trial._trial_id)
        grouped = planning.grouped({name: read_config(self._workdir / RUNS / name) for name in names}, load)

        def reporter(run: PopulationRun) -> TrialReporter:
            return TrialReporter(run, worker, study_of_round, handles, self._spec)

        plans = Plans(self._workdir, of_round=True)
        loop = ChunkLoop(self._workdir, plans, self._programs.program_for, watch, reporter)
        if not loop.train({next(iter(group.configs)): group for group in grouped}):
            return False
        self._store({ROUND: {}})
        return True

    def _store(self, changes: dict[str, Any]) -> None:
        write_json(self._workdir / SWEEP, read_sweep(self._workdir) | changes)


class TrialReporter(Reporter):
    """Tells the study of the trials of one population, and the population of those that are to end."""

    def __init__(
        self,
        run: PopulationRun,
        worker: StudyWorker,
        study_of_round: optuna.Study,
        handles: dict[str, optuna.trial.Trial],
        spec: samplers.Spec,
    ):
        """`handles` are the trials of a whole round, by the names of their runs."""
        super().__init__(run)
        self._worker, self._study, self._handles, self._spec = worker, study_of_round, handles, spec
        now = self._now()
        self.run.drop({name for name, trial in now.items() if trial.state == TrialState.FAIL})
        for trial in now.values():
            worker.start(trial)

    def epoch_ended(self, epoch: int, values: dict[str, Values]) -> set[str]:
        """Report the value of each run, and name those that end here: pruned now, or before the process was killed."""
        now, reported, ending, lost = self._now(), [], set(), set()
        for name, row in values.items():
            trial = now[name]
            if trial.state == TrialState.FAIL:
                lost.add(name)
            elif trial.state == TrialState.PRUNED and epoch >= (trial.last_step or 0):
                ending.add(name)
            elif trial.state == TrialState.RUNNING and epoch not in trial.intermediate_values:
                with _lost_to(lost, name):
                    self._handles[name].report(worth(self._spec.metric, "bound", row), epoch)
                    reported.append(name)
        for name in reported if epoch < self._spec.epochs else ():
            with _lost_to(lost, name):
                if self._handles[name].should_prune():
                    self._tell(name, TrialState.PRUNED)
                    ending.add(name)
        self._tell_diverged(now)
        self.run.drop(lost)
        return ending

    def ended(self) -> None:
        """Tell the trials that were in training until the end."""
        now, run = self._now(), self.run
        self._tell_diverged(now)
        for record, going, (name, trial) in zip(run.records, run.going, now.items(), strict=False):
            if trial.state == TrialState.RUNNING and record.failed_step() is None:
                last, objective = record.telling_row(run.held_out), record.config.settings.objective
                if going:
                    self._handles[name].set_user_attr(study.RUN, name)
                    self._tell(name, TrialState.COMPLETE, worth(self._spec.metric, objective, last))
                else:
                    self._tell(name, TrialState.PRUNED)

    def _tell_diverged(self, now: dict[str, FrozenTrial]) -> None:
        """A run that diverged is pruned with the lowest of all values, from which a sampler learns."""
        for record, (name, trial) in zip(self.run.records, now.items(), strict=True):
            failed_step = record.failed_step()
            if trial.state == TrialState.RUNNING and failed_step is not None:
                epoch = failed_step // record.steps_per_epoch + 1
                with _lost_to(set(), name):
                    self._handles[name].set_user_attr(study.DIVERGED, True)
                    self._handles[name].report(-math.inf, epoch)
                    self._tell(name, TrialState.PRUNED)

    def _tell(self, name: str, state: TrialState, value: float | None = None) -> None:
        with _lost_to(set(), name):
            self._study.tell(self._handles[name].number, value, state, skip_if_finished=True)
        self._worker.told(self._handles[name].number)

    def _now(self) -> dict[str, FrozenTrial]:
        by_number = {trial.number: trial for trial in self._worker.trials()}
        return {name: by_number[self._handles[name].number] for name in self.run.names}


@contextlib.contextmanager
def _lost_to(lost: set[str], name: str) -> Iterator[None]:
    """If another worker has failed the trial meanwhile, it is lost."""
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError:
        lost.add(name)
