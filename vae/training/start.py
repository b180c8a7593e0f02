"""What a run starts from: its checks, its data, and the parameters of another run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vae import objectives
from vae.datasets import images, splits
from vae.datasets.dataset import Dataset, Split
from vae.models import checks, memory
from vae.models import model as models
from vae.places import expanded
from vae.runs import archive, checkpoint, packs
from vae.runs.config import Config, read_config
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS
from vae.settings import Settings
from vae.training import step as training

READINGS = 100  # of a checkpoint that is deleted each time while it is read


def check(
    workdir: Path | None, config: Config, dataset: Dataset, devices: Sequence[Any], *, begun: bool = False
) -> None:
    """Raises RunError, TooLarge, LikelihoodError, ObjectiveError or CheckpointError if a run cannot start.

    Writes nothing. What a new run is refused, one that has `begun`, or that has a checkpoint in `workdir`, is not.
    """
    settings = config.settings
    checks.check_data(settings.likelihood, dataset, settings.binarization)
    check_batch_size(settings.batch_size, len(dataset.train.images), len(devices))
    if config.patience and not len(dataset.validation.images):
        raise RunError(
            f"`patience={config.patience}` waits for a better bound of validation images, and {dataset.name} has none; "
            "hold some out with `validation`, or leave `patience` out"
        )
    resumed = workdir is not None and checkpoint.steps(workdir / CHECKPOINTS)
    if not begun and not resumed:
        splits.check_varied(dataset)
        sizes = {name: len(getattr(dataset, name).images) for name in ("validation", "test")}
        objectives.check(settings, {name: size for name, size in sizes.items() if size})
    device = jax.local_devices()[0]
    check_samples(settings, device)
    state = abstract_state(config)
    check_memory(settings, state, device, len(devices))
    if config.init_from is not None and not resumed:
        initial_params(config.init_from, state.params)


def check_memory(settings: Settings, state: Any, device: Any, num_devices: int) -> None:
    """Raises RunError or TooLarge if a step's arrays exceed the memory: an allocation may hang for ever."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    there = memory.of_device(device)
    if needed > there:
        raise RunError(
            f"the parameters and Adam's moments take {needed / 1e9:,.1f} GB, but there are {there / 1e9:,.1f} GB of "
            "memory; use smaller `hidden_sizes`, `channels` or `latent_dim`"
        )
    memory.check_training(settings, needed, num_devices, there)


def check_samples(settings: Settings, device: Any) -> None:
    """Raises TooLarge if the log-weights of a batch alone exceed the memory: jax has no shapes of such sizes."""
    samples = settings.batch_size * objectives.num_drawn(settings)
    remedy = "use a smaller `num_samples`, `num_groups` or `batch_size`"
    memory.check(4 * samples, memory.of_device(device), "the log-weights of a batch", remedy)


def check_batch_size(batch_size: int, num_images: int, num_devices: int) -> None:
    """Raises RunError if a batch cannot be filled or shared out."""
    if batch_size > num_images:
        raise RunError(
            f"a batch of {batch_size} cannot be filled from {num_images} training images; "
            f"use `batch_size={num_images}` or less, or hold out fewer with `validation`"
        )
    if batch_size % num_devices:
        raise RunError(
            f"a batch of {batch_size} cannot be shared by {num_devices} devices; "
            f"use a `batch_size` that is a multiple of {num_devices}, or other `devices`"
        )


def held_out_split(dataset: Dataset) -> str | None:
    """The split whose bound is watched in training; None if there is neither a validation nor a test split."""
    return next((name for name in ("validation", "test") if len(getattr(dataset, name).images)), None)


def stored_splits(dataset: Dataset, binarization: str) -> dict[str, Split]:
    """The splits that training reads and that have images, as they lie on the device."""
    return {
        name: images.stored(dataset, name, binarization, training=name == "train")
        for name in ("train", "validation", "test")
        if len(getattr(dataset, name).images)
    }


def abstract_state(config: Config) -> training.TrainState:
    """The shapes and dtypes of a run's state."""
    settings = config.settings
    model, objective = models.build(settings), objectives.build(settings)
    return training.abstract_state(model, objective, settings, config.hyperparameters)


def saved_state(workdir: Path, which: str | int | None = None) -> tuple[Config, training.TrainState]:
    """The Config of the run in `workdir`, and its state at the "last" or "best" checkpoint or at a step.

    None: as checkpoint.choose. `workdir` may be a packed run.
    If the run trains, and deletes the checkpoint while it is read, the newer one is read. Raises RunError or
    CheckpointError.
    """
    config = read_config(workdir)
    if archive.is_packed(workdir):
        return config, packs.restore(workdir, which, abstract_state(config))
    for reading in range(1, READINGS + 1):
        try:
            step = checkpoint.choose(workdir, which)
            return config, checkpoint.restore(workdir / CHECKPOINTS, step, abstract_state(config))
        except checkpoint.GoneError:
            if reading == READINGS:
                raise
    raise AssertionError


def initial_params(workdir: str, like: Any) -> Any:
    """The parameters of the run in `workdir`; raises RunError if their names or shapes are not those of `like`."""
    params = saved_state(expanded(workdir))[1].evaluated_params
    found, wanted = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, like)
    )
    if differences := [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]:
        name = differences[0]
        raise RunError(
            f"the parameters of `init_from={workdir}` do not fit this run: {name} has the shape "
            f"{found.get(name, 'absent')}, not {wanted.get(name, 'absent')}"
            + (f", and {len(differences) - 1} more" if len(differences) > 1 else "")
            + "; use the same network, data and objective"
        )
    return params


def started_from(state: training.TrainState, params: Any) -> training.TrainState:
    """A new state with other parameters."""
    return state._replace(params=params, average=None if state.average is None else jax.tree.map(jnp.copy, params))
