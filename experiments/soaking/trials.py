"""How often a kind of interruption was tried, and what went wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from experiments.soaking.processes import Closed, Command, Ended, Process, Processes, TooLong
from experiments.soaking.results import NotRight, Outcome, differences, outcome_of, unfinished

TINY = ("--dataset=digits", "--hidden_sizes=16", "--nofigures", "--workdir=x")
TRAIN = Command("train", (*TINY, "--latent_dim=2", "--epochs=12", "--save_every=0"))
MOST_BEFORE_ONE = 10
AIMED = 0.4  # the share of moments that wait for a write


@dataclasses.dataclass
class Trial:
    """A folder, how many interruptions were tried in it, and how many of them left something unfinished."""

    folder: Path
    tried: int = 0
    within: int = 0
    _left: set[tuple[Path, int]] = dataclasses.field(default_factory=set)  # by interruptions before, with its inode

    def count(self) -> None:
        """One more interruption, which has just happened."""
        self.tried += 1
        self.within += self.writes()
        self._left |= self._unfinished()

    def writes(self) -> bool:
        """Whether something is unfinished that no interruption before has left."""
        return not self._unfinished() <= self._left

    def _unfinished(self) -> set[tuple[Path, int]]:
        found = set()
        for path in unfinished(self.folder):
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                found.add((path, path.stat().st_ino))
        return found


@dataclasses.dataclass
class Trials:
    """The trials of one kind, each in a folder of its own, which is kept if something went wrong in it.

    After `seconds` no other trial is begun. `random` decides all moments and places.
    """

    name: str
    folder: Path
    processes: Processes
    random: random.Random
    seconds: float
    tried: int = 0  # interruptions
    within: int = 0  # of them, those that left something unfinished
    right: int = 0  # of them, those after which all was right
    wrong: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def each(self, attempt: Callable[[Trial], None]) -> None:
        """Call `attempt` while there is time, and until something was tried: a run may end before it is interrupted.

        It raises NotRight or TooLong for what went wrong. Raises Closed if the soak is stopped meanwhile.
        """
        began, number = time.monotonic(), 0
        while (self.tried == 0 and number < MOST_BEFORE_ONE) or time.monotonic() - began < self.seconds:
            number += 1
            trial = Trial(self.folder / str(number))
            trial.folder.mkdir(parents=True)
            fault = None
            try:
                attempt(trial)
            except (NotRight, TooLong) as error:
                if self.processes.closed:  # the soak was stopped, and its processes were killed
                    raise Closed from error
                fault = f"{trial.folder}: {error}"
                self.wrong.append(fault)
                print(f"{self.name}: not right: {fault}")
            self.tried += max(trial.tried, fault is not None)
            self.within += trial.within
            if fault is None:
                self.right += trial.tried
                shutil.rmtree(trial.folder)

    def finished(self, command: Command, folder: Path) -> Outcome:
        """What `command`, which must end well, leaves in x below `folder`, and the table that it prints."""
        ended = self.processes.run(folder, command)
        must_be_done(ended)
        # A sweep and an evaluation of several runs end with it; what is printed before says how far they are.
        tables = {"table": ended.out.partition("\n\n")[2]} if command.name in ("sweep", "evaluate") else {}
        return outcome_of(folder / "x") | tables

    def undisturbed(self, command: Command, template: Path | None = None) -> tuple[Outcome, float]:
        """What `command` leaves in a copy of `template`, and the seconds that it takes once its programs are compiled.

        Raises NotRight if it leaves something else a second time.
        """
        found, seconds = [], 0.0
        for name in ("undisturbed", "again"):
            folder = self.folder / name
            folder.mkdir(parents=True)
            if template is not None:
                shutil.copytree(template, folder, dirs_exist_ok=True)
            began = time.monotonic()
            found.append(self.finished(command, folder))
            seconds = time.monotonic() - began
        must_equal(found[1], found[0])
        return found[0], seconds

    def wait(self, process: Process, seconds: float, trial: Trial) -> None:
        """Until a moment, uniform over `seconds`; in some cases until something is written then."""
        process.wait(self.random.uniform(0, seconds))
        if self.random.random() < AIMED:
            process.wait(seconds, until=trial.writes)


def must_be_done(ended: Ended) -> None:
    """Raises NotRight if a script did not end with exit code 0."""
    if ended.code or "Traceback" in ended.err:
        raise NotRight(f"exit code {ended.code}: {ended.err.strip()[-1500:]!r}")


def must_equal(found: Outcome, expected: Outcome) -> None:
    """Raises NotRight with the first differences."""
    if lines := differences(found, expected):
        raise NotRight(f"{len(lines)} values differ: {'; '.join(lines[:3])}")
