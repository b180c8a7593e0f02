"""A run alone: a population of one, whose batches all devices share, and which keeps its own checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vae.datasets.dataset import Dataset
from vae.runs.config import Config
from vae.runs.folder import CHECKPOINTS
from vae.training.keeper import Keeper, MemoryKeeper, RunKeeper
from vae.training.loop import PopulationRun
from vae.training.program import ALONE, cached_program, of_run
from vae.training.record import MemoryRecord, Record, epoch_means
from vae.training.start import check, stored_splits


class Progress(NamedTuple):
    """What a watcher of a run sees. Bounds are nats per example, of the objective being trained."""

    step: int
    num_steps: int
    epoch: float
    num_epochs: int
    train_bound: float  # mean over the epoch so far
    held_out_bound: float | None  # at the end of the last epoch
    held_out_split: str | None
    epoch_ended: bool
    steps_per_second: float
    seconds_left: float


class Outcome(NamedTuple):
    """How training ended; `test`: bound and metrics on the test split, if there is one and the run is finished.

    `best_epoch`, of a run with patience: after which the parameters were the best ones, which are tested.
    """

    finished: bool
    epoch: float
    test: dict[str, float]
    best_epoch: float | None = None


def fit(
    workdir: Path,
    config: Config,
    dataset: Dataset,
    *,
    devices: Sequence[Any] | None = None,
    keep_last: int = 2,
    keep_best: int = 1,
    save_every: float = 1.0,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train the run in `workdir`, from its last checkpoint if there is one, until `config.epochs` epochs are done.

    With `config.patience` it ends after that many epochs without a better validation bound.

    Of the epochs, the checkpoints of the last `keep_last` and of the `keep_best` best stay. They are written at least
    `save_every` seconds apart (0: after each epoch), and when training stops or ends.
    `should_stop` asks for an earlier end, within seconds; either way the last state is saved. The held-out bound is
    the validation split's, or, if there is none, the test split's, which then chooses nothing.
    Raises TrainingFailed, after writing failure.json, or if the run is finished and saved but its test bound is not
    finite, at every call; RunError and CheckpointError as their modules say.
    The caller holds the folder's lock.
    """
    devices = list(devices or jax.devices()[:1])
    check(workdir, config, dataset, devices)
    record = Record(config, len(dataset.train.images), workdir=workdir)
    keeper = RunKeeper(workdir / CHECKPOINTS, keep_last, keep_best, save_every)
    return _train(record, keeper, dataset, devices, report, should_stop)


def fit_in_memory(
    config: Config,
    dataset: Dataset,
    *,
    devices: Sequence[Any] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> MemoryRecord:
    """Train a run without a folder, as `fit`; its rows of metrics and its state, the best one if it has patience.

    Raises as `fit`, and writes nothing.
    """
    devices = list(devices or jax.devices()[:1])
    check(None, config, dataset, devices)
    record = MemoryRecord(config, len(dataset.train.images))
    _train(record, MemoryKeeper(record), dataset, devices, report, should_stop)
    return record


def _train(
    record: MemoryRecord,
    keeper: Keeper,
    dataset: Dataset,
    devices: Sequence[Any],
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    """Train a population of one."""
    config = record.config
    program = cached_program(config.settings, tuple(devices), 1, ALONE)
    splits = stored_splits(dataset, config.settings.binarization)
    data = {name: program.layout.share(split) for name, split in splits.items()}
    run = PopulationRun([record], dataset, program, data, keeper)
    finished = run.train(_reporter(report, record.last_bound(run.held_out)), should_stop)
    if run.failures:
        raise run.failures[0]
    epoch = run.step / record.steps_per_epoch
    if not finished:
        return Outcome(False, epoch, {})
    best_epoch = None if run.best_steps is None else int(run.best_steps[0]) / record.steps_per_epoch
    if not run.test_values:
        return Outcome(True, epoch, {}, best_epoch)
    (test,) = run.test_values.values()
    if not math.isfinite(test["bound"]):
        raise record.not_tested(test["bound"])
    return Outcome(True, epoch, {config.settings.objective: test.pop("bound"), **test}, best_epoch)


def _reporter(report: Callable[[Progress], None], held_out_bound: float | None) -> Callable[[PopulationRun], None]:
    """Reports the Progress of a population of one, unless it failed; `held_out_bound` is the last one so far."""

    def report_one(run: PopulationRun) -> None:
        nonlocal held_out_bound
        (record,), step, pace = run.records, run.step, run.pace
        if run.failures:
            return
        for values in run.held_out_values.values():
            held_out_bound = values["bound"]
        report(
            Progress(
                step=step,
                num_steps=record.num_steps,
                epoch=step / record.steps_per_epoch,
                num_epochs=record.config.epochs,
                train_bound=epoch_means(of_run(run.seen, 0), record.steps_per_epoch)["bound"],
                held_out_bound=held_out_bound,
                held_out_split=run.held_out,
                epoch_ended=run.epoch_ended,
                steps_per_second=1 / pace.seconds_per_step,
                seconds_left=(record.num_steps - step) * pace.seconds_per_step,
            )
        )

    return report_one
