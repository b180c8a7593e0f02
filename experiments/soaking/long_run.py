"""A long run in one process: its memory and its open files stay as they are."""

from __future__ import annotations

import math
import os
import signal
import statistics
import time
from pathlib import Path

from experiments.soaking.results import NotRight
from experiments.soaking.trials import TRAIN, Trial, Trials

EPOCHS, WARM = 2000, 200  # memory may grow in the first ones
LONG = TRAIN._replace(flags=(*TRAIN.flags, f"--epochs={EPOCHS}"))
LEAST_SECONDS = 90
GROWTH = 0.1  # of the memory, at most: malloc keeps more or less of what was freed


def flat_memory(trials: Trials) -> None:
    """Measure a run of EPOCHS, or of as many as there is time for."""
    if trials.seconds < LEAST_SECONDS:
        trials.notes.append(f"skipped: there are {trials.seconds:.0f} seconds for it, and it takes {LEAST_SECONDS}")
        return

    def attempt(trial: Trial) -> None:
        process, began, samples = trials.processes.start(trial.folder, LONG), time.monotonic(), []
        while process.wait(0.5):
            epoch = int((process.printed(r"epoch (\d+)/") or ["0"])[-1])
            samples.append((epoch, resident(process.pid), len(os.listdir(f"/proc/{process.pid}/fd"))))
            if time.monotonic() - began > trials.seconds:
                process.send(signal.SIGTERM)
                break
        ended = process.ended()
        if ended.code not in (0, 75):
            raise NotRight(f"exit code {ended.code}: {ended.err.strip()[-1500:]!r}")
        warm = [sample for sample in samples if WARM <= sample[0] < EPOCHS]  # the test images take more at the end
        if not warm or warm[-1][0] < 2 * WARM:
            trials.notes.append(
                f"only {samples[-1][0]} epochs, of which the first {WARM} are not judged: give more time"
            )
            return
        trial.tried += 1
        tenth = math.ceil(len(warm) / 10)
        ends = (warm[:tenth], warm[-tenth:])
        (first, memory, files), (last, more_memory, more_files) = (
            [statistics.median(column) for column in zip(*part, strict=True)] for part in ends
        )
        told = f"{memory / 1e6:.0f} MB and {files:g} open files around epoch {first:g}, "
        told += f"{more_memory / 1e6:.0f} MB and {more_files:g} around epoch {last:g}"
        trials.notes.append(told)
        if more_memory > (1 + GROWTH) * memory or more_files > files:
            raise NotRight(told)

    trials.each(attempt)


def resident(pid: int) -> int:
    """The memory of a process, in bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
