"""The compiled programs of a search, as few as can be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from vae.datasets import images
from vae.datasets.dataset import Split
from vae.sweeps import planning
from vae.sweeps.planning import Group, Plan, PlannedProgram
from vae.training.program import Program, cached_program


class ProgramCache:
    """Compiled programs by their Settings, a few sizes of each up to a whole round; smaller groups are filled up.

    With the strategy "auto", a program that half of a round or less shares is that of one run, and its runs wait for
    each other, unless a population would save much more time than compiling its program takes.
    """

    def __init__(self, devices: Sequence[Any], strategy: str, most: int):
        self._devices, self._strategy, self._most = devices, strategy, most
        self._compiled: dict[Any, dict[int, Program]] = {}
        self._chosen: dict[Any, str] = {}

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
            alone = cached_program(settings, tuple(self._devices), 1, "loop")
            if num_runs == 1 or self._is_soon_done(alone, group, data):
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

    def _is_soon_done(self, alone: Program, group: Group, data: Split) -> bool:
        """Whether its runs, one after the other, train no longer than another program is worth."""
        started, moments = time.perf_counter(), images.moments(group.dataset.train.images)
        a_step = planning.measure(alone, [group.config], data, moments)
        spent = time.perf_counter() - started  # most of it compiles
        num_steps = group.config.epochs * (len(data.images) // group.config.settings.batch_size)
        return a_step * num_steps * len(group.configs) < planning.WORTH_A_TRIAL * spent
