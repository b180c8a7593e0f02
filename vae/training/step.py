"""One training step, and any number of them as one program. Shapes: N images, B batch, H W C image.

Everything random at step t is a function of (seed, t): see streams.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from vae.datasets.dataset import Split
from vae.datasets.images import Moments, seen_in_training, to_unit_interval
from vae.models.model import Batch, Model
from vae.objectives import Objective, num_drawn
from vae.settings import Hyperparameters, Settings
from vae.streams import Stream, stream
from vae.training import slices
from vae.training.optimizers import learning_rate, optimizer

END = 2**31 - 1  # a step after every schedule
NUM_RECENT = 100  # steps whose bound, gradient norm and learning rate are kept, to explain a loss that is not finite


class Recent(NamedTuple):
    """The last `NUM_RECENT` steps, at position step % NUM_RECENT; NaN for those that were not taken yet."""

    bound: Float[Array, "T"]
    gradient_norm: Float[Array, "T"]
    learning_rate: Float[Array, "T"]


class TrainState(NamedTuple):
    """All that training changes; together with the seed it determines the rest of the run."""

    OPTIONAL = ("objective_state",)  # fields that a checkpoint lacks if they are None

    step: Int[Array, ""]
    params: Any
    optimizer_state: Any
    average: Any  # exponential moving average of params, or None if settings.average_weights is off
    sums: dict[str, Float[Array, ""]]  # of the batch means of `bound` and the metrics, since the epoch began
    recent: Recent
    objective_state: Any = None  # of an objective that has one: what it carries from step to step

    @property
    def evaluated_params(self) -> Any:
        """The parameters that are evaluated and used: the average if there is one."""
        return self.params if self.average is None else self.average


def initialize(
    root: Key[Array, ""],
    model: Model,
    objective: Objective,
    settings: Settings,
    hyperparameters: Hyperparameters,
    moments: Moments,
) -> TrainState:
    """The state before step 0 of the run whose root key is `root`; `moments` are those of its training images."""
    key_model, key_objective = jax.random.split(stream(root, Stream.INIT))
    params = model.init(key_model, Batch(jnp.asarray(moments.mean)[None]), moments.spread)
    extra = objective.init(key_objective, model)
    if extra:
        params["objective"] = extra
    batch = Batch(jnp.zeros((settings.batch_size, *settings.image_shape)))
    objective_state = objective.init_state(hyperparameters)
    apply = objective.at(objective_state).apply
    _, _, metrics = jax.eval_shape(
        lambda key, params: apply(key, params, model, batch, hyperparameters, 0), key_model, params
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=optimizer(settings, hyperparameters).init(params),
        average=jax.tree.map(jnp.copy, params) if settings.average_weights else None,
        sums={name: jnp.zeros(()) for name in ("bound", *metrics)},
        recent=Recent(*(jnp.full(NUM_RECENT, jnp.nan, jnp.float32) for _ in Recent._fields)),
        objective_state=objective_state,
    )


_initialize = jax.jit(initialize, static_argnames=("model", "objective", "settings"))  # so that it is traced once


def abstract_state(model: Model, objective: Objective, settings: Settings, hyperparameters: Hyperparameters):
    """The shapes and dtypes of a TrainState, without computing one."""
    key, moments = jax.eval_shape(lambda: (jax.random.key(0), Moments(jnp.zeros(settings.image_shape), jnp.zeros(()))))
    return _initialize.eval_shape(
        key, model=model, objective=objective, settings=settings, hyperparameters=hyperparameters, moments=moments
    )


def epoch_order(root: Key[Array, ""], epoch: Int[Array, ""], num_images: int, shuffle: str) -> Int[Array, "N"]:
    """The permutation of the training images that an epoch goes through; step t takes the (t mod N // B)-th batch.

    With `shuffle` = "never" it is the data set's own order, in every epoch.
    """
    if shuffle == "never":
        return jnp.arange(num_images)
    return jax.random.permutation(stream(root, Stream.SHUFFLE, epoch), num_images)


def train_step(
    key: Key[Array, ""],
    state: TrainState,
    batch: Batch,
    hyperparameters: Hyperparameters,
    *,
    model: Model,
    objective: Objective,
    settings: Settings,
    num_slices: int = 1,
) -> TrainState:
    """One step of gradient ascent on the mean of the bound over `batch`, in slices of it; spends `key`."""
    parts = {"model": model.in_training, "objective": objective.at(state.objective_state)}
    samples: dict[str, Any] = {"num_samples": num_drawn(settings), "num_slices": num_slices}
    gradient, values = slices.gradient(key, state.params, batch, hyperparameters, state.step, **parts, **samples)
    update, optimizer_state = optimizer(settings, hyperparameters).update(gradient, state.optimizer_state)
    rate = learning_rate(settings.schedule, hyperparameters, state.step)
    params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, state.params, update)
    average = state.average
    if settings.average_weights:
        # A short memory at first, so that the average does not dwell on the initial parameters.
        decay = jnp.minimum(hyperparameters.ema_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: a + (1 - decay).astype(p.dtype) * (p - a), average, params)
    means = {name: value.mean() for name, value in values.items()}
    now = Recent(means["bound"], optax.tree.norm(gradient), rate)
    return TrainState(
        step=state.step + 1,
        params=params,
        optimizer_state=optimizer_state,
        average=average,
        sums=jax.tree.map(jnp.add, state.sums, means),
        recent=jax.tree.map(lambda old, new: old.at[state.step % NUM_RECENT].set(new), state.recent, now),
        objective_state=objective.update(state.objective_state, means, hyperparameters, state.step),
    )


def last_step_was_finite(state: TrainState) -> Bool[Array, ""] | np.bool_:
    """Whether the bound and the gradient's norm were finite in the step before `state.step`; true of a new state."""
    last = (state.step - 1) % NUM_RECENT
    # Not jnp.isfinite: of a state of numpy arrays, on the host, nothing is compiled.
    finite = (abs(state.recent.bound[last]) < np.inf) & (state.recent.gradient_norm[last] < np.inf)
    return finite | (state.step == 0)


def train_steps(
    root: Key[Array, ""],
    state: TrainState,
    data: Split,
    stop: Int[Array, ""],
    hyperparameters: Hyperparameters,
    *,
    model: Model,
    objective: Objective,
    settings: Settings,
    sharding: jax.sharding.Sharding | None = None,
    num_slices: int = 1,
) -> TrainState:
    """Train until step `stop`, which must lie in the epoch of `state.step`, or until a step is not finite.

    An epoch is N // B steps over its permutation. `sharding` is that of a batch's leading axis; the gradient is
    taken in `num_slices` of each batch. How a run is cut into calls changes no bit of it.
    """
    num_images, batch_size = len(data.images), settings.batch_size
    steps_per_epoch = num_images // batch_size
    order = epoch_order(root, state.step // steps_per_epoch, num_images, settings.shuffle)

    def one_step(state):
        first = (state.step % steps_per_epoch) * batch_size
        index = lax.dynamic_slice_in_dim(order, first, batch_size)
        x = seen_in_training(stream(root, Stream.BINARIZE, state.step), data.images[index], settings.binarization)
        if sharding is not None:
            x = lax.with_sharding_constraint(x, sharding)
        batch = Batch(x, None if data.labels is None else data.labels[index], index, num_images)
        state = state._replace(sums=jax.tree.map(lambda total: jnp.where(first == 0, 0, total), state.sums))
        key = stream(root, Stream.NOISE, state.step)
        parts = {"model": model, "objective": objective, "settings": settings}
        return train_step(key, state, batch, hyperparameters, **parts, num_slices=num_slices)

    return lax.while_loop(lambda state: (state.step < stop) & last_step_was_finite(state), one_step, state)


def validate(
    key: Key[Array, ""],
    params: Any,
    data: Split,
    hyperparameters: Hyperparameters,
    *,
    model: Model,
    objective: Objective,
    settings: Settings,
) -> dict[str, Float[Array, ""]]:
    """Means over a held-out split of the bound being trained (`bound`) and of its metrics; spends `key`.

    Every image counts once, whatever the batch size: the last batch is filled up with the first images, masked. No
    image is twice in a batch, where a term that compares images would take it for two: of a split that is smaller than
    `settings.batch_size`, a batch is the whole split. A term of a whole batch is thus of as many images in every batch,
    and its mean is over the images that each batch is for.
    An objective with a schedule is taken at its end, so that the bounds of different epochs compare.
    """
    num_images = len(data.images)
    batch_size = min(settings.batch_size, num_images)
    num_batches = -(-num_images // batch_size)

    def batch_sums(number):
        position = number * batch_size + jnp.arange(batch_size)
        index = jnp.mod(position, num_images)
        labels = None if data.labels is None else data.labels[index]
        batch = Batch(to_unit_interval(data.images[index]), labels, index, num_images)
        _, bound, metrics = objective.apply(jax.random.fold_in(key, number), params, model, batch, hyperparameters, END)
        counted = position < num_images
        return {name: jnp.where(counted, value, 0).sum() for name, value in {"bound": bound, **metrics}.items()}

    sums = lax.map(batch_sums, jnp.arange(num_batches))
    return {name: value.sum() / num_images for name, value in sums.items()}


def refit(root: Key[Array, ""], state: TrainState, data: Split, *, model: Model, settings: Settings) -> TrainState:
    """`state` with what `model.refit` re-estimates at its optimum over `data`, as evaluated; as it is if there is none.

    The noise is a function of (seed, step). The average of the weights is what is evaluated, and gets the values too.
    """
    refitted = model.refit
    if refitted is None:
        return state
    num_images, batch_size = len(data.images), settings.batch_size
    params = state.evaluated_params

    def batch_sum(number):
        position = number * batch_size + jnp.arange(batch_size)
        index = jnp.minimum(position, num_images - 1)
        batch = Batch(to_unit_interval(data.images[index]), None if data.labels is None else data.labels[index], index)
        values = refitted.statistic(stream(root, Stream.SCALE, state.step, number), params, batch)
        return jnp.where(position < num_images, values, 0).sum()

    mean = lax.map(batch_sum, jnp.arange(-(-num_images // batch_size))).sum() / num_images
    average = None if state.average is None else refitted.apply(state.average, mean)
    return state._replace(params=refitted.apply(state.params, mean), average=average)
