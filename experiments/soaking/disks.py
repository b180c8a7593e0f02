"""Disks that are full or lose power, and folders that vanish. Mounting takes root."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.soaking.processes import Command, Process
from experiments.soaking.results import NotRight, outcome_of, unfinished
from experiments.soaking.trials import TRAIN, Trial, Trials, must_be_done, must_equal

FULL_BYTES = 4 << 20  # of the disk that gets full
CUT_BYTES = 32 << 20  # of the disk that loses power
RUN_BYTES = 1 << 20  # that a run takes, about


def if_mountable(kind: Callable[[Trials], None]) -> Callable[[Trials], None]:
    """`kind`, or a note if no small disk can be mounted here."""

    def tried(trials: Trials) -> None:
        folder = trials.folder / "disk"
        try:
            for what in (("-t", "tmpfs", "tmpfs"), ("-o", "loop", str(new_disk(trials.folder / "disk.img")))):
                with mounted(folder, *what):
                    pass
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            trials.notes.append(f"skipped: it takes root, to mount a disk ({' '.join(reason.split())})")
            return
        kind(trials)

    return tried


@contextlib.contextmanager
def mounted(folder: Path, *what: str) -> Iterator[Path]:
    """`mount what folder`, until the end."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *what, str(folder)], check=True, capture_output=True, text=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True, text=True)


def new_disk(path: Path) -> Path:
    """A file with an empty ext4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(CUT_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True, capture_output=True, text=True)
    return path


@if_mountable
def full_disk(trials: Trials) -> None:
    """Training fills a disk: it ends with one line, and resumes after room was made."""
    expected, _ = trials.undisturbed(TRAIN)

    def attempt(trial: Trial) -> None:
        with mounted(trial.folder / "disk", "-t", "tmpfs", "-o", f"size={FULL_BYTES}", "tmpfs") as disk:
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(FULL_BYTES - trials.random.randrange(RUN_BYTES)))
            ended = trials.processes.run(disk, TRAIN)
            if ended.code == 0:
                return  # there was room for all of it
            trial.count()
            if reason := ended.refusal():
                raise NotRight(reason)
            ballast.unlink()
            must_be_done(trials.processes.run(disk, TRAIN))
            must_equal(outcome_of(disk / "x"), expected)

    trials.each(attempt)


def power_cut(command: Command) -> Callable[[Trials], None]:
    """The kind in which a copy is made of a disk while `command` trains on it: that is what a power cut leaves."""

    @if_mountable
    def kind(trials: Trials) -> None:
        from vae.runs import checkpoint

        expected, seconds = trials.undisturbed(command)
        held = []

        def attempt(trial: Trial) -> None:
            disk = new_disk(trial.folder / "disk.img")
            with mounted(trial.folder / "before", "-o", "loop", str(disk)) as before:
                process = trials.processes.start(before, command)
                try:
                    trials.wait(process, seconds, trial)
                    stop(process)
                    copy = trial.folder / "copy.img"
                    copy.write_bytes(stable(disk))
                    trial.count()
                    saved = checkpoints_below(before / "x")
                finally:
                    process.kill()
            with mounted(trial.folder / "after", "-o", "loop", str(copy)) as after:
                left = checkpoints_below(after / "x")
                for folder, step in left:
                    checkpoint.verify(folder, step)
                held.append(bool(left))
                if len(saved) > 1 and not left:
                    raise NotRight(f"{len(saved)} checkpoints were saved, and none is on the disk")
                must_be_done(trials.processes.run(after, command))
                must_equal(outcome_of(after / "x"), expected)

        trials.each(attempt)
        trials.notes.append(
            f"{sum(held)} of {len(held)} copies held a checkpoint to resume from; the others began anew"
        )

    return kind


def checkpoints_below(folder: Path) -> list[tuple[Path, int]]:
    """The checkpoints of a run or a sweep, and of its populations: their folder and their step."""
    from vae.runs import checkpoint
    from vae.runs.folder import CHECKPOINTS
    from vae.sweeps.chunks import POPULATION

    folders = [*folder.rglob(CHECKPOINTS), *(folder / POPULATION).glob("*")]
    return [(one, step) for one in folders for step in checkpoint.steps(one)]


def stop(process: Process) -> None:
    """Stop a process, and wait until none of its threads does anything."""
    if not process.send(signal.SIGSTOP):
        return

    def stopped() -> bool:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stats = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/stat")]
            return all(stat.rpartition(")")[2].split()[0] in "TZX" for stat in stats)
        return True

    process.wait(10, until=stopped)


def stable(path: Path) -> bytes:
    """The content of a file that is the same twice: so nothing wrote to it in between."""
    while True:
        first = path.read_bytes()
        if first == path.read_bytes():
            return first


def vanished_folder(command: Command) -> Callable[[Trials], None]:
    """The kind in which the folder is deleted, or moved and later put back, while `command` trains in it."""

    def kind(trials: Trials) -> None:
        expected, seconds = trials.undisturbed(command)

        def attempt(trial: Trial) -> None:
            folder, aside = trial.folder / "x", trial.folder / "aside"
            process = trials.processes.start(trial.folder, command)
            process.wait(60, until=lambda: folder.exists() and any(folder.glob("*.json")))
            process.wait(trials.random.uniform(0, seconds))
            moved, running = trials.random.random() < 0.5, process.wait(0)
            if running:
                trial.tried += 1
                trial.within += bool(unfinished(folder))
                if moved:
                    folder.rename(aside)
                else:
                    shutil.rmtree(folder, ignore_errors=True)
            ended = process.ended()
            if running and ended.code and (reason := ended.refusal()):
                raise NotRight(f"{'moved' if moved else 'deleted'}: {reason}")
            if aside.exists():
                if folder.exists():
                    raise NotRight("it was moved, and a folder of its name was made again")
                aside.rename(folder)
            must_be_done(trials.processes.run(trial.folder, command))
            must_equal(outcome_of(folder), expected)

        trials.each(attempt)

    return kind
