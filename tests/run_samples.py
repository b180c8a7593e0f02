"""Small runs on the digits, and what the tests compare of them."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from vae import objectives
from vae.datasets import Dataset, load
from vae.models import model as models
from vae.runs import checkpoint, fingerprint
from vae.runs.config import Config, read_config, write_config
from vae.runs.folder import CHECKPOINTS, lock
from vae.runs.metrics import read_metrics
from vae.settings import Hyperparameters, Settings
from vae.training import fit
from vae.training import step as training

VALIDATION = 360  # images, as many as the test split has: one compiled program serves both
BATCH_SIZE = 42
STEPS_PER_EPOCH = 25  # of the 1077 images that are left
EPOCHS = 3
# What is read of an evaluation.json.
EVALUATED: dict[str, Any] = {
    **dict.fromkeys(("num_examples", "num_samples", "seed", "checkpoint"), 1),
    **dict.fromkeys(("log_likelihood", "log_likelihood_se", "elbo", "reconstruction", "kl", "active_units"), 1.0),
    "kl_per_dimension": [1.0],
}


@functools.cache
def digits(validation: int | None = None) -> Dataset:
    return load("digits", validation=validation)


def small_digits(path: Path) -> Path:
    """An .npz file of the digits, averaged to 2×2 pixels: 500 to train on, 20 to test."""
    found = digits()
    images, labels = found.train.images[:520], found.train.labels
    assert labels is not None
    small = images.reshape(-1, 2, 4, 2, 4).mean((2, 4)).round().astype(np.uint8)
    np.savez(path, x_train=small[:500], y_train=labels[:500], x_test=small[500:], y_test=labels[500:520])
    return path


def config(
    epochs: int = EPOCHS,
    seed: int = 0,
    validation: int | None = VALIDATION,
    init_from=None,
    patience: int = 0,
    **changes,
) -> Config:
    """A small run; `changes` are of its settings or its hyperparameters."""
    hyperparameters = {name: changes.pop(name) for name in Hyperparameters._fields if name in changes}
    settings = {"hidden_sizes": (16,), "latent_dim": 2, "binarization": "dynamic", "batch_size": BATCH_SIZE} | changes
    return Config(
        dataset="digits",
        settings=Settings(image_shape=(8, 8, 1), **settings),
        hyperparameters=Hyperparameters(**hyperparameters),
        epochs=epochs,
        patience=patience,
        seed=seed,
        validation=validation,
        init_from=None if init_from is None else str(init_from),
    )


def train(workdir: Path, configuration: Config | None = None, **options) -> fit.Outcome:
    """What experiments.train does with a Config."""
    configuration = configuration or config()
    with lock(workdir):
        dataset = digits(configuration.validation)
        write_config(workdir, configuration, data=fingerprint.of(dataset))
        return fit.fit(workdir, configuration, dataset, **options)


def state(workdir: Path, step: int | None = None) -> training.TrainState:
    """The checkpoint of `step`, or the last one, of the run in `workdir`."""
    stored = read_config(workdir)
    model, objective = models.build(stored.settings), objectives.build(stored.settings)
    like = training.abstract_state(model, objective, stored.settings, stored.hyperparameters)
    folder = workdir / CHECKPOINTS
    return checkpoint.restore(folder, checkpoint.steps(folder)[-1] if step is None else step, like)


def assert_same_bits(one: Any, other: Any) -> None:
    """Two trees of arrays agree in structure, dtypes and every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), jax.tree_util.keystr(path)


def assert_close(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest value of each array: Adam makes a step of full size of a gradient that is almost zero."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        a, b = np.nan_to_num(np.asarray(a, np.float64)), np.nan_to_num(np.asarray(b, np.float64))
        scale = np.abs(a).max(initial=1e-30)
        assert np.abs(a - b).max(initial=0) <= tolerance * scale, jax.tree_util.keystr(path)


def rows(workdir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the only value that may differ between equal runs."""
    return [{name: v for name, v in row.items() if name != "seconds"} for row in read_metrics(workdir)]


def assert_same_result(one: Path, other: Path) -> None:
    """Two runs ended in the same state, and wrote the same metrics."""
    assert_same_bits(state(one), state(other))
    assert rows(one) == rows(other)


def assert_close_result(one: Path, other: Path) -> None:
    """Two runs ended in nearly the same state, and wrote nearly the same metrics."""
    assert_close(state(one), state(other))
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a == {name: v if isinstance(v, str) else pytest.approx(v, rel=1e-4, abs=1e-5) for name, v in b.items()}
