"""How much of the ELBO the encoder gives away: a diagonal normal fitted to each image beside what the encoder says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from vae.evaluation import batches, means_and_errors, shardings
from vae.images import to_unit_interval
from vae.model import Batch, Model, score_samples, weigh
from vae.posteriors import DiagonalNormal
from vae.streams import Stream, stream

LEARNING_RATE = 0.02  # of Adam at the first step; it falls to 0 like a cosine
IMAGES_PER_CALL = 32


class Fitted(NamedTuple):
    """ELBO of each image, from the same noise; nats, float64 on the host, [N]."""

    encoder: np.ndarray
    optimized: np.ndarray


def fit(
    root: jax.Array,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    index: np.ndarray | None = None,
    *,
    model: Model,
    num_steps: int = 500,
    num_samples: int = 16,
    num_evaluated: int = 1000,
    devices: Sequence[Any] | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Fitted:
    """Maximise the ELBO of each of `images` over the mean and log-scale of its own q(z) (Cremer et al. 2018).

    From the encoder's q(z|x), or a diagonal normal with the moments of its samples, by `num_steps` of Adam with
    `num_samples` each; both ELBOs are then taken from `num_evaluated` fresh samples. Raises ValueError where
    `unavailable` says why. Noise is a function of (root, position of the example). `on_progress` gets the number of
    finished images.
    """
    if reason := unavailable(model, params, images, labels):
        raise ValueError(f"there is no q(z) to fit: {reason}")
    devices = list(devices or jax.devices()[:1])
    index = np.arange(len(images)) if index is None else np.asarray(index)
    split, whole = shardings(devices)
    root, params = jax.device_put((root, params), whole)
    one = partial(_fit, root, params, model=model, counts=(num_steps, num_samples, num_evaluated))
    fit_batch = jax.jit(jax.vmap(one), out_shardings=split)
    results, done = [], 0
    for (x, y, position), count in batches((images, labels, index), IMAGES_PER_CALL, devices):
        elbos = fit_batch(Batch(to_unit_interval(x), y, position))
        results.append(Fitted(*(np.asarray(values, np.float64)[:count] for values in elbos)))
        done += count
        on_progress(done)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def unavailable(model: Model, params: Any, images: np.ndarray, labels: np.ndarray | None) -> str | None:
    """Why no diagonal normal can take the place of q(z|x); None where it can."""

    def sample(images, labels):
        q = model.posterior(params, Batch(to_unit_interval(images), labels))
        return q.sample_and_log_prob(jax.random.key(0), 1)[0]

    z = jax.eval_shape(sample, images[:1], None if labels is None else labels[:1])
    return "z has several stochastic layers" if len(jax.tree.leaves(z)) > 1 else None


def _fit(root, params, example: Batch, *, model: Model, counts: tuple[int, int, int]):
    """(ELBO of the encoder's q, ELBO of the fitted one) of one example, x [H, W, C]."""
    num_steps, num_samples, num_evaluated = counts
    batch = jax.tree.map(lambda a: a[None], example)
    key_start, key_steps, key_evaluate = jax.random.split(stream(root, Stream.AMORTIZE, example.index), 3)
    encoder = model.posterior(params, batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))

    def loss(q, key):
        z, _ = q.sample_and_log_prob(key, num_samples)
        # The gradient's noise vanishes where q is the posterior (Roeder et al. 2017).
        log_q = lax.stop_gradient(q).log_prob(z)
        return -score_samples(params, model, batch, z, log_q).log_w.mean()

    def step(t, carry):
        q, state = carry
        updates, state = optimizer.update(jax.grad(loss)(q, jax.random.fold_in(key_steps, t)), state)
        return optax.apply_updates(q, updates), state

    start = _diagonal(key_start, encoder)
    optimized, _ = lax.fori_loop(0, num_steps, step, (start, optimizer.init(start)))

    def elbo(key, q):
        return weigh(key, params, model, q, batch, num_evaluated).log_w.mean()

    # The same noise for both on purpose: their difference is known better than either.
    return elbo(key_evaluate, encoder), elbo(jax.random.clone(key_evaluate), optimized)


def _diagonal(key, q) -> DiagonalNormal:
    """q itself, or the diagonal normal with the moments of 1000 samples of it; may spend `key`."""
    if isinstance(q, DiagonalNormal):
        return q
    z, _ = q.sample_and_log_prob(key, 1000)
    return DiagonalNormal(z.mean(0), jnp.log(z.std(0)))


def summarize(fitted: Fitted, log_likelihood: np.ndarray) -> dict[str, Any]:
    """The gaps as evaluation.json holds them, with the estimate of log p(x) [N] of the same images; nats per image.

    amortization_gap = optimized − encoder, approximation_gap = log p̂(x) − optimized, and inference_gap is their sum
    (Cremer et al. 2018); standard errors over images. What log p̂(x) misses of log p(x), the approximation gap misses.
    """
    gaps = {
        "elbo": fitted.encoder,
        "elbo_optimized": fitted.optimized,
        "amortization_gap": fitted.optimized - fitted.encoder,
        "approximation_gap": log_likelihood - fitted.optimized,
        "inference_gap": log_likelihood - fitted.encoder,
    }
    return {"num_examples": len(log_likelihood), **means_and_errors(gaps)}
