"""Bits flipped and ends cut off in every kind of file: the undisturbed result, or one line that says so."""

from __future__ import annotations

import collections
import random
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.soaking.kills import COMPARE
from experiments.soaking.processes import Command, Ended
from experiments.soaking.results import ORDER, NotRight, Outcome, comparison_of, differences, outcome_of
from experiments.soaking.trials import TRAIN, Trial, Trials, must_be_done

CUT = 0.25  # the share of trials that cut off the end of a file instead of flipping a bit
NO_RESULT = {".lock", "tensorboard", "figures"}  # what holds none
LONGER = TRAIN._replace(flags=(*TRAIN.flags, "--epochs=15"))
EVALUATE = Command("evaluate", ("--workdir=x", "--num_samples=20"))
LIST = Command("runs", ("--folder=x", "--json"))


def trained(trials: Trials, folder: Path) -> None:
    """Leave a run that was trained and evaluated."""
    for command in (TRAIN, EVALUATE):
        must_be_done(trials.processes.run(folder, command))


def stopped(command: Command, after: str) -> Callable[[Trials, Path], None]:
    """Leaves what `command` does if it is stopped by SIGTERM once it printed `after`."""

    def leave(trials: Trials, folder: Path) -> None:
        process = trials.processes.start(folder, command)
        process.wait(60, until=lambda: bool(process.printed(after)))
        process.send(signal.SIGTERM)
        if (code := process.ended().code) != 75:
            raise NotRight(f"{command.name} ended with {code} before it could be stopped")

    return leave


def damaged(leave: Callable[[Trials, Path], None], readers: Sequence[Command]) -> Callable[[Trials], None]:
    """The kind in which a file of what `leave` leaves is damaged, and then one of the `readers` is called."""

    def kind(trials: Trials) -> None:
        template = trials.folder / "template"
        template.mkdir(parents=True)
        leave(trials, template)
        files, expected = by_kind(template), {}
        for reader in readers:
            folder = trials.folder / reader.name
            shutil.copytree(template, folder)
            ended = trials.processes.run(folder, reader)
            must_be_done(ended)
            expected[reader.name] = outcome(reader, folder, ended)
        counted = collections.Counter(dict.fromkeys(files, 0))

        def attempt(trial: Trial) -> None:
            shutil.copytree(template, trial.folder, dirs_exist_ok=True)
            # The least tried kind of file: all come round.
            name = min(files, key=lambda name: counted[name])
            counted[name] += 1
            what = damage(trial.folder / trials.random.choice(files[name]), trials.random)
            reader = trials.random.choice(readers)
            trial.tried += 1
            ended = trials.processes.run(trial.folder, reader)
            try:
                check(reader, trial.folder, ended, expected[reader.name])
            except NotRight as error:
                raise NotRight(f"{what}, then {reader.name}: {error}") from error

        trials.each(attempt)
        trials.notes.append("times that each file was damaged: " + ", ".join(f"{n} {c}" for n, c in counted.items()))

    return kind


def by_kind(folder: Path) -> dict[str, list[Path]]:
    """The files below a folder by their names without numbers; what holds no result is left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_file() and path.stat().st_size and not NO_RESULT & {*below.parts}:
            found.setdefault(re.sub(r"[0-9a-f]{16,}|\d+", "N", str(below)), []).append(below)
    return found


def damage(path: Path, moments: random.Random) -> str:
    """Flip a bit of a file or cut off its end; which."""
    content = bytearray(path.read_bytes())
    position = moments.randrange(len(content))
    if moments.random() < CUT:
        path.write_bytes(content[:position])
        return f"{path.name} cut off at byte {position}"
    bit = moments.randrange(8)
    content[position] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {position} of {path.name} flipped"


def outcome(reader: Command, folder: Path, ended: Ended) -> Outcome:
    """What a reader gives: what it does not read may stay damaged."""
    if reader == LIST:
        return {f"line {number}": line for number, line in enumerate(ended.out.splitlines())}
    if reader == COMPARE:
        return comparison_of(folder / "x")
    found = outcome_of(folder / "x")
    return {name: value for name, value in found.items() if reader == EVALUATE or "evaluation" not in name}


def check(reader: Command, folder: Path, ended: Ended, expected: Outcome) -> None:
    """Raises NotRight unless a reader refused in one line, or gave what is `expected`.

    If it tells of damage, a list or a comparison may leave out what is hit, and rows of metrics may be lost; none may
    have other values.
    """
    if "Traceback" in ended.err:
        raise NotRight(f"a traceback: {ended.err.strip()[-1500:]!r}")
    if ended.code:
        if reason := ended.refusal():
            raise NotRight(reason)
        return
    if ended.told and reader in (LIST, COMPARE):
        return
    found = outcome(reader, folder, ended)
    wrong = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
    if ended.told:
        wrong = [name for name in wrong if name in found and name.rpartition(": ")[2] != ORDER]
    if wrong:
        told = f", though it told {ended.told}" if ended.told else ""
        raise NotRight(f"silently other values{told}: {'; '.join(differences(found, expected)[:3])}")
