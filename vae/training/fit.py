"""A whole run: epochs, validation, metrics, checkpoints; stops and resumes without a trace in its result."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vae import hosts, objectives
from vae.datasets import images
from vae.datasets.dataset import Dataset, Split
from vae.models import checks
from vae.models import model as models
from vae.runs import checkpoint
from vae.runs.config import Config, read_config
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS
from vae.runs.metrics import Metrics, read_metrics
from vae.streams import Stream, stream
from vae.training import step as training
from vae.training.record import FAILURE as FAILURE
from vae.training.record import Record, epoch_means
from vae.training.record import TrainingFailed as TrainingFailed

SECONDS_PER_CALL = 1.0  # of the compiled program: how often progress is seen and a request to stop is heard


class Progress(NamedTuple):
    """What a watcher of a run sees. Bounds are nats per example, of the objective being trained."""

    step: int
    num_steps: int
    epoch: float
    num_epochs: int
    train_bound: float  # mean over the epoch so far
    held_out_bound: float | None  # at the end of the last epoch
    held_out_split: str
    epoch_ended: bool
    steps_per_second: float
    seconds_left: float


class Outcome(NamedTuple):
    """How a call of `fit` ended; `test` holds the bound and its metrics on the test split once the run is finished."""

    finished: bool
    epoch: float
    test: dict[str, float]


def fit(
    workdir: Path,
    config: Config,
    dataset: Dataset,
    *,
    devices: Sequence[Any] | None = None,
    keep_last: int = 2,
    keep_best: int = 1,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train the run in `workdir`, from its last checkpoint if there is one, until `config.epochs` epochs are done.

    `should_stop` asks for an earlier end, within seconds; either way the last state is saved. The held-out bound is
    the validation split's, or, where there is none, the test split's, which then chooses nothing.
    Raises TrainingFailed, after writing failure.json, or where the run is finished and saved but its test bound is not
    finite, at every call; RunError and CheckpointError as their modules say.
    The caller holds the folder's lock.
    """
    settings = config.settings
    devices = list(devices or jax.devices()[:1])
    check(workdir, config, dataset, devices)
    record = Record(workdir, config, len(dataset.train.images))
    num_steps, steps_per_epoch = record.num_steps, record.steps_per_epoch
    held_out = held_out_split(dataset)
    program = Program.compile(config, devices)
    splits = {
        name: program.put(images.stored(dataset, name, settings.binarization, training=name == "train"))
        for name in ("train", "test", held_out)
    }
    state = program.put(first_state(workdir, config, dataset, program.parts))
    step = int(state.step)
    checkpoints = workdir / CHECKPOINTS

    with contextlib.closing(Metrics(workdir, step)) as metrics:
        seconds_before, held_out_bound = _seconds_so_far(workdir), record.last_bound(held_out)
        started, pace = time.perf_counter(), Pace(SECONDS_PER_CALL)
        while step < num_steps and not hosts.any_of(should_stop()):
            epoch_end = (step // steps_per_epoch + 1) * steps_per_epoch
            stop = min(step + pace.steps_per_call, epoch_end)
            called = time.perf_counter()
            state = program.train_steps(state, splits["train"], stop)
            if not training.last_step_was_finite(state):
                raise record.failure("the bound or its gradient", state)
            pace.saw(stop - step, time.perf_counter() - called)
            step = stop
            means = epoch_means(state, steps_per_epoch)
            if step == epoch_end:
                seconds = seconds_before + time.perf_counter() - started
                record.write(metrics, step, "train", means | {"seconds": seconds})
                state = program.refit(state, splits["train"])
                values = program.validate(state, splits[held_out])
                held_out_bound = values["bound"]
                record.write(metrics, step, held_out, values)
                if not math.isfinite(held_out_bound):
                    raise record.failure(f"the {held_out} bound", state)
                checkpoint.save(checkpoints, step, state, held_out_bound if held_out == "validation" else None)
                checkpoint.prune(checkpoints, keep_last, keep_best)
            left = (num_steps - step) * pace.seconds_per_step
            report(
                Progress(
                    step, num_steps, step / steps_per_epoch, config.epochs, means["bound"], held_out_bound, held_out,
                    step == epoch_end, 1 / pace.seconds_per_step, left,
                )
            )  # fmt: skip
        checkpoint.save(checkpoints, step, state)
        if step < num_steps:
            return Outcome(False, step / steps_per_epoch, {})
        test = program.validate(state, splits["test"])
        if held_out != "test" and not record.was_tested(step):
            record.write(metrics, step, "test", test)
    if not math.isfinite(test["bound"]):
        raise record.not_tested(test["bound"])
    return Outcome(True, step / steps_per_epoch, {settings.objective: test.pop("bound"), **test})


class Pace:
    """How many steps a call of a compiled program takes, so that it lasts about `seconds_per_call`."""

    def __init__(self, seconds_per_call: float):
        self._seconds_per_call, self._compiled = seconds_per_call, False
        self.steps_per_call, self.seconds_per_step = 1, float("nan")

    def saw(self, num_steps: int, seconds: float) -> None:
        """A call of `num_steps` took `seconds`; the first one, which compiles, tells nothing of the pace."""
        if self._compiled:
            seconds = hosts.agreed(lambda: seconds)
            self.seconds_per_step = seconds / num_steps
            fitting = int(self._seconds_per_call / self.seconds_per_step)
            self.steps_per_call = max(1, min(8 * self.steps_per_call, fitting))
        self._compiled = True


def held_out_split(dataset: Dataset) -> str:
    """The split whose bound is watched in training."""
    return "validation" if len(dataset.validation.images) else "test"


class Program(NamedTuple):
    """The compiled functions of a run, and the arrays that every call needs, on its devices."""

    parts: dict[str, Any]  # model, objective, settings
    root: jax.Array
    hyperparameters: Any
    whole: NamedSharding
    compiled_train_steps: Callable[..., training.TrainState]
    compiled_validate: Callable[..., dict[str, jax.Array]]
    compiled_refit: Callable[..., training.TrainState] | None

    @classmethod
    def compile(cls, config: Config, devices: Sequence[Any]) -> Program:
        """Nothing is compiled before its first call. A batch is shared by all devices, the rest is on each of them."""
        mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
        whole, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
        settings = config.settings
        parts = {
            "model": models.build(settings),
            "objective": objectives.build(settings),
            "settings": settings,
        }
        hyperparameters = jax.tree.map(jnp.asarray, config.hyperparameters)
        root, hyperparameters = hosts.place((jax.random.key(config.seed), hyperparameters), whole)
        train_steps = partial(training.train_steps, **parts, sharding=shared)
        refit = partial(training.refit, model=parts["model"], settings=settings)
        return cls(
            parts,
            root,
            hyperparameters,
            whole,
            jax.jit(train_steps, donate_argnames="state"),
            jax.jit(partial(training.validate, **parts)),
            None if parts["model"].refit is None else jax.jit(refit),
        )

    def put(self, tree: Any) -> Any:
        return hosts.place(tree, self.whole)

    def train_steps(self, state: training.TrainState, data: Split, stop: int) -> training.TrainState:
        return self.compiled_train_steps(self.root, state, data, jnp.int32(stop), self.hyperparameters)

    def refit(self, state: training.TrainState, data: Split) -> training.TrainState:
        """`state` with what the model re-estimates after an epoch."""
        return state if self.compiled_refit is None else self.compiled_refit(self.root, state, data)

    def validate(self, state: training.TrainState, data: Split) -> dict[str, float]:
        """The bound being trained and its metrics, averaged over `data`, with the same noise at every call."""
        key = stream(self.root, Stream.EVALUATE)
        values = self.compiled_validate(key, state.evaluated_params, data, self.hyperparameters)
        return {name: float(value) for name, value in values.items()}


def first_state(workdir: Path, config: Config, dataset: Dataset, parts: dict[str, Any]) -> training.TrainState:
    """The state to go on from: the last checkpoint's, or a new one, with the parameters of `config.init_from`."""
    folder = workdir / CHECKPOINTS
    checkpoint.clean(folder)
    saved = hosts.agreed(lambda: checkpoint.steps(folder))
    if saved:
        like = training.abstract_state(**parts, hyperparameters=config.hyperparameters)
        return checkpoint.restore(folder, saved[-1], like)
    initialize = jax.jit(partial(training.initialize, **parts))
    state = initialize(
        jax.random.key(config.seed),
        hyperparameters=config.hyperparameters,
        moments=images.moments(dataset.train.images),
    )
    if config.init_from is None:
        return state
    return started_from(state, initial_params(config.init_from, state.params))


def started_from(state: training.TrainState, params: Any) -> training.TrainState:
    """A new state with other parameters."""
    return state._replace(params=params, average=None if state.average is None else jax.tree.map(jnp.copy, params))


def saved_state(workdir: Path, which: str | int = "last") -> tuple[Config, training.TrainState]:
    """The Config of the run in `workdir`, and its state at the "last" or "best" checkpoint or at a step.

    Raises RunError or CheckpointError.
    """
    config = read_config(workdir)
    step = checkpoint.choose(workdir, which)
    return config, checkpoint.restore(workdir / CHECKPOINTS, step, abstract_state(config))


def initial_params(workdir: str, like: Any) -> Any:
    """The parameters of the run in `workdir`; raises RunError where their names or shapes are not those of `like`."""
    params = saved_state(Path(workdir).expanduser())[1].evaluated_params
    found, wanted = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, like)
    )
    if differences := [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]:
        name = differences[0]
        raise RunError(
            f"the parameters of --init_from={workdir} do not fit this run: {name} has the shape "
            f"{found.get(name, 'absent')}, not {wanted.get(name, 'absent')}"
            + (f", and {len(differences) - 1} more" if len(differences) > 1 else "")
            + "; use the same network, data and objective"
        )
    return params


def check(
    workdir: Path | None, config: Config, dataset: Dataset, devices: Sequence[Any], *, begun: bool = False
) -> None:
    """Raises RunError, LikelihoodError, ObjectiveError or CheckpointError where a run cannot start; writes nothing.

    What a new run is refused, one that has `begun`, or that has a checkpoint in `workdir`, is not.
    """
    settings = config.settings
    checks.check_data(settings.likelihood, dataset, settings.binarization)
    check_batch_size(settings.batch_size, len(dataset.train.images), len(devices))
    resumed = workdir is not None and checkpoint.steps(workdir / CHECKPOINTS)
    if not begun and not resumed:
        validated = {name: len(getattr(dataset, name).images) for name in (held_out_split(dataset), "test")}
        objectives.check(settings, validated)
    state = abstract_state(config)
    check_memory(state, jax.local_devices()[0])
    if config.init_from is not None and not resumed:
        initial_params(config.init_from, state.params)


def abstract_state(config: Config) -> training.TrainState:
    """The shapes and dtypes of a run's state."""
    settings = config.settings
    model, objective = models.build(settings), objectives.build(settings)
    return training.abstract_state(model, objective, settings, config.hyperparameters)


def check_memory(state: Any, device: Any) -> None:
    """Raises RunError where parameters and optimiser state alone exceed the memory: an allocation may hang for ever."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    statistics = device.memory_stats() or {}
    memory = statistics.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise RunError(
            f"the parameters and Adam's moments take {needed / 1e9:,.1f} GB, but there are {memory / 1e9:,.1f} GB of "
            "memory; use smaller --hidden_sizes, --channels or --latent_dim"
        )


def check_batch_size(batch_size: int, num_images: int, num_devices: int) -> None:
    """Raises RunError where a batch cannot be filled or shared out."""
    if batch_size > num_images:
        raise RunError(
            f"a batch of {batch_size} cannot be filled from {num_images} training images; "
            f"use --batch_size={num_images} or less, or hold out fewer with --validation"
        )
    if batch_size % num_devices:
        raise RunError(
            f"a batch of {batch_size} cannot be shared by {num_devices} devices; "
            f"use a --batch_size that is a multiple of {num_devices}, or other --devices"
        )


def _seconds_so_far(workdir: Path) -> float:
    """Seconds of training so far, from the metrics of the run that goes on."""
    return max((row["seconds"] for row in read_metrics(workdir) if "seconds" in row), default=0.0)
