"""The search of experiments.sweep: its flags, their checks, and what it prints and writes."""

from __future__ import annotations

import math
import os
import secrets
import shlex
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.command import notes, profiling, script
from experiments.command.boards import SearchBoard
from experiments.command.stopping import Stopped, StopRequest
from experiments.flags import axes, configuration
from experiments.flags.configuration import RunFlags
from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError
from experiments.flags.points import Data, configured, label, loader
from vae.places import expanded
from vae.sweeps import passwords, space
from vae.sweeps.space import SearchSpace

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config
    from vae.sweeps.samplers import Spec
    from vae.sweeps.search import TrialRun
    from vae.sweeps.study import StudyWorker

ONLY_WITH_SEARCH = ("trials", "population", "pruner", "metric", "storage", "study")
ASKED = ("search", "sweep", *ONLY_WITH_SEARCH, "strategy")  # stored in sweep.json, so that a search can be resumed
JOURNAL = "study.journal"


class Wanted(NamedTuple):
    """What is searched: the flags of the search and of its runs, the axes, the data, and the devices."""

    asked: dict[str, Any]
    base: RunFlags
    axes: SearchSpace
    load: Callable[[Config | Data], Dataset]
    devices: Sequence[Any]
    programs: dict[str, int]  # that each axis spans, if they are several

    @property
    def data(self) -> Data:
        """The images of every trial: no axis changes them."""
        return Data(*(self.base.values[name] for name in Data._fields))

    @property
    def metric(self) -> str:
        """The metric's name as it is shown; for the bound, the name of the objective."""
        return "ELBO" if self.asked["metric"] == "elbo" else self.base.values["objective"]

    def trial_run(self, params: dict[str, Any]) -> TrialRun:
        """The run of a trial's parameters."""
        from vae.runs import fingerprint
        from vae.sweeps.search import TrialRun

        one = configured(space.point_of(self.axes, params), self.base, self.load)
        data = fingerprint.of(self.load(one.config))
        about = {"data": data, "flags": one.flags, "argv": argv(), "devices": list(map(str, self.devices))}
        return TrialRun(one.values, one.config, about)

    def spec(self) -> Spec:
        """What the study is asked for. Workers that share it draw on their own entropy too, so that each asks anew."""
        from vae.sweeps.samplers import Spec

        own = (secrets.randbits(64),) if self.asked["storage"] else ()
        return Spec(
            space=space.distributions(self.axes),
            sampler=self.asked["search"],
            pruner=self.asked["pruner"],
            metric=self.asked["metric"],
            population=self.asked["population"],
            epochs=self.base.values["epochs"],
            seeds=(self.base.values["seed"], *own),
        )


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


def what_is_wanted(flags: Flags, workdir: Path | None, stored: dict[str, Any]) -> Wanted:
    """What the flags ask for, once the runs at the ends of the axes were checked; nothing is written."""
    import optuna

    from experiments.command import devices
    from vae.sweeps.planning import program_of

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    base = configuration.settle(flags, stored.get("flags", {}))
    asked = what_is_asked(flags, workdir, stored)
    found = axes.parse_space(asked["sweep"], flags.given)
    space.check(found, asked["search"])
    num_devices = flags.values["devices"]
    if "devices" in stored and "devices" not in flags.given:
        num_devices = configuration.stored_value("devices", stored["devices"])
    available = devices.start(num_devices, flags.values["data_dir"], one_per_core=True)
    load = loader(flags.folders, workdir)
    corners = check_corners(found, base, load, available, begun=bool(stored))
    asked["metric"] = metric_of(corners, asked["metric"])
    asked["study"] = asked["study"] or f"{Path(base.values['dataset']).stem}-{base.values['objective']}"
    programs = space.programs(found, [program_of(config) for config in corners.values()])
    return Wanted(asked, base, found, load, available, programs)


def show_programs(programs: dict[str, int]) -> None:
    """Print how many programs the space spans, if they are several."""
    if programs:
        parts = " × ".join(f"{count} of {name}" for name, count in programs.items())
        count = math.prod(programs.values())
        print(
            f"the space spans {count} programs ({parts}): each is compiled when its first trial trains, which takes "
            "seconds; a list or a range with steps (2:51:8) has fewer"
        )


def check_absent(flags: Flags) -> None:
    """Raises UsageError if a flag of a search is given without --search."""
    for name in ONLY_WITH_SEARCH:
        if name in flags.given:
            raise UsageError(f"--{name} has no effect without --search; leave it out, or use --search=tpe")


def what_is_asked(flags: Flags, workdir: Path | None, stored: dict[str, Any]) -> dict[str, Any]:
    """The flags of the search; the stored value if a flag is not given. UsageError if they do not go together."""
    for name in ("zip", "random"):
        if name in flags.given:
            raise UsageError(f"--{name} has no effect with --search; leave it out")
    if flags.values["distributed"]:
        raise UsageError("--distributed does not go with --search: several workers on one --storage search together")
    if stored and not stored.get("search"):
        raise UsageError(f"{workdir} holds a sweep without --search; choose another --workdir")
    kept = {}
    if workdir is not None and stored:
        kept = configuration.stored_own(workdir / "sweep.json", stored, [name for name in ASKED if name in stored])
    asked = flags.among(ASKED, kept)
    if not asked["sweep"]:
        raise UsageError("nothing is searched; write --sweep=name=values, as in --sweep=learning_rate=log:1e-4:1e-2")
    if asked["storage"] and "://" not in asked["storage"]:
        asked["storage"] = str(expanded(asked["storage"]).absolute())
    if stored:
        check_same(workdir, stored, asked)
    return asked


def check_same(workdir: Path | None, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises UsageError if `workdir` holds another search. What its study is for is checked by the study itself."""
    from vae.sweeps.storage import without_password

    kept = asked | {"storage": without_password(asked["storage"]) if asked["storage"] else None}
    differing = [
        f"--{name} is {stored.get(name)}, not {kept[name]}"
        for name in ("search", "sweep", "pruner", "storage", "study")
        if stored.get(name) != kept[name]
    ]
    if differing:
        raise UsageError(f"{workdir} holds another search: {'; '.join(differing)}; choose another --workdir")
    if asked["storage"] and passwords.HIDDEN in asked["storage"]:
        raise UsageError(f"the password of --storage={asked['storage']} is not kept in a file; give --storage again")


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


def check_corners(found: SearchSpace, base: RunFlags, load, available, *, begun: bool) -> dict[str, Config]:
    """The runs at the ends of the axes; raises UsageError or RunError if one of them cannot be trained."""
    from vae.sweeps import planning, sweep

    runs = {str(i): configured(point, base, load).config for i, point in enumerate(space.corners(found))}
    grouped = planning.grouped(runs, load)
    sweep.check(grouped, available, begun=begun)
    if not all(len(group.dataset.validation.images) for group in grouped):
        raise UsageError("a search chooses by validation images, and there are none; hold some out with --validation")
    notes.show(runs.values(), base.values["binarization"])
    return runs


def metric_of(corners: dict[str, Config], asked: str | None) -> str:
    """The value of a trial; a line says so if it is the ELBO because the bounds of the runs do not compare."""
    from vae.sweeps import ranking

    changing = space.changes_of_bound(corners)
    metric = space.metric_of(changing, asked)
    if changing and asked is None:
        print(f"{ranking.reason(changing)}: trials are compared by the ELBO")
    return metric


def about_study(wanted: Wanted) -> dict[str, Any]:
    """The values, and the images, on which all workers of a study must agree."""
    from vae.runs import fingerprint
    from vae.sweeps import study

    swept = {axis.name for axis in wanted.axes}
    same = {f"--{name}": wanted.asked[name] for name in ("search", "pruner", "metric")}
    flags = {f"--{name}": value for name, value in wanted.base.values.items() if name not in swept}
    for name in ("--data_dir", "--manual_dir"):
        flags.pop(name, None)
    # A flag that is newer than a study counts only if its value changes what runs did before the flag existed.
    for name, before in configuration.since_then().items():
        if flags.get(f"--{name}") == before:
            flags.pop(f"--{name}")
    images = fingerprint.of(wanted.load(wanted.data))["images"]
    return same | {"--sweep": sorted(wanted.asked["sweep"])} | flags | {study.IMAGES: images}


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


def argv() -> list[str]:
    """The command, without a password."""
    return list(map(passwords.without_password, sys.argv))


def conclude(workdir: Path, worker: StudyWorker, wanted: Wanted, *, figures: bool) -> None:
    """Write and print what the search found; raises TrainingFailed if no trial is finite, or none on test images."""
    from vae.sweeps import folders, outcome, results
    from vae.training import record

    trials = worker.trials()
    found, table = outcome.outcome(trials, wanted.spec().space), results.write(workdir)
    elsewhere = f", {found.num_running} in training elsewhere" if found.num_running else ""
    print(f"trials: {found.counted}{elsewhere}")
    if not found.finished and not found.num_running:
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
