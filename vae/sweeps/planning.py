"""Which runs of a sweep train together, and how: the fastest strategy, in populations that fit in memory."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vae import hosts
from vae.datasets import images
from vae.datasets.dataset import Dataset, Split
from vae.runs.config import Config
from vae.runs.files import RunError, write_json
from vae.sweeps.sweep_file import SWEEP, read_sweep
from vae.training import population
from vae.training.record import Record

RUNS = "runs"  # the folder of a sweep's run folders

MEASURED = ("map", "vmap")  # loop is left to those who want the bits of a run alone
TRIAL_SECONDS = 1.0
DEVICE_SHARE = 0.85  # of an accelerator's memory
HOST_SHARE = 0.5  # of a CPU's, where copies for the checkpoints lie as well


class Group(NamedTuple):
    """Runs of one program, by name, and the data they train on."""

    configs: dict[str, Config]
    dataset: Dataset

    @property
    def config(self) -> Config:
        return next(iter(self.configs.values()))

    def record(self, workdir: Path, name: str) -> Record:
        return Record(workdir / RUNS / name, self.configs[name], len(self.dataset.train.images))


def grouped(configs: dict[str, Config], load: Callable[[Config], Dataset]) -> list[Group]:
    """The runs that differ in arrays alone, together; `load` gives the data of a Config."""
    found: dict[Any, dict[str, Config]] = {}
    for name, config in configs.items():
        arrays = jax.tree.structure(config.hyperparameters)
        program = dataclasses.replace(config, seed=0, hyperparameters=type(config.hyperparameters)())
        found.setdefault((program, arrays), {})[name] = config
    return [Group(members, load(next(iter(members.values())))) for members in found.values()]


class Plan(NamedTuple):
    """`seconds` per run and step, over all devices; NaN where nothing was compared."""

    strategy: str
    chunk_size: int  # runs in a population
    seconds: float


def check_strategy(strategy: str) -> None:
    """Raises RunError where runs cannot be trained so on several hosts."""
    if strategy == "loop" and hosts.num_processes() > 1:
        raise RunError(
            "--strategy=loop keeps each run on a device of a single process, and this sweep has "
            f"{hosts.num_processes()} of them; use map or vmap in a new --workdir, or leave out --distributed"
        )


class Chosen(NamedTuple):
    plan: Plan
    program: population.Program


def choose(workdir: Path, group: Group, data: Split, devices: Sequence[Any], strategy: str) -> Chosen:
    """The plan for a group that trains on `data`. Raises RunError where no strategy works.

    "auto" measures: `map` first, then `vmap` where training takes longer than it took to find that out.
    """
    configs, moments = list(group.configs.values()), images.moments(group.dataset.train.images)
    num_steps = group.record(workdir, next(iter(group.configs))).num_steps
    alone = "loop" if hosts.num_processes() == 1 else "map"
    wanted = (strategy,) if strategy != "auto" else MEASURED if len(configs) > 1 else (alone,)
    found: list[Chosen] = []
    refused, spent = [], 0.0
    for name in wanted:
        if found and found[0].plan.seconds * len(configs) * num_steps < spent:
            break
        started = time.perf_counter()
        try:
            program = largest_program(configs, data, moments, devices, name)
            seconds = measure(program, configs, data, moments) if len(wanted) > 1 else math.nan
        except jax.errors.JaxRuntimeError as error:  # a product that the backend lacks, or no memory
            refused.append(f"{name}: {' '.join(str(error).split())[:200]}")
            continue
        spent = _seconds_since(started)
        found.append(Chosen(Plan(name, program.num_runs, seconds), program))
    if not found:
        raise RunError(f"these runs cannot be trained together ({'; '.join(refused)}); use --strategy=loop")
    return min(found, key=lambda chosen: chosen.plan.seconds)


def largest_program(
    configs: Sequence[Config], data: Split, moments: images.Moments, devices: Sequence[Any], strategy: str
) -> population.Program:
    """A program for as many of the runs as fit in memory at once, in equal shares."""
    settings, num_runs = configs[0].settings, len(configs)
    memory = hosts.agreed(lambda: memory_of(devices))
    while True:
        program = population.Program(settings, devices, num_runs, strategy)
        needed = program.bytes_on_a_device(*_arguments(program, configs, data, moments))
        smallest = program.mesh.shape["run"]
        if needed <= memory or num_runs <= smallest:
            return program
        fitting = max(smallest, int(0.9 * num_runs * memory / needed) // smallest * smallest)
        num_runs = math.ceil(len(configs) / math.ceil(len(configs) / min(fitting, num_runs - 1)))


def measure(program: population.Program, configs: Sequence[Config], data: Split, moments: images.Moments) -> float:
    """Seconds per run and step, of the steps that fit in about a second once the program is compiled.

    What a call costs without a step is left out: it shuffles the data of every run, once in many steps.
    """
    members, shared_moments, shared_data = _arguments(program, configs, data, moments)
    states = program.initialize(members, shared_moments)
    last = len(data.images) // configs[0].settings.batch_size

    def seconds_until(stop):
        nonlocal states
        started = time.perf_counter()
        states, _ = program.train_steps(members, states, shared_data, np.full(program.num_runs, stop))
        return _seconds_since(started)

    seconds_until(0)  # compiles
    without_steps = seconds_until(0)
    one_step = max(seconds_until(1) - without_steps, 1e-6)
    num_steps = max(1, min(int(TRIAL_SECONDS / one_step), last - 1))
    return max(seconds_until(1 + num_steps) - without_steps, 1e-6) / num_steps / program.num_runs


def memory_of(devices: Sequence[Any]) -> float:
    """Bytes that a population may take on each device."""
    device = devices[0]
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return DEVICE_SHARE * statistics["bytes_limit"]
    return HOST_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)


def _arguments(program: population.Program, configs: Sequence[Config], data: Split, moments: images.Moments):
    first = configs[: program.num_runs]
    members = population.members([c.seed for c in first], [c.hyperparameters for c in first])
    return program.layout.put(members), program.layout.share(moments), program.layout.share(data)


def stored(workdir: Path) -> dict[str, dict[str, Any]]:
    """The plan of each group, by its number, and how many of its chunks are done."""
    return hosts.agreed(lambda: read_sweep(workdir).get("groups", {}))


def store(workdir: Path, group: int, plan: dict[str, Any]) -> None:
    if hosts.is_first():
        about = read_sweep(workdir)
        write_json(workdir / SWEEP, about | {"groups": about.get("groups", {}) | {str(group): plan}})


def _seconds_since(started: float) -> float:
    return hosts.agreed(lambda: time.perf_counter() - started)
