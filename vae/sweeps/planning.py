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
from vae.sweeps.sweep_file import ROUND, SWEEP, read_sweep
from vae.training.program import Program, cached_program, run_inputs
from vae.training.record import Record

RUNS = "runs"  # the folder of a sweep's run folders

MEASURED = ("map", "vmap")  # loop is left to those who want the bits of a run alone
TRIAL_SECONDS = 0.3
WORTH_A_TRIAL = 5.0  # times what one strategy's trial took must be left to train, for the next one's to pay
DEVICE_SHARE = 0.85  # of an accelerator's memory
HOST_SHARE = 0.5  # of a CPU's, which also holds copies for the checkpoints


def run_name(number: int, count: int) -> str:
    """The folder of a run among `count`; the name is a text for a spreadsheet too."""
    return f"run-{number:0{max(3, len(str(count - 1)))}}"


class Group(NamedTuple):
    """Runs of one program, by name, and the data they train on."""

    configs: dict[str, Config]
    dataset: Dataset

    @property
    def config(self) -> Config:
        return next(iter(self.configs.values()))

    def record(self, workdir: Path, name: str) -> Record:
        """What the run `name` of the sweep in `workdir` writes about its training."""
        return Record(self.configs[name], len(self.dataset.train.images), workdir=workdir / RUNS / name)


def grouped(configs: dict[str, Config], load: Callable[[Config], Dataset]) -> list[Group]:
    """The runs that differ in arrays alone, together; `load` gives the data of a Config."""
    found: dict[Any, dict[str, Config]] = {}
    for name, config in configs.items():
        found.setdefault(program_of(config), {})[name] = config
    return [Group(members, load(next(iter(members.values())))) for members in found.values()]


def program_of(config: Config) -> Any:
    """What two runs have in common if one program trains both on the same data; they differ in arrays alone then."""
    arrays = jax.tree.structure(config.hyperparameters)
    return dataclasses.replace(config, seed=0, hyperparameters=type(config.hyperparameters)()), arrays


class Plan(NamedTuple):
    """How a group is trained, and how many of its chunks are done."""

    strategy: str
    chunk_size: int  # runs in a population
    seconds: float = math.nan  # per run and step, over all devices; NaN if nothing was compared
    done: int = 0


class Plans(NamedTuple):
    """The plan of each group, by the group's key, in the sweep.json of `workdir`."""

    workdir: Path
    of_round: bool = False  # of a search: those of the round in training

    def load(self, key: str) -> Plan | None:
        """The stored plan of a group; None if it has none yet. RunError as read_sweep."""
        stored = hosts.agreed(lambda: self._all(read_sweep(self.workdir)).get(key))
        if stored is None:
            return None
        size = stored.get("chunk_size", stored.get("num_runs"))  # what searches called it before
        seconds = stored.get("seconds")
        return Plan(stored["strategy"], size, math.nan if seconds is None else seconds, stored["done"])

    def store(self, key: str, plan: Plan) -> None:
        """Write the plan of a group into sweep.json."""
        if hosts.is_first():
            about = read_sweep(self.workdir)
            plans = self._all(about) | {key: plan._asdict()}
            changed = {ROUND: about[ROUND] | {"plans": plans}} if self.of_round else {"groups": plans}
            write_json(self.workdir / SWEEP, about | changed)

    def _all(self, about: dict[str, Any]) -> dict[str, Any]:
        return about.get(ROUND, {}).get("plans", {}) if self.of_round else about.get("groups", {})


def check_strategy(strategy: str) -> None:
    """Raises RunError if runs cannot be trained so on several hosts."""
    if strategy == "loop" and hosts.num_processes() > 1:
        raise RunError(
            "`strategy=loop` keeps each run on a device of a single process, and this sweep has "
            f"{hosts.num_processes()} of them; use map or vmap in a new `workdir`, or leave out `distributed`"
        )


class PlannedProgram(NamedTuple):
    """A plan, and the program that it is for."""

    plan: Plan
    program: Program


def choose(group: Group, data: Split, devices: Sequence[Any], strategy: str) -> PlannedProgram:
    """The plan for a group that trains on `data`. Raises RunError if no strategy works.

    "auto" measures: `map` first, then `vmap` if training takes much longer than it took to find that out.
    """
    configs, moments = list(group.configs.values()), images.moments(group.dataset.train.images)
    num_steps = group.config.epochs * (len(data.images) // group.config.settings.batch_size)
    alone = "loop" if hosts.num_processes() == 1 else "map"
    wanted = (strategy,) if strategy != "auto" else MEASURED if len(configs) > 1 else (alone,)
    found: list[PlannedProgram] = []
    refused, spent = [], 0.0
    for name in wanted:
        if found and found[0].plan.seconds * len(configs) * num_steps < WORTH_A_TRIAL * spent:
            break
        started = time.perf_counter()
        try:
            program = largest_program(configs, data, moments, devices, name)
            seconds = measure(program, configs, data, moments) if len(wanted) > 1 else math.nan
        except jax.errors.JaxRuntimeError as error:  # a product that the backend lacks, or no memory
            refused.append(f"{name}: {' '.join(str(error).split())[:200]}")
            continue
        spent = _seconds_since(started)
        found.append(PlannedProgram(Plan(name, program.num_runs, seconds), program))
    if not found:
        raise RunError(f"these runs cannot be trained together ({'; '.join(refused)}); use `strategy=loop`")
    return min(found, key=lambda one: one.plan.seconds)


def largest_program(
    configs: Sequence[Config], data: Split, moments: images.Moments, devices: Sequence[Any], strategy: str
) -> Program:
    """A program for as many of the runs as fit in memory at once, in equal shares."""
    settings, num_runs = configs[0].settings, len(configs)
    memory = hosts.agreed(lambda: memory_of(devices))
    while True:
        program = cached_program(settings, tuple(devices), num_runs, strategy)
        needed = program.bytes_on_a_device(*_shared_out(program, configs, data, moments))
        smallest = program.mesh.shape["run"]
        if needed <= memory or num_runs <= smallest:
            return program
        fitting = max(smallest, int(0.9 * num_runs * memory / needed) // smallest * smallest)
        num_runs = math.ceil(len(configs) / math.ceil(len(configs) / min(fitting, num_runs - 1)))


def measure(program: Program, configs: Sequence[Config], data: Split, moments: images.Moments) -> float:
    """Seconds per run and step, of the steps that fit in `TRIAL_SECONDS` once the program is compiled.

    What a call costs without a step is left out: it shuffles the data of every run, once in many steps.
    """
    inputs, shared_moments, shared_data = _shared_out(program, configs, data, moments)
    states = program.initialize(inputs, shared_moments)
    last = len(data.images) // configs[0].settings.batch_size

    def seconds_until(stop):
        nonlocal states
        started = time.perf_counter()
        states, _ = program.train_steps(inputs, states, shared_data, np.full(program.num_runs, stop))
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


def _shared_out(program: Program, configs: Sequence[Config], data: Split, moments: images.Moments):
    """The inputs of as many runs as the program has, the moments and the data, on its devices."""
    put, share = program.layout.put, program.layout.share
    return put(run_inputs(configs[: program.num_runs])), share(moments), share(data)


def _seconds_since(started: float) -> float:
    return hosts.agreed(lambda: time.perf_counter() - started)
