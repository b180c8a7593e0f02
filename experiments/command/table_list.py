"""The published tables that experiments.reproduce knows, their cells, and what these cost on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.command import reproductions
from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError
from experiments.flags.points import loader
from experiments.papers import TABLES

OF_TRAINING = ("cells", "fraction", "seeds", "workdir", "num_examples")


def main(flags: Flags) -> int:
    """Print every table and its cells; of --table alone what each cell costs on this machine, too."""
    if idle := [name for name in OF_TRAINING if name in flags.given]:
        raise UsageError(f"--{idle[0]} has no effect with --list: nothing is trained; leave it out")
    if "num_samples" in flags.given and flags.values["table"] is None:
        raise UsageError("--num_samples has no effect with --list without --table; leave it out")
    chosen = flags.values["table"]
    for name in [chosen] if chosen else TABLES:
        table = TABLES[name]
        print(f"{name}: {table.paper}, {table.place}; {table.quantity.words}, k = {table.num_samples:,}")
        cost = cost_of(flags) if chosen else lambda cell: ""
        for cell in table.cells:
            print(f"  {line_of(name, cell)}{cost(cell)}", flush=True)
    if not chosen:
        print("what a cell costs on this machine: --list --table=NAME")
    return 0


def line_of(table: str, name: str) -> str:
    """A cell in a line: the paper's number, the data, parameters and steps."""
    cell = TABLES[table].cells[name]
    published = cell.published
    printed = "—" if published is None else f"{published.value:.2f}"
    if published is not None and published.error is not None:
        printed += f" ± {published.error:.2f}"
    if published is not None and published.quoted_by is not None:
        printed += " (second-hand)"
    lacking = reproductions.lacks(cell)
    return (
        f"{name}: {printed}; {cell.values()['dataset']}, {cell.num_parameters:,} parameters, "
        f"{'at most ' if cell.values().get('patience') else ''}{cell.num_steps():,} steps"
        + (f"; the runs of {cell.runs_of}" if cell.runs_of else "")
        + (f"; {lacking}" if lacking else "")
    )


def cost_of(flags: Flags) -> Callable[[str], str]:
    """Measures what a cell costs: the words for its line."""
    from experiments.command import devices
    from vae.datasets import DataError
    from vae.training import timing

    table, load = TABLES[flags.values["table"]], loader(flags.folders)
    num_samples = flags.values["num_samples"] or table.num_samples
    available = devices.start(flags.values["devices"] or 1, flags.values["data_dir"])
    of_model: dict[Any, float] = {}
    absent: set[str] = set()

    def cost(name: str) -> str:
        cell = table.cells[name]
        if cell.runs_of or reproductions.lacks(cell):
            return ""
        dataset = cell.values()["dataset"]
        if dataset in absent:
            return f"; not measured: {dataset} is not here"
        try:
            config = reproductions.config_of(cell, load)
        except DataError:
            absent.add(dataset)
            return f"; not measured: {dataset} is not here"
        (pace,) = timing.paces([config], load)
        key = config.dataset, cell.num_parameters
        if key not in of_model:
            of_model[key] = reproductions.seconds_per_image(config, load(config), num_samples, available[0])
        training, judging = pace * cell.num_steps(), of_model[key] * len(load(config).test.images)
        return (
            f"; a run alone: {1000 * pace:.3g} ms a step, {hours(training)} of training, {hours(judging)} of evaluation"
        )

    return cost


def hours(seconds: float) -> str:
    """A time in words."""
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds:,.0f} s"
