"""Gradient estimators of a model at fixed parameters on one batch: by objective, number of samples and estimator."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae import objectives
from vae.datasets.dataset import Split
from vae.datasets.images import to_unit_interval
from vae.evaluation import gradient_statistics, gradients
from vae.evaluation.gradients import GradientBlock, of_group
from vae.models import memory
from vae.models.model import Batch, Model
from vae.objectives import Objective
from vae.settings import Hyperparameters, Settings

REPARAMETERIZED = "reparameterized"
REFERENCE = "the reparameterized reference"
Report = Callable[[str, int], None]  # gets what is measured, and how many samples were drawn since


class GradientSubject(NamedTuple):
    """What is measured: a model at some parameters, on one batch."""

    model: Model
    params: Any
    settings: Settings
    step: int
    batch: Batch
    objective_state: Any = None  # of the objective of its settings, if that has one


class GradientEstimator(NamedTuple):
    """An estimator of the gradient of an objective, each under the name that it was asked for by."""

    objective: str
    estimator: str
    settings: Settings  # of the subject, with another objective and estimator
    hyperparameters: Hyperparameters


class GradientGrid(NamedTuple):
    """What is measured of it: every estimator with every K."""

    estimators: Sequence[GradientEstimator]
    num_samples: Sequence[int]  # K, ascending
    num_groups: int
    draws: int  # gradients of each
    reference_draws: int  # reparameterised gradients, to test for a bias against; 0: no test

    @property
    def total(self) -> int:
        """Samples that are drawn for all of them."""
        num_objectives = len({one.objective for one in self.estimators})
        each = len(self.estimators) * self.draws + num_objectives * self.reference_draws
        return sum(self.num_samples) * each


def fixed_batch(stored: Split, size: int, seed: int) -> Batch:
    """`size` of the images, chosen at random by `seed`."""
    index = np.sort(np.random.default_rng(seed).permutation(len(stored.images))[:size])
    labels = None if stored.labels is None else jnp.asarray(stored.labels[index])
    return Batch(to_unit_interval(jnp.asarray(stored.images[index])), labels, jnp.asarray(index), len(stored.images))


def measure(
    seed: int, subject: GradientSubject, grid: GradientGrid, *, on_skip: Callable[[str], None], on_progress: Report
) -> list[dict[str, Any]]:
    """A row for each objective, K and estimator that can be measured.

    Its `groups` have the numbers of each group of parameters, which a seed determines; `seconds_per_draw` and `work` it
    does not. `work` is variance × time of a draw, the work-normalised variance of Glynn & Whitt (1992), as a multiple
    of that of the reparameterised gradient of the same objective and K: how much longer one must compute for a mean of
    the same precision. None if there is no such gradient, or if it has no noise. The estimators of an objective take
    turns; times are medians over turns. `on_skip` gets a line with the reason for what cannot be measured. Raises
    TooLarge if one draw exceeds the memory.
    """
    check_memory(subject, grid)
    rows = []
    for name, estimators in _possible(grid, on_skip).items():
        for num_samples in grid.num_samples:

            def draw(one: GradientEstimator, is_reference: bool = False, num_samples=num_samples):
                return _draw(seed, subject, grid, one, num_samples, is_reference, on_progress)

            lanes = {one.estimator: draw(one) for one in estimators}
            if grid.reference_draws:
                lanes[REFERENCE] = draw(_reparameterized(estimators[0]), True)
            found, failed = _in_turn(lanes)
            for lane, error in failed.items():
                on_skip(f"{name} with {lane}, K = {num_samples}: {error}")
            if REFERENCE in failed:
                continue
            reference = found.pop(REFERENCE, None)
            plain = {one.estimator for one in estimators if one.settings.estimator == REPARAMETERIZED}
            baseline = next((found[lane] for lane in found if lane in plain), reference)
            rows += [
                {"objective": name, "estimator": lane, "num_samples": num_samples, **_row(blocks, reference, baseline)}
                for lane, blocks in found.items()
            ]
    return rows


def _possible(grid: GradientGrid, on_skip: Callable[[str], None]) -> dict[str, list[GradientEstimator]]:
    """The estimators of each objective, by its name; `on_skip` gets those that make no sense, and why."""
    found: dict[str, list[GradientEstimator]] = {}
    refused: dict[tuple[str, str], list[str]] = {}
    for one in grid.estimators:
        reason = objectives.REFUSED.get((one.settings.objective, one.settings.estimator))
        if reason is None:
            found.setdefault(one.objective, []).append(one)
        else:
            refused.setdefault((one.objective, reason), []).append(one.estimator)
    for (name, reason), estimators in refused.items():
        on_skip(f"{name} with {', '.join(estimators)}: {reason}")
    return found


def _reparameterized(one: GradientEstimator) -> GradientEstimator:
    """The reparameterised gradient of the same objective."""
    return one._replace(settings=dataclasses.replace(one.settings, estimator=REPARAMETERIZED))


def _in_turn(
    lanes: Mapping[str, Iterator[GradientBlock]],
) -> tuple[dict[str, list[GradientBlock]], dict[str, Exception]]:
    """All blocks of each lane, drawn in turns, and why others cannot be drawn."""
    found: dict[str, list[GradientBlock]] = {name: [] for name in lanes}
    failed: dict[str, Exception] = {}
    for _ in range(gradients.NUM_BLOCKS):
        for name in [name for name in lanes if name not in failed]:
            try:
                found[name].append(next(lanes[name]))
            except (objectives.ObjectiveError, FloatingPointError) as error:
                failed[name] = error
    return {name: blocks for name, blocks in found.items() if name not in failed}, failed


def _row(
    blocks: Sequence[GradientBlock],
    reference: Sequence[GradientBlock] | None,
    baseline: Sequence[GradientBlock] | None,
) -> dict[str, Any]:
    """The numbers of one estimator, with its bias against `reference` and its work as a multiple of the baseline's."""
    groups: dict[str, dict[str, Any]] = {}
    work: dict[str, float | None] = {}
    for group in blocks[0].moments:
        parts = of_group(blocks, group)
        groups[group] = gradient_statistics.signal(parts)._asdict()
        if reference is not None:
            groups[group] |= gradient_statistics.bias(parts, of_group(reference, group))._asdict()
        work[group] = None
        if baseline and (noise := gradient_statistics.variance_of(of_group(baseline, group))) > 0:
            # Of neighbours in time, which a busy machine slows down alike.
            time = statistics.median(one.seconds / other.seconds for one, other in zip(blocks, baseline, strict=True))
            work[group] = groups[group]["variance"] / noise * time
    return {
        "seconds_per_draw": statistics.median(block.seconds for block in blocks),
        "groups": groups,
        "work": work,
    }


def check_memory(subject: GradientSubject, grid: GradientGrid) -> None:
    """Raises TooLarge, which names the option that takes most, if a draw at the largest K exceeds the memory."""
    sizes = {"num_samples": max(grid.num_samples), "num_groups": grid.num_groups, "batch_size": len(subject.batch.x)}
    kept = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(subject.params))  # the draw, the mean and the deviations
    settings = dataclasses.replace(subject.settings, **sizes)
    memory.check_training(settings, kept, 1, memory.of_device(jax.local_devices()[0]), "a draw of the gradient")


def _draw(
    seed: int,
    subject: GradientSubject,
    grid: GradientGrid,
    one: GradientEstimator,
    num_samples: int,
    is_reference: bool,
    on_progress: Report,
) -> Iterator[GradientBlock]:
    """`gradients.draw_blocks` of the subject; raises ObjectiveError for a pair that cannot be."""
    sizes = {"num_samples": num_samples, "num_groups": grid.num_groups, "batch_size": len(subject.batch.x)}
    settings = dataclasses.replace(one.settings, **sizes)
    objective = in_state(subject, objectives.build(settings), one)
    objectives.check(settings)
    words = f"{one.objective} {one.estimator} K = {num_samples}"
    on_progress(words, 0)
    for block in gradients.draw_blocks(
        jax.random.key(seed),
        parameters(seed, subject, one.settings.objective, objective),
        subject.batch,
        grid.reference_draws if is_reference else grid.draws,
        model=subject.model,
        objective=objective,
        num_samples=num_samples,
        hyperparameters=one.hyperparameters,
        step=subject.step,
        reference=is_reference,
    ):
        draws = next(iter(block.moments.values())).count
        on_progress(words, draws * num_samples)
        yield block


def in_state(subject: GradientSubject, objective: Objective, one: GradientEstimator) -> Objective:
    """The objective as it is trained: in the state of the run if it was trained with it, otherwise in its first one."""
    own = subject.objective_state if one.settings.objective == subject.settings.objective else None
    return objective.at(objective.init_state(one.hyperparameters) if own is None else own)


def parameters(seed: int, subject: GradientSubject, name: str, objective: Objective) -> dict[str, Any]:
    """The model's parameters, and the objective's own if it has some: the run's if it was trained with it."""
    params = {group: subtree for group, subtree in subject.params.items() if group != "objective"}
    extra = objective.init(jax.random.key(seed), subject.model)
    if not extra:
        return params
    own = subject.params.get("objective") if name == subject.settings.objective else None
    return {**params, "objective": extra if own is None else own}
