"""The time of evaluation and of training, compared with the time of their matrix products alone.

    python -m experiments.benchmark
    python -m experiments.benchmark --hidden_sizes=400 --latent_dim=20 --batch_size=128

Both are measured in turn, A B A B …. Prints the medians, and the median of the ratios of neighbours: an absolute time
says more about the machine than about the code. The products are those of the decoder (evaluation) and of a whole step
(training), of the same shapes, without activations, likelihood, noise or optimiser.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import number, numbers

IMAGE_SHAPE = (28, 28, 1)
NUM_IMAGES = 10_000


def define_flags() -> None:
    numbers("hidden_sizes", ["200", "200"], "the encoder's dense layers", integer=True)
    number("latent_dim", 50, "dimensions of z", least=1, integer=True)
    number("batch_size", 100, "images in a training step", least=1, most=NUM_IMAGES, integer=True)
    number("num_samples", 5000, "k of the log-likelihood", least=1, integer=True)
    number("num_examples", 50, "images evaluated in a round", least=1, integer=True)
    number("rounds", 7, "rounds that are timed", least=1, integer=True)


def main(_: StopRequest) -> int:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments.command import devices
    from vae import objectives
    from vae.datasets.images import moments
    from vae.models import model as models
    from vae.settings import Hyperparameters, Settings
    from vae.training import step as training

    asked = options.read().values
    device = devices.start(1, data_dir=None)[0]
    sizes, latent_dim = tuple(map(int, asked["hidden_sizes"])), asked["latent_dim"]
    settings = Settings(IMAGE_SHAPE, hidden_sizes=sizes, latent_dim=latent_dim, batch_size=asked["batch_size"])
    parts = {"model": models.build(settings), "objective": objectives.build(settings), "settings": settings}
    images = (np.random.default_rng(0).uniform(size=(NUM_IMAGES, *IMAGE_SHAPE)) < 0.2).astype(np.uint8) * 255
    hyperparameters = jax.tree.map(jnp.asarray, Hyperparameters())
    state = training.initialize(jax.random.key(0), **parts, hyperparameters=hyperparameters, moments=moments(images))
    decoder = list(itertools.pairwise([latent_dim, *sizes[::-1], images[0].size]))
    encoder = [(o, i) for i, o in decoder[::-1]]
    encoder[-1] = (encoder[-1][0], 2 * latent_dim)
    print(f"784-{'-'.join(map(str, sizes))}-{latent_dim} on {device}")
    show(
        f"evaluation, k = {asked['num_samples']}, per 10,000 images",
        *of_evaluation(parts["model"], state.params, images[: asked["num_examples"]], asked["num_samples"], decoder),
        10_000 / asked["num_examples"],
        asked["rounds"],
    )
    show(
        "training, dynamic binarisation, per epoch of 60,000 images",
        *of_training(parts, state, images, hyperparameters, encoder + decoder),
        60_000 / NUM_IMAGES,
        asked["rounds"],
    )
    return 0


def of_evaluation(model, params, images, num_samples: int, layers):
    """Two functions: the evaluation of the images, and its products with the decoder's `layers` alone."""
    from functools import partial

    import jax
    import numpy as np

    from vae.evaluation import importance
    from vae.training import timing

    rows = min(num_samples, importance.SAMPLES_PER_TILE)
    num_tiles = len(images) * -(-num_samples // rows)
    evaluate = jax.jit(partial(importance.weigh_examples, model=model, num_samples=num_samples))
    root, index = jax.random.key(0), np.arange(len(images))
    alone = timing.products(layers, rows, num_tiles, backward=False)
    return lambda: evaluate(root, params, images, None, index), alone


def of_training(parts, state, images, hyperparameters, layers):
    """Two functions: an epoch of training, and its products with the `layers` of both networks alone."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    from vae.datasets import Split
    from vae.training import step as training
    from vae.training import timing

    batch_size = parts["settings"].batch_size
    num_steps = len(images) // batch_size
    train_steps = jax.jit(partial(training.train_steps, **parts))
    data, root, stop = jax.device_put(Split(images)), jax.random.key(0), jnp.int32(num_steps)
    alone = timing.products(layers, batch_size, num_steps, backward=True)
    return lambda: train_steps(root, state, data, stop, hyperparameters), alone


def show(name: str, whole, alone, scale: float, rounds: int) -> None:
    """Time both in turn and print the medians in seconds, times `scale`, and the median ratio."""
    from vae.training import timing

    pairs = timing.in_turn((whole, alone), rounds)
    a, b = (scale * statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(x / y for x, y in pairs)
    print(
        f"{name}: {a:.2f} s, its matrix products alone {b:.2f} s, "
        f"ratio {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f} in {rounds} rounds)"
    )


if __name__ == "__main__":
    script.run(define_flags, main)
