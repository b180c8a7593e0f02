"""What the folder of a reproduction keeps of what was asked, the runs of its cells, and what they cost."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.flags.options import DataFolders, Flags
from experiments.flags.parsing import UsageError
from experiments.flags.points import Data
from experiments.papers import TABLES
from experiments.papers.paper import PublishedCell, PublishedTable
from vae.rules import unknown

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config
    from vae.sweeps.comparing import ComparedRun

REPRODUCTION = "reproduction.json"
ASKED = {"table": str, "fraction": str, "cells": list, "seeds": int}
FRACTION = re.compile(r"(\d{1,9}(/\d{1,9})?|\d{0,3}\.\d{1,9})")


def fraction_of(text: str) -> Fraction:
    """A fraction above 0 and at most 1, as 1/20 or 0.05; raises ValueError."""
    if FRACTION.fullmatch(text):
        number, _, divisor = text.partition("/")
        if int(divisor or 1) and 0 < (found := Fraction(number) / int(divisor or 1)) <= 1:
            return found
    raise ValueError(f"must be a fraction above 0 and at most 1, as 1/20 or 0.05, got {text!r}")


def stored_reproduction(workdir: Path | None) -> dict[str, Any]:
    """What was asked of the reproduction in `workdir`; empty if there is none."""
    from vae.runs.files import RunError, read_json
    from vae.runs.folder import CHECKPOINTS, CONFIG
    from vae.sweeps.sweep_file import PLAN, SWEEP

    if workdir is None:
        return {}
    path = workdir / REPRODUCTION
    if not path.exists():
        if held := [name for name in (PLAN, SWEEP, CONFIG, CHECKPOINTS) if (workdir / name).exists()]:
            raise UsageError(
                f"{workdir} holds no reproduction ({held[0]}, but no {REPRODUCTION}); choose another --workdir"
            )
        return {}
    asked = read_json(path).get("asked")
    if not isinstance(asked, dict) or not _is_whole(asked):
        raise RunError(
            f"{path} is damaged: it does not say what was asked for; put it back, or choose another --workdir"
        )
    return asked


def _is_whole(asked: dict[str, Any]) -> bool:
    """Whether what a file holds can have been asked for."""
    if not all(isinstance(asked.get(name), kind) for name, kind in ASKED.items()):
        return False
    if asked["table"] not in TABLES or not 1 <= asked["seeds"] <= 1000 or not asked["cells"]:
        return False
    if not all(isinstance(cell, str) and cell in TABLES[asked["table"]].cells for cell in asked["cells"]):
        return False
    try:
        return str(fraction_of(asked["fraction"])) == asked["fraction"]
    except ValueError:
        return False


def what_is_asked(flags: Flags, workdir: Path | None, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The table, fraction, cells and seeds: as the command line says, else as stored; cells and seeds may grow.

    Raises UsageError for a cell that the table lacks, and if `workdir` holds another reproduction.
    """
    asked = flags.among(ASKED, stored)
    if asked["table"] is None:
        raise UsageError("which table? Write --table=NAME; --list shows them")
    asked["fraction"] = str(fraction_of(asked["fraction"]))
    cells = TABLES[asked["table"]].cells
    if wrong := [name for name in asked["cells"] if name not in cells]:
        raise UsageError(f"--cells: {unknown('cell', wrong[0], list(cells))}")
    if stored:
        found = [f"--{n} is {stored[n]}, not {asked[n]}" for n in ("table", "fraction") if stored[n] != asked[n]]
        if asked["seeds"] < stored["seeds"]:
            found.append(f"--seeds is {stored['seeds']}, not {asked['seeds']}, and can only grow")
        if found:
            raise UsageError(f"{workdir} holds another reproduction: {'; '.join(found)}; choose another --workdir")
        asked["cells"] = [*stored["cells"], *asked["cells"]]
    wanted = asked["cells"] or cells
    asked["cells"] = [name for name in cells if name in wanted]
    for name in asked["cells"]:
        if lacking := lacks(cells[name]):
            raise UsageError(f"the cell {name} cannot be trained: {lacking}; leave it out, as in --cells=CELL,CELL")
    return asked


def lacks(cell: PublishedCell) -> str | None:
    """What this version lacks to train a cell; None if nothing."""
    from vae.datasets import NAMES

    dataset = cell.values()["dataset"]
    if dataset not in NAMES:
        return f"it needs the data set {dataset}, which this version lacks"
    return f"it needs {cell.needs}, which this version lacks" if cell.needs else None


def trained_cell(table: PublishedTable, name: str) -> str:
    """The cell whose runs are those of the cell `name`."""
    return table.cells[name].runs_of or name


def data_of(cell: PublishedCell) -> Data:
    """Which images a cell is about."""
    values = cell.values()
    return Data(values["dataset"], values.get("validation"), values.get("image_size"))


def config_of(cell: PublishedCell, load: Callable[[Any], Dataset], fraction: Fraction = Fraction(1)) -> Config:
    """The run of a cell with seed 0, as its paper trained it, or a fraction of that."""
    from vae.configuration import resolve

    return resolve(cell.values(fraction), load(data_of(cell)), cell.settings.keys())


class Reproduced(NamedTuple):
    """The runs that are trained: of each cell with runs of its own the Config (seed 0), and all runs by folder name."""

    configs: dict[str, Config]
    runs: dict[str, ComparedRun]


def run_name(cell: str, seed: int) -> str:
    """The folder of a run."""
    return f"{cell.replace('/', '-')}-seed{seed}"


def plan(asked: Mapping[str, Any], folders: DataFolders, load: Callable[[Any], Dataset]) -> Reproduced:
    """Every run of what is asked, each data set loaded; DataError if one is missing."""
    from experiments.flags.configuration import as_flag
    from vae.configuration import complete
    from vae.sweeps.comparing import ComparedRun

    table, fraction = TABLES[asked["table"]], fraction_of(asked["fraction"])
    configs, runs = {}, {}
    for name in dict.fromkeys(trained_cell(table, name) for name in asked["cells"]):
        cell = table.cells[name]
        configs[name] = config_of(cell, load, fraction)
        values = {option: as_flag(value) for option, value in complete(cell.values(fraction)).items()}
        values |= {"data_dir": folders.data_dir, "manual_dir": folders.manual_dir}
        for seed in range(asked["seeds"]):
            config = dataclasses.replace(configs[name], seed=seed)
            runs[run_name(name, seed)] = ComparedRun(config, {"cell": name, "seed": seed}, values | {"seed": seed})
    return Reproduced(configs, runs)


def seconds_per_image(config: Config, dataset: Dataset, num_samples: int, device: Any) -> float:
    """Of the evaluation, measured on a few test images at the parameters before training."""
    import time

    import jax
    import numpy as np

    from vae.datasets import images
    from vae.evaluation import importance
    from vae.models import model as models
    from vae.training.program import of_run
    from vae.training.timing import StepsOfRuns

    steps = StepsOfRuns([config], dataset, [device])
    params = of_run(steps.program.layout.get(steps.states), 0).params
    data = images.stored(dataset, "test", config.settings.binarization, training=False)
    index = np.arange(min(len(data.images), max(1, 2**18 // num_samples)))
    labels = None if data.labels is None else data.labels[index]
    seconds = []
    for _ in range(2):  # the first one compiles
        started = time.perf_counter()
        importance.evaluate(
            jax.random.key(0), params, data.images[index], labels, index, model=models.build(config.settings),
            num_samples=num_samples, devices=[device],
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
    return seconds[-1] / len(index)


def described(cell: PublishedCell, fraction: Fraction) -> str:
    """What is trained of a cell, in words."""
    values, whole = cell.values(fraction), cell.values()
    of = "" if fraction == 1 else f" of {whole['epochs']:,}"
    text = f"{values['epochs']:,}{of} epochs of {cell.num_train // values['batch_size']:,} steps"
    if "stage_epochs" in values:
        stages = ", ".join(f"{n:.4g}" for n in values["stage_epochs"])
        text += f", in stages of {stages} epochs; the last one lasts until the end"
    if "warmup_epochs" in values:
        text += f", a warm-up of {values['warmup_epochs']:g} epochs"
    if "patience" in values:
        text += f", at most: a patience of {values['patience']} epochs"
    return text


def trained(asked: Mapping[str, Any]) -> list[str]:
    """What is trained of the cells, a line for those with the same schedule."""
    table, fraction = TABLES[asked["table"]], fraction_of(asked["fraction"])
    lines: dict[str, list[str]] = {}
    for name in asked["cells"]:
        lines.setdefault(described(table.cells[name], fraction), []).append(name)
    return list(lines) if len(lines) == 1 else [f"{', '.join(names)}: {text}" for text, names in lines.items()]
