"""The runs of a comparison or of a published table, trained as sweeps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import notes
from experiments.command.boards import SweepBoard
from experiments.command.stopping import Stopped, StopRequest
from experiments.flags.points import label

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config
    from vae.sweeps.comparing import ComparedRun


def train(
    workdir: Path,
    runs: Mapping[str, ComparedRun],
    load: Callable[[Config], Dataset],
    devices: Sequence[Any],
    stop: StopRequest,
) -> None:
    """Train every run that is not done; raises Stopped."""
    from vae.sweeps import comparing, planning, sweep

    for part in comparing.parts(workdir, runs, load):
        if not part.begun:
            comparing.begin(workdir, part.runs, load, devices, sys.argv)
        grouped = planning.grouped({name: one.config for name, one in part.runs.items()}, load)
        if not part.done:
            notes.describe(len(part.runs), len(grouped), devices)
        with SweepBoard({name: label(one.values) for name, one in part.runs.items()}) as board, stop.polled():
            if not sweep.sweep(workdir, grouped, devices=devices, report=board.update, should_stop=stop.requested):
                raise Stopped
