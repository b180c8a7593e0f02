"""How long training takes: seconds of a step of a run, alone on this machine, and of functions timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae.datasets import images
from vae.datasets.dataset import Dataset
from vae.runs.config import Config
from vae.training.program import ALONE, cached_program, run_inputs

NUM_ROUNDS, SECONDS_OF_ROUND = 3, 0.2  # in which a step is timed


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


def seconds_per_step(config: Config, dataset: Dataset) -> Iterator[float]:
    """Seconds of a training step in one round after another; the first holds compilation."""
    program = cached_program(config.settings, (jax.devices()[0],), 1, ALONE)
    share, inputs = program.layout.share, program.layout.put(run_inputs([config]))
    data = share(images.stored(dataset, "train", config.settings.binarization, training=True))
    states = program.initialize(inputs, share(images.moments(dataset.train.images)))
    steps_per_epoch = len(dataset.train.images) // config.settings.batch_size
    step = num_steps = 1
    states, _ = program.train_steps(inputs, states, data, np.full(1, step))
    while True:
        started, first, elapsed = time.perf_counter(), step, 0.0
        while elapsed < SECONDS_OF_ROUND:
            step = min(step + num_steps, (step // steps_per_epoch + 1) * steps_per_epoch)
            states, _ = program.train_steps(inputs, states, data, np.full(1, step))
            elapsed = time.perf_counter() - started
        yield elapsed / (step - first)
        num_steps = max(1, int(SECONDS_OF_ROUND * (step - first) / elapsed))


def in_turn(functions: Sequence[Callable[[], Any]], rounds: int) -> list[tuple[float, ...]]:
    """Seconds of each function in each round; they are compiled before, and called in turn."""

    def seconds(function):
        started = time.perf_counter()
        jax.block_until_ready(function())
        return time.perf_counter() - started

    for function in functions:
        seconds(function)
    return [tuple(map(seconds, functions)) for _ in range(rounds)]


def products(layers: Sequence[tuple[int, int]], rows: int, repetitions: int, *, backward: bool) -> Callable[[], Any]:
    """A function that runs the matrix products of dense layers (inputs, outputs) over `rows` rows, many times."""
    key_x, key_w, key_g = jax.random.split(jax.random.key(0), 3)
    arrays = [
        (
            jax.random.normal(jax.random.fold_in(key_x, layer), (rows, i)),
            jax.random.normal(jax.random.fold_in(key_w, layer), (i, o)),
            jax.random.normal(jax.random.fold_in(key_g, layer), (rows, o)),
        )
        for layer, (i, o) in enumerate(layers)
    ]

    @jax.jit
    def run(arrays):
        def once(_, carry):
            # Each repetition depends on the one before it, so that none is optimised away or hoisted.
            total = jnp.zeros(())
            for position, (x, w, g) in enumerate(arrays):
                x, g = x + carry, g + carry
                outputs = [x @ w]
                if backward:
                    # Nobody asks for the gradient of the images.
                    outputs += [x.T @ g, g @ w.T] if position else [x.T @ g]
                total += sum(jax.lax.optimization_barrier(output)[0, 0] for output in outputs)
            return total * 1e-30

        return jax.lax.fori_loop(0, repetitions, once, jnp.zeros(()))

    return lambda: run(arrays)
