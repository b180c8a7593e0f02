"""The search of experiments.sweep: its flags, their checks, and what it prints and writes."""

from __future__ import annotations

import os
import secrets
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import notes, script
from experiments.command.boards import SearchBoard
from experiments.flags import axes, configuration
from experiments.flags.axes import Axis, Range
from experiments.flags.configuration import RunFlags
from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError
from experiments.flags.points import as_flags, configured, label, loader
from vae.sweeps import passwords

if TYPE_CHECKING:
    from vae.runs.config import Config

ONLY_WITH_SEARCH = ("trials", "population", "pruner", "metric", "storage", "study")
ASKED = ("search", "sweep", *ONLY_WITH_SEARCH, "strategy")  # stored in sweep.json, so that a search can resume
JOURNAL = "study.journal"
FIELD_OF = {"conditional": "num_classes"}  # fields of a Config whose flag has another name


def main(stop: script.StopRequest, flags: Flags, workdir: Path | None, stored: dict[str, Any]) -> int:
    import optuna

    from experiments.command import devices
    from vae.runs.files import RunError
    from vae.runs.folder import lock
    from vae.sweeps import folders, search, storage, study
    from vae.sweeps.sweep_file import SWEEP

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    base = configuration.settle(flags, stored.get("flags", {}))
    asked = what_is_asked(flags, workdir, stored)
    space = axes.parse_space(asked["sweep"], flags.given)
    check_space(space, asked["search"])
    num_devices = flags.values["devices"]
    if "devices" in stored and "devices" not in flags.given:
        num_devices = configuration.stored_value("devices", stored["devices"])
    available = devices.start(num_devices, flags.values["data_dir"], one_per_core=True)
    load = loader(flags.folders)
    corners = check_corners(space, base, load, available, begun=bool(stored))
    asked["metric"] = metric = metric_of(corners, asked["metric"])
    objective = base.values["objective"]
    asked["study"] = asked["study"] or f"{Path(base.values['dataset']).stem}-{objective}"
    wanted = about_study(space, base, asked)
    if workdir is not None:
        folders.check_listed(workdir, stored.get("runs", {}))
        if not asked["storage"] and stored.get("runs") and not (workdir / JOURNAL).exists():
            raise RunError(
                f"{workdir / JOURNAL}, which holds the trials of these runs, is lost; put it back, or choose "
                "another --workdir"
            )
        kept = asked["storage"] if "storage" not in flags.given else None
        # A file that only sweep.json names is not made: it may be anywhere.
        if kept and "://" not in kept and not Path(kept).is_file():
            raise RunError(f"{kept}, the journal that {workdir / SWEEP} names, is lost; put it back, or give --storage")
    with storage.failures_in_a_line(asked["storage"] or ""):
        shared = storage.open_storage(asked["storage"]) if asked["storage"] else None
        if shared is not None:
            study.join(shared, asked["study"], wanted)
        workdir = workdir or script.new_workdir("search", "sweeps")
        with lock(workdir):
            opened = shared or storage.open_storage(str(workdir / JOURNAL))
            study.join(opened, asked["study"], wanted)
            identity = study.WorkerId(
                stored.get("worker") or uuid.uuid4().hex, str(workdir.absolute()), os.uname().nodename
            )
            begin(workdir, stored, asked, base, identity.id, available)
            worker = study.StudyWorker(opened, asked["study"], identity, wanted, asked["trials"])
            spec = study.Spec(
                space=distributions(space),
                sampler=asked["search"],
                pruner=asked["pruner"],
                metric=metric,
                population=asked["population"],
                epochs=base.values["epochs"],
                seeds=(base.values["seed"], *(() if shared is None else (secrets.randbits(64),))),
            )

            def configure(params: dict[str, Any]) -> search.TrialRun:
                one = configured(point_of(space, params), base, load)
                about = {"flags": one.flags, "argv": argv(), "devices": list(map(str, available))}
                return search.TrialRun(one.values, one.config, about)

            shown = named(metric, objective)
            print(f"search for the highest validation {shown} by {asked['search']}: {asked['trials']} trials")
            with SearchBoard(worker) as board:
                finished = search.search(
                    workdir,
                    worker,
                    spec,
                    configure,
                    load,
                    devices=available,
                    strategy=asked["strategy"],
                    save_every=flags.values["save_every"],
                    report=board.update,
                    should_stop=stop.requested,
                )
            if not finished:
                return script.stopped(workdir)
            conclude(workdir, worker, space, shown, figures=flags.values["figures"])
    print(workdir)
    return 0


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
        asked["storage"] = str(Path(asked["storage"]).expanduser().absolute())
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


def check_space(space: Sequence[Axis | Range], sampler: str) -> None:
    """Raises UsageError for an axis that a search cannot have."""
    from vae.sweeps import ranking

    for axis in space:
        if axis.name == "seed":
            raise UsageError(
                "--sweep=seed is no axis of a search: the best seed is luck; train the winner with several seeds in a "
                "sweep without --search"
            )
        if axis.name == "epochs":
            raise UsageError("--sweep=epochs is no axis of a search: all trials have the same number; use --epochs")
        field = FIELD_OF.get(axis.name, axis.name)
        values = [ranking.as_held_out(field, value) for value in axis.values] if isinstance(axis, Axis) else []
        if field in ranking.IMAGES and (not values or any(value != values[0] for value in values)):
            raise UsageError(
                f"--sweep={axis.name} is no axis of a search: bounds on other data, or under another likelihood, do "
                "not compare; make a search for each"
            )
        if sampler == "cmaes" and isinstance(axis, Axis):
            raise UsageError(
                f"--search=cmaes takes numbers, and --sweep={axis.name} is a list; write a range, as in "
                f"--sweep=learning_rate=log:1e-4:1e-2, or use --search=tpe"
            )


def metric_of(corners: dict[str, Config], asked: str | None) -> str:
    """The value of a trial: the bound, or the ELBO if an axis changes what the bound means."""
    from vae.sweeps import ranking

    changing = as_flags(field for one in ranking.rankings(corners) for field in one.changing)
    if changing and asked == "bound":
        raise UsageError(
            f"--metric=bound compares what is not comparable: {ranking.reason(changing[:1])}; use --metric=elbo"
        )
    if changing and asked is None:
        print(f"{ranking.reason(changing)}: trials are compared by the ELBO")
    return "elbo" if changing else asked or "bound"


def named(metric: str, objective: str) -> str:
    """The metric's name as it is shown; for the bound, the name of the objective."""
    return "ELBO" if metric == "elbo" else objective


def check_corners(space: Sequence[Axis | Range], base: RunFlags, load, available, *, begun: bool) -> dict[str, Config]:
    """The runs at the ends of the axes; raises UsageError or RunError if one of them cannot be trained."""
    from vae.sweeps import planning, sweep

    ends = {axis.name: axis.values if isinstance(axis, Axis) else [axis.low, axis.high] for axis in space}
    first = {name: values[0] for name, values in ends.items()}
    points = [first, *({**first, name: value} for name, values in ends.items() for value in values[1:])]
    runs = {str(i): configured(point, base, load).config for i, point in enumerate(points)}
    grouped = planning.grouped(runs, load)
    sweep.check(grouped, available, begun=begun)
    if not all(len(group.dataset.validation.images) for group in grouped):
        raise UsageError("a search chooses by validation images, and there are none; hold some out with --validation")
    notes.show(runs.values())
    return runs


def about_study(space: Sequence[Axis | Range], base: RunFlags, asked: dict[str, Any]) -> dict[str, Any]:
    """The values on which all workers of a study must agree."""
    swept = {axis.name for axis in space}
    same = {f"--{name}": asked[name] for name in ("search", "pruner", "metric")}
    flags = {f"--{name}": value for name, value in base.values.items() if name not in swept}
    for name in ("--data_dir", "--manual_dir"):
        flags.pop(name, None)
    # A flag that is newer than a study counts only if its value changes what runs did before the flag existed.
    for name, before in configuration.since_then().items():
        if flags.get(f"--{name}") == before:
            flags.pop(f"--{name}")
    return same | {"--sweep": sorted(asked["sweep"])} | flags


def distributions(space: Sequence[Axis | Range]) -> dict[str, Any]:
    """The axes as Optuna's distributions; a list is of the texts of its values."""
    from optuna import distributions as kinds

    found: dict[str, Any] = {}
    for axis in space:
        if isinstance(axis, Axis):
            found[axis.name] = kinds.CategoricalDistribution(axis.texts)
        elif axis.step is not None:
            found[axis.name] = kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=axis.step)
        else:
            found[axis.name] = kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def point_of(space: Sequence[Axis | Range], params: dict[str, Any]) -> dict[str, Any]:
    """The values of the axes of a trial's parameters."""
    lists = {axis.name: dict(zip(axis.texts, axis.values, strict=True)) for axis in space if isinstance(axis, Axis)}
    return {name: lists[name][value] if name in lists else value for name, value in params.items()}


def begin(workdir: Path, stored: dict[str, Any], asked: dict[str, Any], base: RunFlags, worker: str, available) -> None:
    """Write sweep.json, with what it already held of this search."""
    from vae.runs.config import provenance
    from vae.runs.files import write_json
    from vae.sweeps.storage import without_password
    from vae.sweeps.sweep_file import SWEEP

    kept = asked | {"storage": without_password(asked["storage"]) if asked["storage"] else None}
    about = {"runs": {}} | stored | kept | {"worker": worker, "devices": len(available), "argv": argv()}
    write_json(workdir / SWEEP, about | {"flags": base.values} | provenance())


def argv() -> list[str]:
    """The command, without a password."""
    return list(map(passwords.without_password, sys.argv))


def conclude(workdir: Path, worker, space: Sequence[Axis | Range], metric: str, *, figures: bool) -> None:
    """Write and print what the search found, `metric` as it is shown; TrainingFailed if no trial stayed finite."""
    from optuna.trial import TrialState

    from vae.sweeps import results, study
    from vae.training import record

    trials = worker.trials()
    told = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    finished = [trial for trial in told if trial.state == TrialState.COMPLETE]
    diverged = [trial for trial in told if trial.user_attrs.get(study.DIVERGED)]
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    table = results.write(workdir)
    counted = f"{len(finished)} finished, {len(told) - len(finished) - len(diverged)} pruned, {len(diverged)} diverged"
    print(f"trials: {counted}" + (f", {running} in training elsewhere" if running else ""))
    if not finished and not running:
        raise record.TrainingFailed(f"no trial finished ({counted}); search lower values of learning_rate")
    if figures and finished:
        from experiments.pictures import search_pictures

        for path in search_pictures.draw(workdir, trials, space, f"validation {metric}"):
            print(f"picture: {path}")
    print(f"results: {table}")
    if finished:
        best = max(finished, key=lambda trial: trial.value)
        folder = folder_of(best, workdir)
        print(
            f"best validation {metric}: {best.value:.2f} nats per image, trial {best.number} "
            f"({label(point_of(space, best.params))})"
        )
        if folder is not None:
            print(f"next: python -m experiments.evaluate --workdir={folder}")


def folder_of(trial, workdir: Path) -> Path | None:
    """The run folder of a trial. None if the study, which others write to, names no valid folder."""
    from vae import untrusted
    from vae.sweeps import planning, study

    try:
        owner, name = study.worker_of(trial), untrusted.plain_name(trial.user_attrs.get(study.RUN))
    except ValueError:
        return None
    if owner is None or not owner.workdir.isprintable():
        return None
    return (workdir if Path(owner.workdir) == workdir.absolute() else Path(owner.workdir)) / planning.RUNS / name
