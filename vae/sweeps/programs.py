"""The compiled programs of a search: as few as can be, and those of the next shapes while one trains."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from vae.datasets import images
from vae.datasets.dataset import Split
from vae.sweeps import planning
from vae.sweeps.planning import Group, Plan, PlannedProgram
from vae.training.program import Program, cached_program, run_inputs
from vae.training.start import held_out_split, stored_splits


class ProgramCache:
    """Compiled programs by their Settings, a few sizes of each up to a whole round; smaller groups are filled up.

    With the strategy "auto", a program that half of a round or less shares is that of one run, and its runs wait for
    each other, unless a population would save much more time than compiling its program takes.
    """

    def __init__(self, devices: Sequence[Any], strategy: str, most: int):
        self._devices, self._strategy, self._most = devices, strategy, most
        self._compiled: dict[Any, dict[int, Program]] = {}
        self._chosen: dict[Any, str] = {}
        self._ahead: dict[Any, Future[float]] = {}  # the seconds that it took
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def __enter__(self) -> ProgramCache:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compile_ahead(self, groups: Sequence[Group]) -> None:
        """Begin to compile the programs of one run that these groups will need, in their order, if they are several."""
        new = [group for group in groups if self._is_alone(group)]
        for group in new if len(new) > 1 else ():
            self._ahead[group.config.settings] = self._pool.submit(self._compile_alone, group)

    def program_for(self, group: Group, data: Split, plan: Plan | None) -> PlannedProgram:
        """The program of a stored plan, or one for the group, for half of it, or for as many of its runs as fit in
        memory; RunError as planning.choose."""
        compiled = self._compiled.setdefault(group.config.settings, {})
        if plan is None:
            program = self._new(group, data, compiled)
            return PlannedProgram(Plan(program.strategy, program.num_runs), program)
        if plan.chunk_size not in compiled:
            program = cached_program(group.config.settings, tuple(self._devices), plan.chunk_size, plan.strategy)
            compiled[plan.chunk_size] = program
        return PlannedProgram(plan, compiled[plan.chunk_size])

    def _new(self, group: Group, data: Split, compiled: dict[int, Program]) -> Program:
        settings, num_runs = group.config.settings, len(group.configs)
        if fitting := [size for size in compiled if 2 * size >= num_runs]:
            return compiled[min(fitting, key=lambda size: (size < num_runs, size))]
        if self._is_alone(group):
            ahead = self._ahead.get(settings)
            spent = self._compile_alone(group) if ahead is None else ahead.result()
            alone = self._program_alone(group)
            if num_runs == 1 or self._seconds_in_turn(alone, group, data) < planning.WORTH_A_TRIAL * spent:
                compiled[1] = alone
                return alone
        wanted = min(self._most, 1 << (num_runs - 1).bit_length())
        names, configs = list(group.configs), list(group.configs.values())
        configs += configs[-1:] * (wanted - len(configs))
        names += [f"{names[-1]}+{i}" for i in range(wanted - len(names))]
        filled = Group(dict(zip(names, configs, strict=True)), group.dataset)
        strategy = self._chosen.get(settings, self._strategy)
        compiled[wanted] = planning.choose(filled, data, self._devices, strategy).program
        if wanted > 1:
            self._chosen[settings] = compiled[wanted].strategy
        return compiled[wanted]

    def _is_alone(self, group: Group) -> bool:
        """Whether the program of one run comes first for a group: nothing is compiled for it, and few runs share it."""
        few = len(group.configs) == 1 or len(group.configs) <= self._most // 2
        return self._strategy == "auto" and few and not self._compiled.get(group.config.settings)

    def _program_alone(self, group: Group) -> Program:
        return cached_program(group.config.settings, tuple(self._devices), 1, "loop")

    def _compile_alone(self, group: Group) -> float:
        """Compile what one run calls until its first held-out bound, by calling it for no step; the seconds it took."""
        started, program = time.perf_counter(), self._program_alone(group)
        splits = stored_splits(group.dataset, group.config.settings.binarization)
        held_out = held_out_split(group.dataset)
        data = {name: program.layout.share(splits[name]) for name in ("train", held_out) if name is not None}
        inputs = program.layout.put(run_inputs([group.config]))
        states = program.initialize(inputs, program.layout.share(images.moments(group.dataset.train.images)))
        states, _ = program.train_steps(inputs, states, data["train"], np.zeros(1, int))
        if held_out is not None:
            program.validate(inputs, states, data[held_out])
        return time.perf_counter() - started

    def _seconds_in_turn(self, alone: Program, group: Group, data: Split) -> float:
        """How long the runs of a group would train, one after the other."""
        moments = images.moments(group.dataset.train.images)
        steps = group.config.epochs * (len(data.images) // group.config.settings.batch_size)
        return planning.measure(alone, [group.config], data, moments) * steps * len(group.configs)
