"""The runs of a comparison: planned within a budget, trained, and chosen among by validation images."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.command import judging
from experiments.command.boards import SweepBoard
from experiments.flags import configuration, naming, options, variants
from experiments.flags.parsing import UsageError
from experiments.flags.points import label, loader
from experiments.sweep import describe
from experiments.train import check_resumed
from vae import datasets
from vae.datasets import images
from vae.evaluation import comparison
from vae.runs import checkpoint
from vae.runs.config import Config, changed_settings, provenance, write_config
from vae.runs.files import RunError, write_json
from vae.runs.folder import CHECKPOINTS, CONFIG
from vae.sweeps import folders, planning, sweep
from vae.sweeps.sweep_file import PLAN, SWEEP, read_sweep
from vae.training import fit, record
from vae.training import step as training

FLAGS = options.FLAGS
NUM_ROUNDS, SECONDS_OF_ROUND = 3, 0.2  # in which a step is timed


class Plan(NamedTuple):
    """What is trained: each candidate, with its seconds a step, of a variant with a label and settings of its own."""

    labels: list[str]
    given: list[dict[str, Any]]  # of each variant, as --objectives says
    candidates: list[variants.Candidate]
    paces: list[float]

    def folder_name(self, candidate: variants.Candidate, seed: int) -> str:
        values = {**self.given[candidate.variant], **candidate.point}
        return naming.folder_name(values.pop("objective"), values | {"seed": seed})


Places = list[dict[int, Path]]  # the run folders of each candidate of a plan, by seed


def place(plan: Plan, workdir: Path, num_seeds: int, *, recorded: bool) -> Places:
    """Where each run is, or will be: the folder whose config.json is that of the run, else one named after it.

    Earlier code gave other names, and may have given one to two runs: a folder is known by what is in it. Raises
    RunError as folders.check, and where two runs would share a folder.
    """
    stored = {name: _of_any_length(config) for name, config in folders.configs(workdir).items()}
    named = {config: name for name, config in stored.items()}
    wanted: dict[str, Config] = {}
    found: Places = []
    for candidate in plan.candidates:
        found.append({})
        for seed in range(num_seeds):
            config = dataclasses.replace(candidate.config, seed=seed)
            name = plan.folder_name(candidate, seed)
            if stored.get(name) != _of_any_length(config):
                name = named.get(_of_any_length(config), name)
            # Some file systems do not tell capitals from small letters.
            if clash := [other for other in wanted if other.casefold() == name.casefold()]:
                differing = "; ".join(changed_settings(wanted[clash[0]], config))
                raise RunError(f"two runs would share the folder {name}: {differing}; compare them one by one")
            wanted[name] = config
            found[-1][seed] = workdir / planning.RUNS / name
    folders.check(workdir, wanted, recorded=recorded)
    return found


def _of_any_length(config: Config) -> Config:
    return dataclasses.replace(config, epochs=0)


def paces(configs: Sequence[Config]) -> list[float]:
    """Seconds of a training step of each run, alone on this machine: the fastest of a few rounds, taken in turn.

    Runs of one program on the same data have one pace: what differs between two measurements of it is noise.
    """
    load = loader()
    programs = {_program(config): config for config in configs}
    timed = [seconds_per_step(config, load(config)) for config in programs.values()]
    _, *rounds = [[next(one) for one in timed] for _ in range(1 + NUM_ROUNDS)]
    pace_of = dict(zip(programs, map(min, zip(*rounds, strict=True)), strict=True))
    return [pace_of[_program(config)] for config in configs]


def _program(config: Config) -> Any:
    return config.settings, config.dataset, config.validation, config.image_size


def seconds_per_step(config: Config, dataset: datasets.Dataset) -> Iterator[float]:
    """Seconds of a training step in one round after another; the first holds compilation."""
    program = fit.Program.compile(config, jax.devices()[:1])
    data = program.put(images.stored(dataset, "train", config.settings.binarization, training=True))
    initialize = jax.jit(partial(training.initialize, **program.parts))
    moments = images.moments(dataset.train.images)
    state = initialize(program.root, hyperparameters=program.hyperparameters, moments=moments)
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
        measured = paces([candidate.config for candidate in found])
    epochs = stored.get("epochs")
    if any(values is not None and len(values) != len(found) for values in (measured, epochs)):
        raise RunError(f"{PLAN} is damaged: it is of another number of runs; choose another --workdir")
    pace_of = {candidate.config: seconds for candidate, seconds in zip(found, measured, strict=True)}
    num_images = len(dataset.train.images)
    epochs = epochs or variants.within_budget(budget, found, num_images, pace_of.__getitem__)
    own = [variant.given for variant in chosen]
    return Plan(labels, own, variants.candidates(chosen, points, given, dataset, epochs), measured), dataset


class Run(NamedTuple):
    config: Any
    values: dict[str, Any]  # what tells it from the others
    flags: dict[str, Any]  # of experiments.train


def runs_of(plan: Plan, places: Places) -> dict[str, Run]:
    """Every run of the plan, by the name of its folder."""
    return {
        folder.name: Run(
            dataclasses.replace(candidate.config, seed=seed),
            {"objective": plan.labels[candidate.variant], **shown(candidate.point), "seed": seed},
            candidate.flags | {"seed": seed},
        )
        for candidate, by_seed in zip(plan.candidates, places, strict=True)
        for seed, folder in by_seed.items()
    }


def train(workdir: Path, runs: dict[str, Run], dataset, available, should_stop: Callable[[], bool]) -> bool:
    """Train every run that is not done, as a sweep; False where it was stopped. One that diverges leaves failure.json.

    Seeds that were asked for later are a sweep of their own, after the one that `workdir` holds. Raises RunError where
    that one names a run that is not among `runs`.
    """
    started = list(read_sweep(workdir)["runs"]) if (workdir / SWEEP).exists() else []
    if lost := [name for name in started if name not in runs]:
        raise RunError(
            f"{workdir / SWEEP} names the run {lost[0]}, whose {CONFIG} is lost or is that of another run; put "
            "it back, or choose another --workdir"
        )
    for name in runs:
        check_resumed(workdir / planning.RUNS / name, runs[name].config, dataset)
    num_images = len(dataset.train.images)
    ended = {name: done(workdir / planning.RUNS / name, runs[name].config, num_images) for name in runs}
    later = [name for name in runs if name not in started and not ended[name]]
    for names in (started, later):
        chosen = {name: runs[name] for name in names}
        if chosen and names is not started:
            begin(workdir, chosen, available)
        grouped = planning.grouped({name: one.config for name, one in chosen.items()}, lambda config: dataset)
        if not all(ended[name] for name in names):
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
        write_config(folder, one.config, flags=one.flags, argv=sys.argv, devices=devices)
    # Last: what sweep.json names is there.
    write_json(workdir / SWEEP, {"runs": {name: one.values for name, one in runs.items()}} | provenance())


def done(folder: Path, config: Config, num_images: int) -> bool:
    """Whether a run was trained to its end, or diverged."""
    saved = checkpoint.steps(folder / CHECKPOINTS)
    return saved[-1:] >= [record.Record(folder, config, num_images).num_steps] or (folder / record.FAILURE).exists()


class Chosen(NamedTuple):
    """The tuned group of each variant, its pace, what was tried where there was a choice, and what diverged."""

    groups: list[judging.Group]
    paces: list[float]
    tried: list[dict[str, Any]]
    left_out: list[str]


def choose(plan: Plan, places: Places, asked: dict[str, Any], available, should_stop: Callable[[], bool]) -> Chosen:
    """The point of each variant with the highest log-likelihood of validation images, mean over seeds.

    One at which a seed diverged or is not finite is out (see judging.WHOLE).
    """
    yardstick = judging.Yardstick("validation", judging.TUNING_SAMPLES, asked["evaluation_seed"] or judging.SEED, None)
    validation = judging.images_of("validation", None)
    is_tuned = len(plan.candidates) > len(plan.labels)
    best: dict[int, tuple[float, int]] = {}
    tried, left_out = [], []
    for position, (candidate, by_seed) in enumerate(zip(plan.candidates, places, strict=True)):
        label, point = plan.labels[candidate.variant], shown(candidate.point)
        words = " ".join([label, *(f"{name}={naming.text(value)}" for name, value in candidate.point.items())])
        score = error = None
        if failed := [str(seed) for seed, folder in by_seed.items() if (folder / record.FAILURE).exists()]:
            left_out.append(f"{words} diverged (seed {', '.join(failed)}); {judging.WHOLE}")
        elif is_tuned:
            print(f"validation: {label}, {point}")
            one = judging.Group(words, candidate.config, by_seed)
            _, found, unusable = judging.judge_all(
                [one], list(by_seed), lambda f: judging.judged(f, yardstick, validation, available, should_stop)
            )
            left_out += unusable
            if found:
                score, error = mean_and_error([one.summary["log_likelihood"] for one in found.values()])
        usable = not failed and (score is not None or not is_tuned)
        if usable and (score or 0.0) > best.get(candidate.variant, (-math.inf, 0))[0]:
            best[candidate.variant] = score or 0.0, position
        tried.append({"label": label, "point": point, "log_likelihood": score, "log_likelihood_se": error})
    chosen = sorted(position for _, position in best.values())
    groups = [
        judging.Group(plan.labels[one.variant], one.config, places[position])
        for position in chosen
        for one in [plan.candidates[position]]
    ]
    tried = [one | {"chosen": position in chosen} for position, one in enumerate(tried)] if is_tuned else []
    return Chosen(groups, [plan.paces[position] for position in chosen], tried, left_out)


def shown(point: dict[str, Any]) -> dict[str, Any]:
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in point.items()}


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error over seeds; None for the error of one."""
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return float(np.mean(values)), error
