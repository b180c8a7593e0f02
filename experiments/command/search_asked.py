"""What a search of experiments.sweep is asked for: its flags and their checks; nothing is written."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.command import notes
from experiments.flags import axes, configuration
from experiments.flags.configuration import RunFlags
from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError
from experiments.flags.points import Data, configured, loader
from vae.places import expanded
from vae.sweeps import passwords, space
from vae.sweeps.space import SearchSpace

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config
    from vae.sweeps.samplers import Spec
    from vae.sweeps.search import TrialRun

ONLY_WITH_SEARCH = ("trials", "population", "pruner", "metric", "storage", "study")
ASKED = ("search", "sweep", *ONLY_WITH_SEARCH, "strategy")  # stored in sweep.json, so that a search can be resumed


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


def argv() -> list[str]:
    """The command, without a password."""
    return list(map(passwords.without_password, sys.argv))
