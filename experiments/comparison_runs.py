"""The runs of a comparison: planned within a budget, trained, and chosen among by validation images."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import configuration, judging, options, variants
from experiments.parsing import UsageError
from experiments.train import check_resumed
from vae import checkpoint, comparison, datasets, fit, images, run, training

FLAGS = options.FLAGS
NUM_ROUNDS, SECONDS_OF_ROUND = 3, 0.2  # in which a step is timed


class Plan(NamedTuple):
    """What is trained: each candidate, with its seconds a step, under the label of its variant."""

    labels: list[str]
    candidates: list[variants.Candidate]
    paces: list[float]

    def folders(self, position: int, workdir: Path, num_seeds: int) -> dict[int, Path]:
        """The run folders of a candidate, by seed."""
        candidate = self.candidates[position]
        words = [self.labels[candidate.variant], *(f"{name} {value}" for name, value in shown(candidate.point).items())]
        names = {seed: re.sub(r"[^\w.]+", "-", " ".join([*words, f"seed {seed}"])) for seed in range(num_seeds)}
        return {seed: workdir / "runs" / name for seed, name in names.items()}


def load(config: run.Config) -> datasets.Dataset:
    """The data of a run."""
    return datasets.load(
        config.dataset,
        data_dir=FLAGS.data_dir,
        manual_dir=FLAGS.manual_dir,
        validation=config.validation,
        image_size=config.image_size,
    )


def paces(configs: Sequence[run.Config]) -> list[float]:
    """Seconds of a training step of each run, alone on this machine: the fastest of a few rounds, taken in turn."""
    datasets_of = {config: load(config) for config in configs}
    timed = [seconds_per_step(config, datasets_of[config]) for config in configs]
    _, *rounds = [[next(one) for one in timed] for _ in range(1 + NUM_ROUNDS)]
    return [min(of_one) for of_one in zip(*rounds, strict=True)]


def seconds_per_step(config: run.Config, dataset: datasets.Dataset) -> Iterator[float]:
    """Seconds of a training step in one round after another; the first holds compilation."""
    program = fit.Program.compile(config, jax.devices()[:1])
    data = program.put(images.stored(dataset, "train", config.settings.binarization, training=True))
    initialize = jax.jit(partial(training.initialize, **program.parts))
    mean_image = images.mean_image(dataset.train.images)
    state = initialize(program.root, hyperparameters=program.hyperparameters, mean_image=mean_image)
    steps_per_epoch = len(dataset.train.images) // config.settings.batch_size
    step = num_steps = 1
    state = program.train_steps(state, data, step)
    while True:
        started, first, elapsed = time.perf_counter(), step, 0.0
        while elapsed < SECONDS_OF_ROUND:
            step = min(step + num_steps, (step // steps_per_epoch + 1) * steps_per_epoch)
            state = jax.block_until_ready(program.train_steps(state, data, step))
            elapsed = time.perf_counter() - started
        yield elapsed / (step - first)
        num_steps = max(1, int(SECONDS_OF_ROUND * (step - first) / elapsed))


def make_plan(
    chosen: Sequence[variants.Variant],
    points: Sequence[dict[str, Any]],
    budget: str,
    given: set[str],
    stored: dict[str, Any],
    available,
) -> tuple[Plan, datasets.Dataset]:
    """What is to be trained, and its data; raises UsageError, RunError or ObjectiveError where it cannot be."""
    dataset = options.load_dataset(configuration.dataset_name(), FLAGS.validation, FLAGS.image_size)
    if len(points) > 1 and not len(dataset.validation.images):
        raise UsageError("--tune chooses on validation images, and there are none; leave --validation=0 out")
    found = variants.candidates(chosen, points, given, dataset)
    first = {candidate.variant: candidate.config for candidate in reversed(found)}
    labels = variants.labels([first[number] for number in range(len(chosen))])
    if len(labels) < 2:
        raise UsageError(f"--objectives={chosen[0].text} is one objective alone; a comparison needs two")
    for other in range(1, len(chosen)):
        if difference := comparison.incomparable(judging.about(first[0]), judging.about(first[other])):
            raise UsageError(f"{chosen[0].text} and {chosen[other].text} cannot be compared: {difference}")
    for candidate in found:
        fit.check(None, candidate.config, dataset, available)
    measured = stored.get("seconds_per_step")
    if measured is None:
        programs = {candidate.config.settings: candidate.config for candidate in found}
        by_program = dict(zip(programs, paces(list(programs.values())), strict=True))
        measured = [by_program[candidate.config.settings] for candidate in found]
    pace_of = {candidate.config: seconds for candidate, seconds in zip(found, measured, strict=True)}
    num_images = len(dataset.train.images)
    epochs = stored.get("epochs") or variants.within_budget(budget, found, num_images, pace_of.__getitem__)
    return Plan(labels, variants.candidates(chosen, points, given, dataset, epochs), measured), dataset


class Run(NamedTuple):
    folder: Path
    config: Any
    flags: dict[str, Any]  # of experiments.train


def runs_of(plan: Plan, workdir: Path, num_seeds: int) -> list[Run]:
    """Every run of the plan."""
    return [
        Run(folder, dataclasses.replace(candidate.config, seed=seed), candidate.flags | {"seed": seed})
        for position, candidate in enumerate(plan.candidates)
        for seed, folder in plan.folders(position, workdir, num_seeds).items()
    ]


def train(runs: Sequence[Run], dataset, available, should_stop: Callable[[], bool]) -> bool:
    """Train every run that is not finished; False where it was stopped. A run that diverges leaves failure.json."""
    for count, (folder, config, training_flags) in enumerate(runs, 1):
        if (folder / fit.FAILURE).exists():
            continue
        with run.lock(folder):
            check_resumed(folder, config, dataset)
            if not finished(folder, config, dataset):
                print(f"training {count}/{len(runs)}: {folder.name}, {config.epochs} epochs")
                about = {"flags": training_flags, "argv": sys.argv, "devices": [str(d) for d in available]}
                run.write_config(folder, config, **about)
                try:
                    outcome = fit.fit(folder, config, dataset, devices=available, should_stop=should_stop)
                except fit.TrainingFailed as error:
                    print(f"diverged: {error}", file=sys.stderr)
                    continue
                if not outcome.finished:
                    return False
    return True


def finished(folder: Path, config, dataset) -> bool:
    saved = checkpoint.steps(folder / run.CHECKPOINTS)
    num_steps = config.epochs * (len(dataset.train.images) // config.settings.batch_size)
    tested = any(row["split"] == "test" and row["step"] == num_steps for row in run.read_metrics(folder))
    return bool(saved) and saved[-1] == num_steps and tested


class Chosen(NamedTuple):
    """The tuned group of each variant, its pace, what was tried where there was a choice, and what diverged."""

    groups: list[judging.Group]
    paces: list[float]
    tried: list[dict[str, Any]]
    left_out: list[str]


def choose(plan: Plan, workdir: Path, asked: dict[str, Any], available, should_stop: Callable[[], bool]) -> Chosen:
    """The point of each variant with the highest log-likelihood of validation images, mean over seeds.

    One at which a seed diverged is out.
    """
    yardstick = judging.Yardstick("validation", judging.TUNING_SAMPLES, asked["evaluation_seed"] or judging.SEED, None)
    validation = judging.images_of("validation", None)
    is_tuned = len(plan.candidates) > len(plan.labels)
    best: dict[int, tuple[float, int]] = {}
    tried, left_out = [], []
    for position, candidate in enumerate(plan.candidates):
        folders = plan.folders(position, workdir, asked["seeds"])
        label, point = plan.labels[candidate.variant], shown(candidate.point)
        score = error = None
        if failed := [str(seed) for seed, folder in folders.items() if (folder / fit.FAILURE).exists()]:
            words = " ".join([label, *(f"{name}={value}" for name, value in point.items())])
            left_out.append(f"{words} diverged (seed {', '.join(failed)})")
        elif is_tuned:
            print(f"validation: {label}, {point}")
            found = [judging.judged(f, yardstick, validation, available, should_stop) for f in folders.values()]
            score, error = mean_and_error([one.summary["log_likelihood"] for one in found])
        if not failed and (score or 0.0) > best.get(candidate.variant, (-math.inf, 0))[0]:
            best[candidate.variant] = score or 0.0, position
        tried.append({"label": label, "point": point, "log_likelihood": score, "log_likelihood_se": error})
    chosen = sorted(position for _, position in best.values())
    groups = [
        judging.Group(
            plan.labels[plan.candidates[position].variant],
            plan.candidates[position].config,
            plan.folders(position, workdir, asked["seeds"]),
        )
        for position in chosen
    ]
    tried = [one | {"chosen": position in chosen} for position, one in enumerate(tried)] if is_tuned else []
    return Chosen(groups, [plan.paces[position] for position in chosen], tried, left_out)


def shown(point: dict[str, Any]) -> dict[str, Any]:
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in point.items()}


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error over seeds; None for the error of one."""
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return float(np.mean(values)), error
