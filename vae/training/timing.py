"""How long training takes: seconds of a step of a run, alone on this machine, and of its matrix products alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae.datasets import images
from vae.datasets.dataset import Dataset
from vae.models.products import EXACT
from vae.runs.config import Config
from vae.training.loop import Pace
from vae.training.program import ALONE, cached_program, run_inputs

NUM_ROUNDS, SECONDS_OF_ROUND = 3, 0.2  # in which a step is timed; of each run


def paces(configs: Sequence[Config], load: Callable[[Config], Dataset]) -> list[float]:
    """Seconds of a training step of each run, alone on this machine: the fastest of a few rounds, taken in turn.

    Runs of one program on the same data have one pace: what differs between two measurements of it is noise.
    """
    programs = {_program(config): config for config in configs}
    timed = [seconds_per_step(config, load(config)) for config in programs.values()]
    _, *rounds = [[next(one) for one in timed] for _ in range(1 + NUM_ROUNDS)]
    pace_of = dict(zip(programs, map(min, zip(*rounds, strict=True)), strict=True))
    return [pace_of[_program(config)] for config in configs]


def _program(config: Config) -> Any:
    return config.settings, config.dataset, config.validation, config.image_size


class StepsOfRuns:
    """The steps of runs of one program, which are taken when they are asked for; nothing is written."""

    def __init__(self, configs: Sequence[Config], dataset: Dataset, devices: Sequence[Any], strategy: str = ALONE):
        settings = configs[0].settings
        self.program = cached_program(settings, tuple(devices), len(configs), strategy)
        share = self.program.layout.share
        self._inputs = self.program.layout.put(run_inputs(configs))
        self._dataset, self._binarization, self._side_by_side = dataset, settings.binarization, strategy == "vmap"
        self._data = share(images.stored(dataset, "train", self._binarization, training=True))
        self._moments = share(images.moments(dataset.train.images))
        self.states = self.program.initialize(self._inputs, self._moments)
        self.step, self.steps_per_epoch = 0, len(dataset.train.images) // settings.batch_size

    def take(self, num_steps: int) -> None:
        """Take steps of each run, in a call of the compiled program for each epoch that they lie in."""
        stop = self.step + num_steps
        while self.step < stop:
            self.step = min(stop, (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch)
            stops = np.full(self.program.num_runs, self.step)
            self.states, _ = self.program.train_steps(self._inputs, self.states, self._data, stops)

    def held_out_bound(self, split: str) -> float:
        """The bound that the first run is trained on, on a held-out split, as training reports it."""
        data = self.program.layout.share(images.stored(self._dataset, split, self._binarization, training=False))
        return float(self.program.validate(self._inputs, self.states, data)["bound"][0])

    def bytes_on_a_device(self) -> int:
        """What training needs on each device at once, as Program.bytes_on_a_device."""
        return self.program.bytes_on_a_device(self._inputs, self._moments, self._data)

    def seconds_per_step(self) -> Iterator[float]:
        """Seconds of a step of all runs in one round after another; the first holds compilation."""
        self.take(1)
        # A call has a cost of its own, once for each run that is trained in turn: as long a call for each of them.
        lasting = SECONDS_OF_ROUND * (1 if self._side_by_side else self.program.num_runs)
        pace = Pace(lasting)
        pace.saw(1, 0.0)  # which compiled
        while True:
            started, first, elapsed = time.perf_counter(), self.step, 0.0
            while elapsed < lasting:
                left = self.steps_per_epoch - self.step % self.steps_per_epoch
                before, num_steps = elapsed, pace.steps_of_call(left)
                self.take(num_steps)
                elapsed = time.perf_counter() - started
                pace.saw(num_steps, elapsed - before)
            yield elapsed / (self.step - first)


def seconds_per_step(config: Config, dataset: Dataset) -> Iterator[float]:
    """Of a run alone on this machine, as StepsOfRuns."""
    return StepsOfRuns([config], dataset, jax.devices()[:1]).seconds_per_step()


def seconds(function: Callable[[], Any]) -> float:
    """How long a function takes whose arrays are computed when it is done."""
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


class Product(NamedTuple):
    """The products of a layer: its rows times its kernel [inputs, outputs], and those of its gradient."""

    rows: int
    inputs: int
    outputs: int
    of_kernel: bool = True  # whether the gradient of the kernel is wanted
    of_rows: bool = True  # and that of the rows; of images nobody wants it


def _operands(key, layer: Product, precision: str) -> tuple[Any, Any, Any]:
    """Rows, a kernel, and a gradient of the results."""
    key_rows, key_kernel, key_gradient = jax.random.split(key, 3)
    rows = jax.random.normal(key_rows, (layer.rows, layer.inputs), precision)
    kernel = jax.random.normal(key_kernel, (layer.inputs, layer.outputs), precision)
    return rows, kernel, jax.random.normal(key_gradient, (layer.rows, layer.outputs), precision)


def products(layers: Sequence[Product], repetitions: int, precision: str = "float32") -> Callable[[], Any]:
    """A function that computes the matrix products of dense layers alone, many times; results are float32."""
    arrays = [_operands(jax.random.key(number), layer, precision) for number, layer in enumerate(layers)]

    @jax.jit
    def run(arrays):
        def once(_, carry):
            # Each repetition depends on the one before it, so that none is optimised away or hoisted.
            arrays, total = carry
            arrays, total_now = jax.tree.map(lambda a: a.at[0, 0].add(total.astype(a.dtype)), arrays), jnp.zeros(())
            for layer, (x, w, g) in zip(layers, arrays, strict=True):
                pairs = [(x, w)] + [(x.T, g)] * layer.of_kernel + [(g, w.T)] * layer.of_rows
                for left, right in pairs:
                    out = jnp.dot(left, right, precision=EXACT, preferred_element_type=jnp.float32)
                    total_now += jax.lax.optimization_barrier(out)[0, 0]
            return arrays, total_now * 1e-30

        return jax.lax.fori_loop(0, repetitions, once, (arrays, jnp.zeros(())))[1]

    return lambda: run(arrays)


def passes(num_bytes: int, repetitions: int) -> Callable[[], Any]:
    """A function that reads and writes a float32 array of `num_bytes`, many times, and does next to nothing with it."""
    array = jnp.ones(max(1, num_bytes // 4))

    @jax.jit
    def run(array):
        once = lambda _, a: jax.lax.optimization_barrier(a * 0.999)  # noqa: E731
        return jax.lax.fori_loop(0, repetitions, once, array)

    return lambda: run(array)
