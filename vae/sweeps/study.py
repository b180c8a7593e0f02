"""A study of Optuna that several workers share: who is at work on what, and how many trials are left.

A worker is a process with a work folder whose lock it holds (run.lock). Each trial names its worker, so that a trial in
training whose worker is dead is known: on the same file system by the free lock, in a database by its heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from vae.runs import fingerprint
from vae.runs.files import RunError, read_json
from vae.runs.folder import is_locked
from vae.sweeps.samplers import TOLD, Space, draw
from vae.sweeps.storage import HEARTBEAT_SECONDS, beat, watch, whoever_comes_first
from vae.sweeps.sweep_file import SWEEP

WORKER, RUN, DIVERGED, WHY = "worker", "run", "diverged", "why"  # user attributes of a trial
ASKED = "asked"  # of a study
UNTOLD = (TrialState.WAITING, TrialState.RUNNING)
IMAGES, DATASET = "images", "--dataset"  # of what is asked: the images (vae/runs/fingerprint.py), and their place


class WorkerId(NamedTuple):
    """Who a worker is. The sweep.json of `workdir` holds `id` too: a folder of that name elsewhere is another's."""

    id: str
    workdir: str
    host: str


def join(storage: optuna.storages.BaseStorage, name: str, asked: dict[str, Any]) -> None:
    """Make the study `name` for what is `asked` (JSON), or see that it is for the same; RunError with the differences.

    The value of a trial is maximised. Any number of processes may join at once.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        study = whoever_comes_first(
            lambda: optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True),
            name,
        )
    if study.directions != [optuna.study.StudyDirection.MAXIMIZE]:
        raise RunError(f"the study {name} does not maximise one value, as a bound is; use another `study`")
    # Trials first: of a study of this program, they are made after what is asked is stored.
    trials = study.get_trials(deepcopy=False)
    if ASKED not in study.user_attrs:
        if trials:
            raise RunError(f"the study {name} was not made by this program; use another `study`")
        study.set_user_attr(ASKED, asked)
    check_asked(study, asked)


def name_metric(storage: optuna.storages.BaseStorage, name: str, metric: str) -> None:
    """Say in the study what the value of a trial is, for those who look at it with Optuna's own tools."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.load_study(study_name=name, storage=storage)
        if study.metric_names != [metric]:
            study.set_metric_names([metric])


def check_asked(study: optuna.Study, asked: dict[str, Any]) -> None:
    """Raises RunError with each difference between what a worker and what the study asks for."""
    stored = study.user_attrs[ASKED]
    if not isinstance(stored, dict):
        raise RunError(f"the study {study.study_name} was not made by this program; use another `study`")
    stored, asked = dict(stored), dict(asked)
    differing = other_images(study.study_name, stored, asked)
    differing += [
        f"{name} is {_shown(stored.get(name))}, not {_shown(asked.get(name))}"
        for name in sorted({*stored, *asked})
        if stored.get(name) != asked.get(name)
    ]
    if differing:
        raise RunError(
            f"the study {study.study_name} is for something else: {'; '.join(differing)}; ask for the same, or use "
            "another `study`"
        )


def other_images(name: str, stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """How the images that are asked for differ from those of the study; takes what names images out of both.

    The same images may lie at different places. A study of before its images were kept knows their place alone.
    """
    before, now = stored.pop(IMAGES, None), asked.pop(IMAGES, None)
    if before is None or now is None:
        return []
    if not fingerprint.is_of_images(before):
        raise RunError(f"the study {name} is damaged: its images are none; use another `study`")
    place = asked.pop(DATASET, None)
    stored.pop(DATASET, None)
    differing = fingerprint.differences(before, now, conditional=bool(asked.get("--conditional")))
    return [f"{place} has {text}" for text in differing]


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class StudyWorker:
    """A worker of a study that is for `num_trials` trials over all workers."""

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        name: str,
        identity: WorkerId,
        asked: dict[str, Any],
        num_trials: int,
    ):
        self.storage, self.name, self.identity, self.num_trials = storage, name, identity, num_trials
        self._asked, self._study_id = asked, storage.get_study_id_from_name(name)
        self._held: set[int] = set()  # ids of the trials that it has asked for, and not told

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, as they are now; not to be changed. RunError if one is not of this program."""
        found = self.storage.get_all_trials(self._study_id, deepcopy=False)
        for trial in found:
            parts = trial.params, trial.user_attrs, trial.system_attrs, trial.intermediate_values
            numbers = [*trial.intermediate_values.values(), *(trial.values or [])] if _are_objects(parts) else ["none"]
            if not all(type(number) in (int, float) for number in numbers):
                raise RunError(f"trial {trial.number} of the study {self.name} is damaged; use another `study`")
        return found

    def num_left(self) -> int:
        """How many trials nobody has asked for; those that failed do not count."""
        check_asked(optuna.load_study(study_name=self.name, storage=self.storage), self._asked)
        return self.num_trials - sum(counts(trial) for trial in self.trials())

    def study(
        self, sampler: optuna.samplers.BaseSampler | None = None, pruner: optuna.pruners.BasePruner | None = None
    ) -> optuna.Study:
        return optuna.load_study(study_name=self.name, storage=self.storage, sampler=sampler, pruner=pruner)

    def ask(
        self,
        wanted: int,
        space: Space,
        sampler_from: Callable[[int], optuna.samplers.BaseSampler],
        pruner: optuna.pruners.BasePruner,
    ) -> dict[int, dict[str, Any]]:
        """The parameters of up to `wanted` trials by number; `sampler_from` is given the first number.

        The first are those of `asked_before`. Fewer if other workers have asked for the last ones. The trials are
        WAITING, without a start, until they train.
        """
        before, earlier, asked = self.asked_before(), self.trials(), {}
        if before:
            earlier = earlier[: before[0].number]
        drawn = draw(self.name, earlier, sampler_from(len(earlier)), pruner, space, wanted)
        for i in range(wanted):
            trial_id = before[i]._trial_id if i < len(before) else self._new_trial(drawn[i])
            self.hold(trial_id)
            trial = self.storage.get_trial(trial_id)
            if sum(counts(other) for other in self.trials() if other.number < trial.number) >= self.num_trials:
                self.fail(trial_id, "others had asked for the last trials")
                break
            asked[trial.number] = trial.params
        return asked

    def asked_before(self) -> list[FrozenTrial]:
        """The trials that this worker had asked for when it was killed, and had not begun to train."""
        return [
            trial
            for trial in self.trials()
            if trial.state in UNTOLD
            and trial._trial_id not in self._held
            and (of := worker_of(trial)) is not None
            and of.id == self.identity.id
        ]

    def _new_trial(self, drawn: FrozenTrial) -> int:
        # Not study.ask: at no time is there a trial without its worker's name.
        template = optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={WORKER: self.identity._asdict()},
            system_attrs=drawn.system_attrs,
        )
        return self.storage.create_new_trial(self._study_id, template)

    def trial(self, study: optuna.Study, number: int) -> Trial:
        return Trial(study, self.id_of(number))

    def told(self, number: int) -> None:
        self._held.discard(self.id_of(number))

    def hold(self, trial_id: int) -> None:
        """From now on the trial is known to be this worker's, until it is told or failed."""
        self._held.add(trial_id)
        beat(self.storage, trial_id)

    def start(self, trial: FrozenTrial) -> None:
        """Start the clock of a trial that trains from now on; one that has reported a value before keeps its start."""
        if trial.state in UNTOLD and not trial.intermediate_values:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                # Optuna sets the time when a trial is no longer WAITING, and at no other time.
                if trial.state == TrialState.RUNNING:
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def fail(self, trial_id: int, why: str) -> None:
        """The trial does not count any more; nothing happens if it was told."""
        self._held.discard(trial_id)
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial_id, WHY, why)
            self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)  # for Optuna, what has ended has begun
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def free_the_dead(self, space: Space) -> None:
        """Fail the trials whose worker is dead, and this one's that older code had not drawn to the end."""
        for trial in self.trials():
            if trial.state not in UNTOLD or (of := worker_of(trial)) is None:
                continue
            if of.id == self.identity.id:
                if trial.params.keys() != space.keys():
                    self.fail(trial._trial_id, "its values were not drawn")
            elif is_dead(of):
                self.fail(trial._trial_id, "its worker died")
            elif trial.state == TrialState.WAITING:
                watch(self.storage, trial._trial_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study())

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """While this lasts a database hears every HEARTBEAT_SECONDS of the trials that this worker holds."""
        ended = threading.Event()

        def keep_beating():
            while not ended.wait(HEARTBEAT_SECONDS):
                with contextlib.suppress(Exception):  # those who train will see it
                    for trial_id in list(self._held):
                        beat(self.storage, trial_id)

        thread = threading.Thread(target=keep_beating, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def id_of(self, number: int) -> int:
        """The storage's id of a trial by its number in the study."""
        return self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def _are_objects(parts: Iterable[Any]) -> bool:
    return all(isinstance(part, dict) for part in parts)


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: told, in training, or waiting for a worker of its own."""
    return trial.state in (TrialState.RUNNING, *TOLD) or (
        trial.state == TrialState.WAITING and WORKER in trial.user_attrs
    )


def worker_of(trial: FrozenTrial) -> WorkerId | None:
    """Who trains or has trained it, if it says so; RunError if that is no worker of this program."""
    of = trial.user_attrs.get(WORKER)
    if of is None:
        return None
    if not isinstance(of, dict) or set(of) != set(WorkerId._fields) or not all(isinstance(v, str) for v in of.values()):
        raise RunError(f"trial {trial.number} of the study was not made by this program; use another `study`")
    return WorkerId(**of)


def is_dead(worker: WorkerId) -> bool:
    """Whether a worker is known to have ended, from its folder; of another host's folder nothing is known."""
    folder = Path(worker.workdir)
    try:
        found = read_json(folder / SWEEP).get("worker") == worker.id
    except RunError:
        found = False
    return not is_locked(folder) if found else worker.host == os.uname().nodename
