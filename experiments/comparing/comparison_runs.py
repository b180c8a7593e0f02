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

from experiments.command import configuration, options
from experiments.command.parsing import UsageError
from experiments.comparing import judging, variants
from experiments.sweep import describe
from experiments.sweeping.boards import SweepBoard
from experiments.sweeping.points import label, loader
from experiments.train import check_resumed
from vae import checkpoint, comparison, datasets, fit, images, planning, run, sweep, training

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
        return {seed: workdir / planning.RUNS / name for seed, name in names.items()}


def paces(configs: Sequence[run.Config]) -> list[float]:
    """Seconds of a training step of each run, alone on this machine: the fastest of a few rounds, taken in turn."""
    load = loader()
    timed = [seconds_per_step(config, load(config)) for config in configs]
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
        fit.check(None, candidate.config, dataset, available, begun=bool(stored))
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
    config: Any
    values: dict[str, Any]  # what tells it from the others
    flags: dict[str, Any]  # of experiments.train


def runs_of(plan: Plan, workdir: Path, num_seeds: int) -> dict[str, Run]:
    """Every run of the plan, by the name of its folder."""
    return {
        folder.name: Run(
            dataclasses.replace(candidate.config, seed=seed),
            {"objective": plan.labels[candidate.variant], **shown(candidate.point), "seed": seed},
            candidate.flags | {"seed": seed},
        )
        for position, candidate in enumerate(plan.candidates)
        for seed, folder in plan.folders(position, workdir, num_seeds).items()
    }


def train(workdir: Path, runs: dict[str, Run], dataset, available, should_stop: Callable[[], bool]) -> bool:
    """Train every run that is not done, as a sweep; False where it was stopped. One that diverges leaves failure.json.

    Seeds that were asked for later are a sweep of their own, after the one that `workdir` holds.
    """
    started = list(run.read_json(workdir / run.SWEEP)["runs"]) if (workdir / run.SWEEP).exists() else []
    for name in runs:
        check_resumed(workdir / planning.RUNS / name, runs[name].config, dataset)
    for names in (started, [name for name in runs if name not in started]):
        chosen = {name: runs[name] for name in names}
        if chosen and names is not started:
            begin(workdir, chosen, available)
        grouped = planning.grouped({name: one.config for name, one in chosen.items()}, lambda config: dataset)
        if not all(map(done, (workdir / planning.RUNS / name for name in names))):
            describe(chosen, len(grouped), available)
        with SweepBoard({name: label(one.values) for name, one in chosen.items()}) as board:
            if not sweep.sweep(workdir, grouped, devices=available, report=board.update, should_stop=should_stop):
                return False
    return True


def begin(workdir: Path, runs: dict[str, Run], available) -> None:
    """Write sweep.json, and the config.json of every run."""
    devices = list(map(str, available))
    for name, one in runs.items():
        folder = workdir / planning.RUNS / name
        folder.mkdir(parents=True, exist_ok=True)
        run.write_config(folder, one.config, flags=one.flags, argv=sys.argv, devices=devices)
    # Last: what sweep.json names is there.
    run.write_json(workdir / run.SWEEP, {"runs": {name: one.values for name, one in runs.items()}} | run.provenance())


def done(folder: Path) -> bool:
    return bool(checkpoint.steps(folder / run.CHECKPOINTS)) or (folder / fit.FAILURE).exists()


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
