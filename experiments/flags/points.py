"""From points of the axes to runs: each is the run that experiments.train would make of the same flags."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.flags import options
from experiments.flags.axes import as_used
from experiments.flags.configuration import RunFlags
from experiments.flags.options import DataFolders
from experiments.flags.parsing import UsageError
from vae.configuration import ConfigurationError
from vae.runs.naming import text

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config


class Asked(NamedTuple):
    """A run of the sweep: the values of the axes, its Config, and every flag it would be trained alone with."""

    values: dict[str, Any]
    config: Config
    flags: dict[str, Any]


class Data(NamedTuple):
    """What of a Config says which images it is about."""

    dataset: str
    validation: int | None
    image_size: int | None


def data_of(config: Config | Data) -> Data:
    """Which images a Config is about."""
    return Data(*(getattr(config, name) for name in Data._fields))


def loader(folders: DataFolders, workdir: Path | None = None) -> Callable[[Config | Data], Dataset]:
    """Loads the data of a Config, each data set once.

    The runs below `workdir`, if there are any, must have been trained on the same images: RunError if not.
    """
    from vae.sweeps.folders import configs
    from vae.sweeps.planning import RUNS

    runs = {} if workdir is None else configs(workdir)
    loaded: dict[Data, Dataset] = {}

    def load(config):
        wanted = data_of(config)
        if wanted not in loaded:
            dataset = folders.load(*wanted)
            for name in (name for name, one in runs.items() if data_of(one) == wanted):
                dataset = options.checked(Path(workdir or "", RUNS, name), dataset)
            loaded[wanted] = dataset
        return loaded[wanted]

    return load


def configure(points: Sequence[dict[str, Any]], base: RunFlags, load) -> dict[Config, Asked]:
    """The runs of `points`, by what tells them apart; UsageError if two are the same, and as `configured`."""
    runs: dict[Config, Asked] = {}
    for point in points:
        one = configured(point, base, load)
        trained = as_trained(one.config)
        if trained in runs:
            other = label(runs[trained].values)
            raise UsageError(f"run {label(point)} is the same as run {other}: what differs has no effect")
        runs[trained] = one
    return runs


class GrownRuns(NamedTuple):
    """The runs of a sweep by name, and how many of them each command asked for: a part of it."""

    runs: dict[str, Asked]
    parts: list[int]

    def of_parts(self) -> list[dict[str, Asked]]:
        """The runs of each part."""
        rest = iter(self.runs.items())
        return [dict(itertools.islice(rest, count)) for count in self.parts]


def grown(wanted: Mapping[Config, Asked], stored: Mapping[str, Any], base: RunFlags, load) -> GrownRuns:
    """The runs that are `wanted`: those that the `stored` sweep.json names keep their names, and new ones follow.

    Raises UsageError if one that it names is not among them.
    """
    from vae.sweeps.planning import run_name

    left, runs, missing = dict(wanted), {}, []
    for name, values in stored.get("runs", {}).items():
        if (one := left.pop(as_trained(configured(values, base, load).config), None)) is None:
            missing.append(label(values))
        else:
            runs[name] = one
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"the sweep has the run {missing[0]}{more}, which this command leaves out, and a sweep can only grow; "
            f"keep all that was asked for ({' '.join(f'--sweep={axis}' for axis in stored['sweep'])}) and add to it, "
            "or choose another --workdir"
        )
    parts = stored.get("parts") or [len(runs)] * bool(runs)
    free = (name for i in itertools.count(len(runs)) if (name := run_name(i, len(wanted))) not in runs)
    runs |= {next(free): one for one in left.values()}
    return GrownRuns(runs, [*parts, *[len(left)] * bool(left)])


def configured(point: dict[str, Any], base: RunFlags, load) -> Asked:
    """The run of the flags `base` with the values of `point`; UsageError if experiments.train would refuse them."""
    run = base.at(point)
    try:
        run.check()
        config = run.config(load(Data(*(run.values[name] for name in Data._fields))))
    except (ConfigurationError, UsageError) as error:
        raise UsageError(f"run {label(point)}: {error}") from error
    return Asked(point, config, run.values)


def as_trained(config: Config) -> Config:
    """`config` with its numbers as they are computed with, in float32: what tells runs apart."""
    numbers = config.hyperparameters
    return dataclasses.replace(config, hyperparameters=numbers._make(map(as_used, numbers)))


def label(values: dict[str, Any]) -> str:
    """The values of the axes in a line; different values of the same axes have different labels."""

    def shown(value):
        if isinstance(value, list):
            return ",".join(map(text, value))
        return str(value) if isinstance(value, float) else text(value)

    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())
