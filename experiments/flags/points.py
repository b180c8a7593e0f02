"""From points of the axes to runs: each is the run that experiments.train would make of the same flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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


def configure(points: Sequence[dict[str, Any]], base: RunFlags, load) -> dict[str, Asked]:
    """The runs by name, those of `points` in their order; UsageError if two are the same, and as `configured`."""
    runs: dict[str, Asked] = {}
    names: dict[Config, str] = {}
    width = max(3, len(str(len(points) - 1)))
    for position, point in enumerate(points):
        one = configured(point, base, load)
        trained = as_trained(one.config)
        if trained in names:
            other = label(runs[names[trained]].values)
            raise UsageError(f"run {label(point)} is the same as run {other}: what differs has no effect")
        name = f"{position:0{width}}"
        names[trained] = name
        runs[name] = one
    return runs


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
