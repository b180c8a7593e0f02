"""kill -9: of one process, and of one of two that work together."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from experiments.soaking.processes import Command, Process
from experiments.soaking.results import NotRight, Outcome, of_run, outcome_of, trials_of, unfinished
from experiments.soaking.trials import TINY, TRAIN, Trial, Trials, must_be_done, must_equal

KILLS = 4  # of one run, at most
OFTEN = ("--strategy=map", "--save_every=0")  # a checkpoint after each epoch; auto would measure the machine
SWEEP = Command(
    "sweep", (*TINY, *OFTEN, "--epochs=8", "--sweep=latent_dim=2,3", "--sweep=learning_rate=0.001,0.002,1e30")
)
OF_SETTINGS = (*TINY, *OFTEN, "--latent_dim=2", "--epochs=6")
SETTINGS = Command("sweep", (*OF_SETTINGS, "--sweep=learning_rate=0.001,1e30", "--sweep=seed=0:2"))
GROWN = Command("sweep", (*OF_SETTINGS, "--sweep=learning_rate=0.001,0.002,1e30", "--sweep=seed=0:3"))
EVALUATED = Command("evaluate", ("--workdir=x", "--num_samples=200"))
# They end early, not all at one epoch.
WAITING = ("--learning_rate=0.03", "--epochs=60", "--patience=1")
TRAIN_WAITING = TRAIN._replace(flags=(*TRAIN.flags, *WAITING))
SWEEP_WAITING = Command("sweep", (*TINY, *OFTEN, "--latent_dim=2", *WAITING, "--sweep=seed=0:3"))
SEARCH = Command(
    "sweep",
    (*TINY, *OFTEN, "--latent_dim=2", "--epochs=6", "--search=tpe", "--trials=4", "--population=2", "--pruner=none",
     "--sweep=learning_rate=log:1e-4:1e-2"),
)  # fmt: skip
COMPARE = Command(
    "compare",
    (*TINY, "--latent_dim=2", "--objectives=elbo,iwae:num_samples=3", "--seeds=2", "--epochs=4",
     "--evaluation_samples=20", "--num_examples=60"),
)  # fmt: skip
# Two workers draw what they try: each trial is compared with the run of a sweep of its learning rate.
RATES = (0.001, 0.002, 0.003, 0.004)
OF_RATES = (*TINY, "--latent_dim=2", "--epochs=6", "--strategy=loop", "--save_every=0",
            f"--sweep=learning_rate={','.join(map(str, RATES))}")  # fmt: skip
SHARED = ("--search=random", "--population=2", "--pruner=none", "--storage=shared.journal")
NUM_SHARED = 6
JOINED = TRAIN._replace(flags=(*TRAIN.flags, "--distributed"))


def killed(command: Command, before: Command | None = None) -> Callable[[Trials], None]:
    """The kind in which the process of `command` is killed, up to KILLS times before it ends.

    If there is another command `before`, that has ended first.
    """

    def kind(trials: Trials) -> None:
        template = trials.folder / "template"
        template.mkdir(parents=True)
        if before is not None:
            must_be_done(trials.processes.run(template, before))
        expected, seconds = trials.undisturbed(command, template)

        def attempt(trial: Trial) -> None:
            shutil.copytree(template, trial.folder, dirs_exist_ok=True)
            for _ in range(KILLS):
                process = trials.processes.start(trial.folder, command)
                trials.wait(process, seconds, trial)
                if not process.kill():
                    break
                trial.count()
            must_equal(trials.finished(command, trial.folder), expected)
            must_be_finished(trial.folder)

        trials.each(attempt)

    return kind


def one_of_two_workers(trials: Trials) -> None:
    """Two workers share a search. One of them is killed and started again, while the other continues."""
    expected, seconds = trials.undisturbed(Command("sweep", OF_RATES))

    def attempt(trial: Trial) -> None:
        def start(name: str) -> Process:
            flags = (*OF_RATES, *SHARED, f"--trials={NUM_SHARED}", f"--workdir={name}")
            return trials.processes.start(trial.folder, Command("sweep", flags))

        other, doomed = start("a"), start("b")
        trials.wait(doomed, seconds, trial)
        if doomed.kill():
            trial.count()
            doomed = start("b")
        must_be_done(doomed.ended())
        must_be_done(other.ended())
        check_shared(trial, expected)

    trials.each(attempt)


def check_shared(trial: Trial, expected: Outcome) -> None:
    """Raises NotRight unless each trial of the study is trained once, to the bits of `expected` (a sweep of RATES)."""
    from vae.sweeps.outcome import folder_of
    from vae.sweeps.planning import run_name

    finished = [one for one in trials_of(trial.folder / "shared.journal") if one.state.name == "COMPLETE"]
    if len(finished) != NUM_SHARED:
        raise NotRight(f"{len(finished)} trials finished, not {NUM_SHARED}")
    folders = [folder_of(one, trial.folder, "") for one in finished]
    if None in folders or len({*folders}) != NUM_SHARED:
        raise NotRight(f"the folders of the trials are {', '.join(map(str, folders))}")
    for one, folder in zip(finished, folders, strict=True):
        assert folder is not None
        run = f"runs/{run_name(RATES.index(float(one.params['learning_rate'])), len(RATES))}: "
        alone = {name.removeprefix(run): value for name, value in expected.items() if name.startswith(run)}
        must_equal(of_run(folder), alone)
        must_be_finished(folder)  # the other worker failed what a killed one had in training: that stays as it is


def one_of_two_joined(trials: Trials) -> None:
    """Two processes train one run. One of them is killed; the other must end by itself, and both are started again."""

    def start(folder: Path) -> list[Process]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        return [trials.processes.start(folder, JOINED, JAX_PROCESS_ID=number, **cluster) for number in "01"]

    def train(name: str) -> float:
        folder, began = trials.folder / name, time.monotonic()
        folder.mkdir(parents=True)
        for process in start(folder):
            must_be_done(process.ended())
        return time.monotonic() - began

    train("undisturbed")
    seconds, expected = train("again"), outcome_of(trials.folder / "undisturbed" / "x")
    must_equal(outcome_of(trials.folder / "again" / "x"), expected)

    def attempt(trial: Trial) -> None:
        both = start(trial.folder)
        doomed = trials.random.choice(both)
        trials.wait(doomed, seconds, trial)
        if doomed.kill():
            trial.count()
        for process in both:
            process.ended()
        for process in start(trial.folder):
            must_be_done(process.ended())
        must_equal(outcome_of(trial.folder / "x"), expected)
        must_be_finished(trial.folder)

    trials.each(attempt)


def must_be_finished(folder: Path) -> None:
    """Raises NotRight if a part of a checkpoint is left in it."""
    from vae.runs.checkpoint import DELETED, PARTIAL

    if left := [path for path in unfinished(folder) if path.name.startswith((PARTIAL, DELETED))]:
        raise NotRight(f"{left[0]} is left")
