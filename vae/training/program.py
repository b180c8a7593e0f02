"""R runs as one program: the functions of step.py for runs that differ in arrays alone; R is 1 for a run alone.

The arrays of a population have the runs along their leading axis. A layout says how they lie on the devices, and how
the function of one run becomes one of all runs. Devices form a mesh ("run", "data"): the runs are shared out over `run`
and never wait for each other; the batches of a run are shared over `data`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import Array, Float, Int

from vae import hosts, objectives
from vae.models import model as models
from vae.runs.config import Config
from vae.settings import Hyperparameters, Settings
from vae.streams import Stream, stream
from vae.training import step as training
from vae.training.slices import number_of_slices

STRATEGIES = ("vmap", "map", "loop")
ALONE = "alone"  # one run, whose batch is shared by all devices


class RunInputs(NamedTuple):
    """What tells runs of the same Settings apart; every leaf has the leading axis R."""

    seed: Int[Array, "R"] | Any
    hyperparameters: Hyperparameters


def run_inputs(configs: Sequence[Config]) -> RunInputs:
    """The inputs of R runs of the same Settings, as numpy arrays [R, …]."""
    hyperparameters = [config.hyperparameters for config in configs]

    def stacked_values(*values):
        array = np.stack(values)
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))

    stacked = jax.tree.map(stacked_values, *hyperparameters)
    return RunInputs(np.asarray([config.seed for config in configs], np.int32), stacked)


def of_run(tree: Any, r: int) -> Any:
    """The arrays of run `r` of a population, as numpy arrays; `tree` holds arrays [R, …]."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[r]), tree)


def mesh(devices: Sequence[Any], num_runs: int, batch_size: int) -> Mesh:
    """As many devices as there are runs share them out; of what is left, as many as divide the batch share each one.

    Devices may stay idle, processes may not: if one had no device, all devices share out runs, some of them copies.
    """
    across = min(len(devices), num_runs)
    within = max(n for n in range(1, len(devices) // across + 1) if batch_size % n == 0)
    used = devices[: across * within]
    if {device.process_index for device in used} != {device.process_index for device in devices}:
        used, across = devices, len(devices)
    grid = np.asarray(used).reshape(across, -1)
    return Mesh(grid, ("run", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


class Together:
    """One program for all runs: each device takes its share of them at once (vmap) or in turn (map)."""

    def __init__(self, mesh: Mesh, num_runs: int, strategy: str):
        self._mesh, self._num_runs, self._strategy = mesh, num_runs, strategy

    def put(self, tree: Any) -> Any:
        """Arrays [R, …] on the devices, filled up with copies of the last run until each has the same share."""
        filling = -self._num_runs % self._mesh.shape["run"]
        filled = jax.tree.map(lambda a: np.concatenate([a, np.repeat(a[-1:], filling, 0)]) if filling else a, tree)
        return hosts.place(filled, NamedSharding(self._mesh, PartitionSpec("run")))

    def get(self, tree: Any) -> Any:
        """The inverse of `put`, as numpy arrays."""
        return jax.tree.map(lambda a: a[: self._num_runs], hosts.gather(tree))

    def share(self, tree: Any) -> Any:
        """Arrays that all runs read, once on each device."""
        return hosts.place(tree, NamedSharding(self._mesh, PartitionSpec()))

    def compile(self, function: Callable, donate: int | None = None) -> Callable:
        """`function(shared, *of_one_run)` as a program (shared, *of_all_runs) -> outputs [R, …]."""

        def on_one_device(shared, *of_its_runs):
            def one(of_one_run):
                return function(shared, *of_one_run)

            return jax.vmap(one)(of_its_runs) if self._strategy == "vmap" else lax.map(one, of_its_runs)

        def over_runs(shared, *of_all_runs):
            # Not jit alone: all devices would agree at every step whether any of their runs continues.
            axes = {"run", "data"} if self._mesh.shape["data"] == 1 else {"run"}
            mapped = jax.shard_map(
                on_one_device,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), *(PartitionSpec("run") for _ in of_all_runs)),
                out_specs=PartitionSpec("run"),
                axis_names=axes,
                check_vma=False,
            )
            return mapped(shared, *of_all_runs)

        # On one device without the map, which would take longer to trace and to compile.
        of_all = on_one_device if self._mesh.size == 1 else over_runs
        on_mesh = NamedSharding(self._mesh, PartitionSpec("run"))
        return jax.jit(of_all, donate_argnums=() if donate is None else donate, out_shardings=on_mesh)


class InTurn:
    """The program of a single run, called for each of them; a population is a list, one tree for each run.

    `places` are where runs lie, in turn: one device each, or, for a run alone, all devices at once.
    """

    def __init__(self, places: Sequence[Sharding], num_runs: int):
        self._places, self._num_runs = places, num_runs

    def put(self, tree: Any) -> list[Any]:
        """Arrays [R, …], each run's on its place."""
        each = (jax.tree.map(lambda a, r=r: a[r], tree) for r in range(self._num_runs))
        return [hosts.place(one, self._places[r % len(self._places)]) for r, one in enumerate(each)]

    def get(self, trees: list[Any]) -> Any:
        """The inverse of `put`, as numpy arrays."""

        def stacked(first, *others):
            return np.stack([first, *others]) if others else np.asarray(first)[None]

        return jax.tree.map(stacked, *hosts.gather(trees))

    def share(self, tree: Any) -> list[Any]:
        """Arrays that all runs read, once on each place."""
        return [hosts.place(tree, place) for place in self._places]

    def compile(self, function: Callable, donate: int | None = None) -> Callable:
        """As of `Together`."""
        compiled = jax.jit(function, donate_argnums=() if donate is None else donate)

        def over_runs(shared, *of_all_runs):
            return [
                compiled(shared[r % len(self._places)], *of_one_run)
                for r, of_one_run in enumerate(zip(*of_all_runs, strict=True))
            ]

        return over_runs


class Program:
    """The functions of step.py for `num_runs` runs of the same Settings, on `devices`; each is compiled once.

    `cached_program` hands them out.

    `strategy` is one of STRATEGIES, or ALONE for a single run. The arrays of a population, `inputs` and `states`, are
    what `layout.put` makes of arrays [R, …]; those that all runs read are what `layout.share` makes of them.
    """

    def __init__(self, settings: Settings, devices: Sequence[Any], num_runs: int, strategy: str):
        self.mesh, self.num_runs, self.strategy = mesh(devices, num_runs, settings.batch_size), num_runs, strategy
        self.layout = layout_of(self.mesh, num_runs, strategy)
        self.parts = {"model": models.build(settings), "objective": objectives.build(settings), "settings": settings}
        parts, model, platform = self.parts, self.parts["model"], devices[0].platform

        def initialize(moments, inputs):
            root, numbers = jax.random.key(inputs.seed), inputs.hyperparameters
            return training.initialize(root, **parts, hyperparameters=numbers, moments=moments)

        def train_steps(data, state, inputs, stop):
            root, numbers = jax.random.key(inputs.seed), inputs.hyperparameters
            sharding = self._sharding_of_a_batch()
            num_slices = number_of_slices(settings, platform) if sharding is None else 1
            state = training.train_steps(
                root, state, data, stop, numbers, **parts, sharding=sharding, num_slices=num_slices
            )
            return state, without_parameters(state)

        def validate(data, state, inputs):
            key, numbers = stream(jax.random.key(inputs.seed), Stream.EVALUATE), inputs.hyperparameters
            return training.validate(key, state.evaluated_params, data, numbers, **parts)

        def refit(data, state, inputs):
            return training.refit(jax.random.key(inputs.seed), state, data, model=model, settings=settings)

        self._initialize = self.layout.compile(initialize)
        self._train_steps = self.layout.compile(train_steps, donate=1)
        self._refit = None if model.refit is None else self.layout.compile(refit, donate=1)
        self._validate = self.layout.compile(validate)

    @property
    def alone(self) -> bool:
        """Whether it is the program of a run alone."""
        return self.strategy == ALONE

    def initialize(self, inputs: Any, moments: Any) -> Any:
        """The states before step 0; `moments` of the training images are shared."""
        return self._initialize(moments, inputs)

    def train_steps(self, inputs: Any, states: Any, data: Any, stops: Int[np.ndarray, "R"]) -> tuple[Any, Any]:
        """Train each run until its step of `stops`, as step.train_steps; the `states` passed in are spent.

        Also returns what the host looks at, as numpy arrays: the states without parameters.
        """
        outputs = self._train_steps(data, states, inputs, self.layout.put(stops.astype(np.int32)))
        if isinstance(outputs, list):
            outputs = [list(column) for column in zip(*outputs, strict=True)]
        states, seen = outputs
        return states, self.layout.get(seen)

    def refit(self, inputs: Any, states: Any, data: Any) -> Any:
        """The states with what the model re-estimates after an epoch; those passed in are spent."""
        return states if self._refit is None else self._refit(data, states, inputs)

    def validate(self, inputs: Any, states: Any, data: Any) -> dict[str, Float[np.ndarray, "R"]]:
        """Each run's bound (`bound`) and metrics averaged over `data`, with the same noise at every call."""
        return self.layout.get(self._validate(data, states, inputs))

    def bytes_on_a_device(self, inputs: Any, moments: Any, data: Any) -> int:
        """What training needs on each device at once; in turn, without what a single run needs to compute."""
        if isinstance(self.layout, InTurn):
            state = training.abstract_state(**self.parts, hyperparameters=inputs[0].hyperparameters)
            return _bytes(data[0]) + _bytes(state) * -(-self.num_runs // self.mesh.shape["run"])
        place = NamedSharding(self.mesh, PartitionSpec("run"))
        states, stops = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            (jax.eval_shape(self._initialize, moments, inputs), inputs.seed),
        )
        analysis = self._train_steps.lower(data, states, inputs, stops).compile().memory_analysis()
        arguments, outputs = analysis.argument_size_in_bytes, analysis.output_size_in_bytes
        return arguments + outputs - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes

    def _sharding_of_a_batch(self) -> NamedSharding | None:
        """While a function of one run is traced: how its batch is shared; None if one device takes all of it."""
        if self.mesh.shape["data"] == 1 or self.strategy == "loop":
            return None
        return NamedSharding(self.mesh if self.alone else jax.sharding.get_abstract_mesh(), PartitionSpec("data"))


@functools.lru_cache(maxsize=32)
def cached_program(settings: Settings, devices: tuple[Any, ...], num_runs: int, strategy: str) -> Program:
    """The Program of these: the same one for the same arguments, so that runs of a process compile it once."""
    return Program(settings, devices, num_runs, strategy)


def layout_of(mesh: Mesh, num_runs: int, strategy: str) -> Together | InTurn:
    """How `num_runs` runs lie on the devices of `mesh`."""
    if strategy == ALONE:
        return InTurn([NamedSharding(mesh, PartitionSpec())], num_runs)
    if strategy == "loop":
        # A batch is not shared, so that a run has the very bits of a run alone.
        return InTurn(list(map(SingleDeviceSharding, mesh.devices[:, 0])), num_runs)
    return Together(mesh, num_runs, strategy)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def without_parameters(state: training.TrainState) -> training.TrainState:
    """What a host looks at between calls: step, sums and recent."""
    return state._replace(params=None, optimizer_state=None, average=None, objective_state=None)
