"""Random streams of a run: every key is a pure function of (seed, stream, step), so resuming repeats the same bits."""

import enum

import jax


class Stream(enum.IntEnum):
    INIT = 0
    SHUFFLE = 1
    BINARIZE = 2
    NOISE = 3
    EVALUATE = 4
    GENERATE = 5
    GRADIENTS = 6
    SCALE = 7
    AGGREGATE = 8
    AMORTIZE = 9
    ANNEAL = 10
    SIMULATE = 11
    SUMO = 12
    PROBE = 13


def stream(root: jax.Array, name: Stream, *position) -> jax.Array:
    """The key of one stream of the run's `root` key, at `position` (a step, an epoch, an example, …) if given."""
    key = jax.random.fold_in(root, int(name))
    for index in position:
        key = jax.random.fold_in(key, index)
    return key
