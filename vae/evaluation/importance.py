"""The evaluation, the same for every run: importance-weighted log-likelihood, ELBO and KL of each example.

summary.py makes means over examples of it. The device computes log-weights, the host their statistics in float64.
Shapes: N examples, K samples, D latent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from vae import untrusted
from vae.datasets.images import to_unit_interval
from vae.evaluation.weights import (
    effective_sample_size,
    grouped_log_likelihood,
    log_mean_exp,
    pareto_smoothed,
)
from vae.models import memory
from vae.models.model import Batch, Model, Weighted, score_samples, weigh
from vae.streams import Stream, stream

SAMPLES_PER_KEY = 100  # a block of samples that one key draws
SAMPLES_PER_TILE = 1000  # samples that are decoded at once, always of one example; fewer if they are large
ROUND_TRIPS = 10  # samples of each example that go through the inverse of a flow and back
BYTES_OF_A_WEIGHT = 80  # of one sample: four float32, and their statistics in float64


class Weights(NamedTuple):
    """What the device computes for each example. Nats."""

    log_w: Any  # [N, K]
    log_p_x_given_z: Any  # [N, K]
    log_q_over_p: Any  # log q − log p of each stochastic layer, one [N, K] for each
    posterior_means: Any  # of each stochastic layer, [N, 2, D_l]: two independent estimates of E[z|x]
    kl_per_dimension: Any  # [N, D], or None if there is no closed form
    log_w_of_masses: Any = None  # [N, K], of the model of values k/255; None if x or p(x|z) is not of them
    inverse_error: Any = None  # of "posterior" and "prior", if they have an inverse: [N], see Flow.inverse_error


def weigh_example(root, params, image, y, index, *, model: Model, num_samples: int) -> Weights:
    """`num_samples` log-weights of one example [H, W, C], uint8 or in [0, 1], at position `index` of its data set.

    Every product has the same shape whatever else is evaluated, and block j of the samples is drawn with
    fold_in(fold_in(evaluate, index), j). So the weights of an example are bit-identical in any batch.
    """
    batch = Batch(to_unit_interval(image)[None], None if y is None else y[None], index[None])
    q, prior = model.posterior(params, batch), model.prior(params, batch.y)
    block_size = min(num_samples, SAMPLES_PER_KEY)
    num_blocks = -(-num_samples // block_size)
    at_once = min(SAMPLES_PER_TILE, memory.samples_at_once(model.sample_bytes))
    blocks_per_tile = max(1, min(num_blocks, at_once // SAMPLES_PER_KEY))
    num_tiles = -(-num_blocks // blocks_per_tile)
    exact_means = jax.tree.leaves(q.mean)
    inverses = {name: p for name, p in (("posterior", q), ("prior", prior)) if getattr(p, "inverse_error", None)}

    def sums_of_halves(z, blocks):
        """Of the samples at even and at odd positions of each block, [blocks, 2, D]."""
        position = jnp.arange(block_size)[None]
        counted = blocks[:, None] * block_size + position < num_samples
        z = z[:, 0].reshape(len(blocks), block_size, -1)
        halves = [jnp.where((counted & (position % 2 == half))[..., None], z, 0).sum(1) for half in (0, 1)]
        return jnp.stack(halves, axis=1)

    def weigh_tile(tile):
        blocks = tile * blocks_per_tile + jnp.arange(blocks_per_tile)
        keys = jax.vmap(lambda block: stream(root, Stream.EVALUATE, index, block))(blocks)
        masses = image.dtype == jnp.uint8
        if block_size <= at_once:
            weighted = weigh(keys, params, model, _Blocks(q), batch, block_size, masses)
        else:  # even one block does not fit
            drawn = _Blocks(q).sample_and_log_prob(keys, block_size)
            weighted = jax.lax.map(lambda one: _score_one(params, model, batch, one, masses), drawn, batch_size=at_once)
        scores = weighted.log_w, weighted.log_p_x_given_z, weighted.log_q_over_p, weighted.log_w_of_masses
        sums = [sums_of_halves(z, blocks) for z in jax.tree.leaves(weighted.z)[len(exact_means) :]]
        return jax.tree.map(lambda a: a[:, 0], scores), sums

    scores, sums = lax.map(weigh_tile, jnp.arange(num_tiles))
    counts = jnp.asarray([[(num_samples + 1) // 2], [num_samples // 2]], jnp.float32)
    sampled_means = [a.reshape(-1, *a.shape[2:])[:num_blocks].sum(0) / counts for a in sums]  # NaN of no sample
    log_w, log_p_x_given_z, log_q_over_p, log_w_of_masses = jax.tree.map(lambda a: a.reshape(-1)[:num_samples], scores)
    return Weights(
        log_w=log_w,
        log_p_x_given_z=log_p_x_given_z,
        log_q_over_p=log_q_over_p,
        posterior_means=(*(jnp.repeat(mean, 2, axis=0) for mean in exact_means), *sampled_means),
        kl_per_dimension=_of_example(q.kl_per_dimension(prior)),
        log_w_of_masses=log_w_of_masses,
        inverse_error=_inverse_error(stream(root, Stream.EVALUATE, index, 0), q, inverses, block_size),
    )


def _score_one(params, model: Model, batch: Batch, drawn: Any, masses: bool) -> Weighted:
    """One of the samples that a posterior drew, scored: `Weighted` without its axis K."""
    z, log_q = jax.tree.map(lambda a: a[None], drawn)
    return jax.tree.map(lambda a: a[0], score_samples(params, model, batch, z, log_q, masses))


def _inverse_error(key, q, inverses: dict[str, Any], num_samples: int) -> dict[str, Any]:
    """The mean error of each of `inverses` over the first samples that `key` draws of q."""
    if not inverses:
        return {}
    z = q.sample_and_log_prob(key, num_samples)[0][:ROUND_TRIPS]
    errors = {name: inverse.inverse_error(z) for name, inverse in inverses.items()}
    return {name: error.mean() for name, error in errors.items() if error is not None}


def _of_example(per_dimension):
    """The one row of [1, D_l] of each stochastic layer, end to end; None if there is none."""
    layers = jax.tree.leaves(per_dimension)
    return jnp.concatenate([layer[0] for layer in layers], axis=-1) if layers else None


class _Blocks(NamedTuple):
    """A posterior that draws one block of samples with each of several keys and lays them end to end."""

    q: Any

    def sample_and_log_prob(self, keys, num_samples):
        samples = jax.vmap(lambda key: self.q.sample_and_log_prob(key, num_samples))(keys)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), samples)


def weigh_examples(root, params, images, labels, index, *, model: Model, num_samples: int, num_devices: int = 1):
    """`weigh_example` over [N, …], N a multiple of `num_devices`, one example after the other on each device."""

    def on_one_device(images, labels, index):
        def one(example):
            image, label, position = example
            return weigh_example(root, params, image, label, position, model=model, num_samples=num_samples)

        return lax.map(one, (images, labels, index))

    split = jax.tree.map(lambda a: a.reshape(num_devices, -1, *a.shape[1:]), (images, labels, index))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.vmap(on_one_device)(*split))


class Evaluation(NamedTuple):
    """The evaluation, per example; nats, float64 on the host."""

    log_likelihood: dict[int, np.ndarray]  # by k: log p̂(x) from k samples, [N]; the largest k is the headline
    elbo: np.ndarray  # [N]
    reconstruction: np.ndarray  # [N]
    effective_sample_size: np.ndarray  # [N]
    pareto_k: np.ndarray  # [N], as in weights.Smoothed
    log_likelihood_psis: np.ndarray  # [N], from all samples by smoothed weights, as in weights.Smoothed
    kl_per_layer: np.ndarray  # [N, L], from the samples
    posterior_means: tuple[np.ndarray, ...]  # as in Weights; of one sample, NaN if there is no closed form
    kl_per_dimension: np.ndarray | None  # [N, D]
    log_likelihood_of_masses: np.ndarray | None = None  # [N], as the headline, of the model of the 256 values k/255
    inverse_error: dict[str, np.ndarray] | None = None  # as in Weights


def evaluate(
    root: jax.Array,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    index: np.ndarray | None = None,
    *,
    model: Model,
    num_samples: int = 5000,
    devices: Sequence[Any] | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Evaluate `images` [N, H, W, C] (uint8 or in [0, 1]) at positions `index` of their data set.

    Examples are spread over `devices` (default: the first). `batch_size` examples are in flight at once; it changes
    memory and the steps of progress, never a bit of the result. `on_progress` gets the number of finished examples.
    Raises ValueError if there is no image, LikelihoodError if p(x|z) cannot score them.
    """
    if len(images) == 0:
        raise ValueError("there is no example to evaluate: the split is empty")
    model.check_images(images)
    check_memory(num_samples)
    devices = list(devices or jax.devices()[:1])
    index = np.arange(len(images)) if index is None else np.asarray(index)
    weigh_batch = program(
        weigh_examples, tuple(devices), model=model, num_samples=num_samples, num_devices=len(devices)
    )
    root, params = jax.device_put((root, params), shardings(devices)[1])
    results, done = [], 0
    for batch, count in batches((images, labels, index), batch_size or max(1, 2**18 // num_samples), devices):
        weights = jax.tree.map(np.asarray, weigh_batch(root, params, *batch))
        results.append(statistics(jax.tree.map(lambda a: a[:count], weights)))  # noqa: B023
        done += count
        on_progress(done)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def check_memory(num_samples: int) -> None:
    """Raises TooLarge if not even the log-weights of one image fit into memory."""
    needed, there = num_samples * BYTES_OF_A_WEIGHT, untrusted.physical_memory()
    memory.check(needed, there, f"the evaluation of an image with `num_samples={num_samples}`", "use fewer samples")


def shardings(devices: Sequence[Any]) -> tuple[NamedSharding, NamedSharding]:
    """The two shardings of arrays on `devices`: with the first axis split over them, and complete on each."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
    return NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())


@functools.lru_cache(maxsize=64)
def program(function: Callable, devices: tuple[Any, ...], **static: Any) -> Callable:
    """`function(..., **static)` compiled, once in a process; its outputs are split over `devices`."""
    return jax.jit(partial(function, **static), out_shardings=shardings(devices)[0])


def batches(arrays: Any, batch_size: int, devices: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """Batches of `arrays`, a pytree of [N, …], split over `devices`, each with the number of examples it holds.

    All have the same size; the last one is filled up with its last example.
    """
    split, _ = shardings(devices)
    num_examples = len(jax.tree.leaves(arrays)[0])
    batch_size = -(-min(batch_size, num_examples) // len(devices)) * len(devices)
    for first in range(0, num_examples, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), num_examples - 1)
        yield jax.device_put(jax.tree.map(lambda a: a[rows], arrays), split), min(batch_size, num_examples - first)  # noqa: B023


def statistics(weights: Weights) -> Evaluation:
    """The statistics of the log-weights of each example, in float64."""
    log_w = weights.log_w.astype(np.float64)
    num_samples, smoothed = log_w.shape[1], pareto_smoothed(log_w)
    return Evaluation(
        log_likelihood={k: grouped_log_likelihood(log_w, k) for k in sample_counts(num_samples)},
        elbo=log_w.mean(1),
        reconstruction=weights.log_p_x_given_z.astype(np.float64).mean(1),
        effective_sample_size=effective_sample_size(log_w),
        pareto_k=smoothed.pareto_k,
        log_likelihood_psis=smoothed.log_likelihood,
        kl_per_layer=np.stack([layer.astype(np.float64).mean(1) for layer in jax.tree.leaves(weights.log_q_over_p)], 1),
        posterior_means=weights.posterior_means,
        kl_per_dimension=weights.kl_per_dimension,
        log_likelihood_of_masses=None
        if weights.log_w_of_masses is None
        else log_mean_exp(weights.log_w_of_masses.astype(np.float64)),
        inverse_error=weights.inverse_error,
    )


def sample_counts(num_samples: int) -> list[int]:
    """The k at which the log-likelihood is reported: 100 and 1000 if they divide `num_samples`, and `num_samples`."""
    return [k for k in (100, 1000) if k < num_samples and num_samples % k == 0] + [num_samples]
