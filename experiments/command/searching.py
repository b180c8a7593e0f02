"""The search of experiments.sweep: how it begins and ends, and what it prints."""

from __future__ import annotations

import math
import os
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import notes, profiling, script
from experiments.command.boards import SearchBoard
from experiments.command.search_asked import Wanted, about_study, argv, what_is_wanted
from experiments.command.stopping import Stopped, StopRequest
from experiments.flags.options import Flags
from experiments.flags.points import label
from vae.sweeps import space

if TYPE_CHECKING:
    from vae.sweeps.study import StudyWorker

JOURNAL = "study.journal"


def main(stop: StopRequest, flags: Flags, workdir: Path | None, stored: dict[str, Any]) -> int:
    wanted = what_is_wanted(flags, workdir, stored)
    if workdir is not None:
        check_kept(workdir, stored, wanted.asked, given="storage" in flags.given)
    from vae.runs.config import doubt_bits
    from vae.runs.folder import lock
    from vae.sweeps import search, storage, study
    from vae.sweeps.sweep_file import SWEEP

    asked, agreed = wanted.asked, about_study(wanted)
    with storage.failures_in_a_line(asked["storage"] or ""):
        shared = storage.open_storage(asked["storage"]) if asked["storage"] else None
        if shared is not None:
            study.join(shared, asked["study"], agreed)
        workdir = workdir or script.new_workdir("search", "sweeps")
        if stored:
            doubt_bits(workdir / SWEEP)
        with lock(workdir):
            stop.file = workdir / SWEEP
            opened = shared or storage.open_storage(str(workdir / JOURNAL))
            study.join(opened, asked["study"], agreed)
            study.name_metric(opened, asked["study"], f"validation {wanted.metric}")
            here = str(workdir.absolute()), os.uname().nodename
            identity = study.WorkerId(stored.get("worker") or uuid.uuid4().hex, *here)
            begin(workdir, stored, wanted, identity.id)
            worker = study.StudyWorker(opened, asked["study"], identity, agreed, asked["trials"])
            print(f"search for the highest validation {wanted.metric} by {asked['search']}: {asked['trials']} trials")
            show_programs(wanted.programs)
            with profiling.Profile(flags, workdir) as profile, SearchBoard(worker) as board, stop.polled():
                finished = search.search(
                    workdir,
                    worker,
                    wanted.spec(),
                    wanted.trial_run,
                    wanted.load,
                    devices=wanted.devices,
                    strategy=asked["strategy"],
                    save_every=flags.values["save_every"],
                    report=profile.watching(board.update),
                    should_stop=stop.requested,
                )
            if not finished:
                raise Stopped
            conclude(workdir, worker, wanted, figures=flags.values["figures"])
    print(workdir)
    return 0


def check_kept(workdir: Path, stored: dict[str, Any], asked: dict[str, Any], *, given: bool) -> None:
    """Raises RunError if what `workdir` keeps of a search is lost; `given`: the command itself names the storage."""
    from vae.runs.files import RunError
    from vae.sweeps import folders
    from vae.sweeps.sweep_file import SWEEP

    folders.check_listed(workdir, stored.get("runs", {}))
    if not asked["storage"] and stored.get("runs") and not (workdir / JOURNAL).exists():
        raise RunError(
            f"{workdir / JOURNAL}, which holds the trials of these runs, is lost; put it back, or choose "
            "another --workdir"
        )
    kept = None if given else asked["storage"]
    # A file that only sweep.json names is not made: it may be anywhere.
    if kept and "://" not in kept and not Path(kept).is_file():
        raise RunError(f"{kept}, the journal that {workdir / SWEEP} names, is lost; put it back, or give --storage")


def begin(workdir: Path, stored: dict[str, Any], wanted: Wanted, worker: str) -> None:
    """Write sweep.json, with what it already held of this search."""
    from vae.runs.config import provenance, with_history
    from vae.runs.files import write_json
    from vae.sweeps import folders
    from vae.sweeps.storage import without_password
    from vae.sweeps.sweep_file import SWEEP

    asked = wanted.asked
    kept = asked | {"storage": without_password(asked["storage"]) if asked["storage"] else None}
    about = {"runs": {}} | stored | kept | {"worker": worker, "devices": len(wanted.devices), "argv": argv()}
    write_json(workdir / SWEEP, with_history(stored, about | {"flags": wanted.base.values} | provenance()))
    folders.move_data(workdir, dict.fromkeys(about["runs"] or {}, wanted.data.dataset))


def show_programs(programs: dict[str, int]) -> None:
    """Print how many programs the space spans, if they are several."""
    if programs:
        parts = " × ".join(f"{count} of {name}" for name, count in programs.items())
        count = math.prod(programs.values())
        print(
            f"the space spans {count} programs ({parts}): each is compiled when its first trial trains, which takes "
            "seconds; a list or a range with steps (2:51:8) has fewer"
        )


def conclude(workdir: Path, worker: StudyWorker, wanted: Wanted, *, figures: bool) -> None:
    """Write and print what the search found; raises TrainingFailed if no trial is finite, or none on test images."""
    from vae.sweeps import folders, outcome, results
    from vae.training import record

    trials = worker.trials()
    found, table = outcome.outcome(trials, wanted.spec().space), results.write(workdir)
    elsewhere = f", {found.num_elsewhere} in training elsewhere" if found.num_elsewhere else ""
    print(f"trials: {found.counted}{elsewhere}")
    if not found.finished and not found.num_elsewhere:
        raise record.TrainingFailed(f"no trial finished ({found.counted}); search lower values of learning_rate")
    rows = results.rows(workdir)
    notes.show_runs("test bound not finite", results.not_tested(workdir, rows, folders.configs(workdir)), len(rows))
    if figures and found.finished:
        from experiments.pictures import search_pictures

        for path in search_pictures.draw(workdir, trials, wanted.axes, f"validation {wanted.metric}"):
            print(f"picture: {path}")
    print(f"results: {table}")
    if found.finished:
        point = label(space.point_of(wanted.axes, found.best.params))
        trial = f"trial {found.best.number} ({point})"
        print(f"best validation {wanted.metric}: {found.best.value:.2f} nats per image, {trial}")
        if (folder := outcome.folder_of(found.best, workdir, worker.identity.id)) is not None:
            print(f"next: python -m experiments.evaluate --workdir={shlex.quote(str(folder))}")
