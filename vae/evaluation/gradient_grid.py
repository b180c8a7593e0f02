"""Gradient estimators of a model at fixed parameters on one batch: by objective, number of samples and estimator."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae import objectives
from vae.datasets.dataset import Split
from vae.datasets.images import to_unit_interval
from vae.evaluation import gradients
from vae.models import memory
from vae.models.model import Batch, Model
from vae.objectives import Objective
from vae.settings import Hyperparameters, Settings


class GradientSubject(NamedTuple):
    """What is measured: a model at some parameters, on one batch."""

    model: Model
    params: Any
    settings: Settings
    hyperparameters: Hyperparameters
    step: int
    batch: Batch


class GradientGrid(NamedTuple):
    """What is measured of it: every objective with every K and every estimator."""

    objectives: Sequence[str]
    num_samples: Sequence[int]  # K, ascending
    estimators: Sequence[str]
    num_groups: int
    draws: int  # gradients of each
    reference_draws: int  # reparameterised gradients, to test for a bias against; 0: no test

    @property
    def total(self) -> int:
        """Samples that are drawn for all of them."""
        each = len(self.estimators) * self.draws + self.reference_draws
        return len(self.objectives) * sum(self.num_samples) * each


def fixed_batch(stored: Split, size: int, seed: int) -> Batch:
    """`size` of the images, chosen at random by `seed`."""
    index = np.sort(np.random.default_rng(seed).permutation(len(stored.images))[:size])
    labels = None if stored.labels is None else jnp.asarray(stored.labels[index])
    return Batch(to_unit_interval(jnp.asarray(stored.images[index])), labels, jnp.asarray(index), len(stored.images))


def measure(
    seed: int,
    subject: GradientSubject,
    grid: GradientGrid,
    *,
    on_skip: Callable[[str], None],
    on_progress: Callable[[str, int], None],
) -> list[dict[str, Any]]:
    """A row for each objective, K and estimator that can be measured.

    `on_skip` gets a line with the reason for each of the others, `on_progress` what is measured and the number of
    samples that were drawn since. Raises TooLarge if one draw exceeds the memory.
    """
    check_memory(subject, grid)
    build = functools.cache(objectives.build)  # an objective's program is compiled once, for draws and reference

    def draw(name, num_samples, estimator, num_draws, reference):
        about = {"objective": name, "estimator": estimator, "num_samples": num_samples, "num_groups": grid.num_groups}
        settings = dataclasses.replace(subject.settings, **about, batch_size=len(subject.batch.x))
        objective = build(settings)
        objectives.check(settings)
        return _draw(seed, subject, settings, objective, num_draws, reference=reference, on_progress=on_progress)

    rows = []
    for name in grid.objectives:
        for num_samples in grid.num_samples:
            reference = None
            for estimator in grid.estimators:
                if reason := objectives.REFUSED.get((name, estimator)):
                    on_skip(f"{name} with {estimator}: {reason}")
                    continue
                try:
                    blocks = draw(name, num_samples, estimator, grid.draws, False)
                    if grid.reference_draws and reference is None:
                        reference = draw(name, num_samples, "reparameterized", grid.reference_draws, True)
                except (objectives.ObjectiveError, FloatingPointError) as error:
                    on_skip(f"{name} with {estimator}, K = {num_samples}: {error}")
                    continue
                groups = {}
                for group, parts in blocks.items():
                    groups[group] = gradients.signal(parts)._asdict()
                    if reference is not None:
                        groups[group] |= gradients.bias(parts, reference[group])._asdict()
                rows.append({"objective": name, "estimator": estimator, "num_samples": num_samples, "groups": groups})
    return rows


def check_memory(subject: GradientSubject, grid: GradientGrid) -> None:
    """Raises TooLarge, which names the option that takes most, if a draw at the largest K exceeds the memory."""
    sizes = {"num_samples": max(grid.num_samples), "num_groups": grid.num_groups, "batch_size": len(subject.batch.x)}
    kept = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(subject.params))  # the draw, the mean and the deviations
    settings = dataclasses.replace(subject.settings, **sizes)
    memory.check_training(settings, kept, 1, memory.of_device(jax.local_devices()[0]), "a draw of the gradient")


def _draw(
    seed: int,
    subject: GradientSubject,
    settings: Settings,
    objective: Objective,
    num_draws: int,
    *,
    reference: bool,
    on_progress: Callable[[str, int], None],
) -> Any:
    """What `gradients.measure` finds of `num_draws` gradients of the subject with other `settings`."""
    num_samples = settings.num_samples
    words = f"{settings.objective} {settings.estimator} K = {num_samples}"
    on_progress(words, 0)
    return gradients.measure(
        jax.random.key(seed),
        parameters(seed, subject, settings.objective, objective),
        subject.batch,
        num_draws,
        model=subject.model,
        objective=objective,
        num_samples=num_samples,
        hyperparameters=subject.hyperparameters,
        step=subject.step,
        reference=reference,
        on_progress=lambda draws: on_progress(words, draws * num_samples),
    )


def parameters(seed: int, subject: GradientSubject, name: str, objective: Objective) -> dict[str, Any]:
    """The model's parameters, and the objective's own if it has some: the run's if it was trained with it."""
    params = {group: subtree for group, subtree in subject.params.items() if group != "objective"}
    extra = objective.init(jax.random.key(seed), subject.model)
    if not extra:
        return params
    own = subject.params.get("objective") if name == subject.settings.objective else None
    return {**params, "objective": extra if own is None else own}
