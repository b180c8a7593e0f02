"""How much of the ELBO the encoder loses: a separate q(z) is fitted to each image and compared with the encoder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

from vae.datasets.images import to_unit_interval
from vae.evaluation.importance import batches, program, shardings
from vae.evaluation.summary import means_and_errors
from vae.models import memory
from vae.models.flows import Flow, ForwardFlow
from vae.models.model import Batch, Model, score_samples
from vae.streams import Stream, stream

LEARNING_RATE = 0.02  # of Adam at the first step; it falls to 0 like a cosine
NETWORK_LEARNING_RATE = 0.005  # of the weights of networks inside q
IMAGES_PER_CALL = 32
NUMBERS_PER_CALL = 2**24  # of all q that are fitted at once: networks inside q are fitted for each image


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
    """Maximise the ELBO of each of `images` over a separate q(z) of the encoder's family (Cremer et al. 2018).

    The family is every q of the same form. All numbers of q(z|x) are free for each image, also those that images
    share, as in that paper: the weights of networks inside a flow, and those from a lower stochastic layer to an
    upper one. So the cost of sharing them is part of the amortisation gap.

    From the encoder's q(z|x), by `num_steps` of Adam with `num_samples` each; both ELBOs are then taken from
    `num_evaluated` fresh samples. Noise is a function of (root, position of the example). `on_progress` gets the number
    of finished images. Raises LikelihoodError if p(x|z) cannot score them.
    """
    model.check_images(images)
    devices = list(devices or jax.devices()[:1])
    index = np.arange(len(images)) if index is None else np.asarray(index)
    root, params = jax.device_put((root, params), shardings(devices)[1])
    at_once = memory.samples_at_once(memory.with_gradient(model.sample_bytes))
    images_per_call = _images_per_call(params, images, model, at_once // num_samples)
    counts = num_steps, num_samples, num_evaluated, max(1, at_once // images_per_call)
    fit_batch = program(_fit_each, tuple(devices), model=model, counts=counts)
    results, done = [], 0
    for (x, y, position), count in batches((images, labels, index), images_per_call, devices):
        elbos = fit_batch(root, params, Batch(to_unit_interval(x), y, position))
        results.append(Fitted(*(np.asarray(values, np.float64)[:count] for values in elbos)))
        done += count
        on_progress(done)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def _images_per_call(params: Any, images: np.ndarray, model: Model, most: int) -> int:
    """As many images as fit in memory, with all numbers that are fitted for each; not above `most`."""
    of_one = jax.eval_shape(lambda x: model.posterior(params, Batch(to_unit_interval(x))), images[:1])
    fitted = sum(leaf.size for leaf in jax.tree.leaves(of_one))
    return max(1, min(IMAGES_PER_CALL, NUMBERS_PER_CALL // fitted, most))


def _fit_each(root, params, examples: Batch, *, model: Model, counts: tuple[int, int, int, int]):
    """`_fit` of each example, [B] each."""
    return jax.vmap(partial(_fit, root, params, model=model, counts=counts))(examples)


def _fit(root, params, example: Batch, *, model: Model, counts: tuple[int, int, int, int]):
    """(ELBO of the encoder's q, ELBO of the fitted one) of one example, x [H, W, C]."""
    num_steps, num_samples, num_evaluated, at_once = counts
    batch = jax.tree.map(lambda a: a[None], example)
    # Three, of which two are spent: a diagonal q keeps the noise that it always had.
    _, key_steps, key_evaluate = jax.random.split(stream(root, Stream.AMORTIZE, example.index), 3)
    encoder: Any = model.posterior(params, batch)
    optimizer = _adam(num_steps)

    def loss(key, q):
        z, log_q = q.sample_and_log_prob(key, num_samples)
        if not isinstance(q, Flow | ForwardFlow):  # their density of a given z needs an inverse, or does not exist
            # The gradient's noise vanishes if q is the posterior (Roeder et al. 2017).
            log_q = lax.stop_gradient(q).log_prob(z)
        return -score_samples(params, model, batch, z, log_q).log_w.mean()

    def step(t, carry):
        q, state = carry
        updates, state = optimizer.update(jax.grad(loss, argnums=1)(jax.random.fold_in(key_steps, t), q), state, q)
        return optax.apply_updates(q, updates), state

    optimized, _ = lax.fori_loop(0, num_steps, step, (encoder, optimizer.init(encoder)))

    def elbo(key, q):
        z, log_q = q.sample_and_log_prob(key, num_evaluated)
        if num_evaluated <= at_once:
            return score_samples(params, model, batch, z, log_q).log_w.mean()

        def log_w_of(drawn):
            one_z, one_log_q = jax.tree.map(lambda a: a[None], drawn)
            return score_samples(params, model, batch, one_z, one_log_q).log_w[0]

        return lax.map(log_w_of, (z, log_q), batch_size=at_once).mean()

    # The same noise for both: their difference is then known better than either.
    return elbo(key_evaluate, encoder), elbo(jax.random.clone(key_evaluate), optimized)


def _adam(num_steps: int) -> optax.GradientTransformation:
    """Adam over all leaves of a q; slower on the weights of the networks inside it, which are `Partial`s."""

    def kinds(q):
        def kind(part):
            return jax.tree.map(lambda _: "network" if isinstance(part, Partial) else "own", part)

        return jax.tree.map(kind, q, is_leaf=lambda part: isinstance(part, Partial))

    rates = {"own": LEARNING_RATE, "network": NETWORK_LEARNING_RATE}
    return optax.multi_transform(
        {name: optax.adam(optax.cosine_decay_schedule(rate, num_steps)) for name, rate in rates.items()}, kinds
    )


def summarize(fitted: Fitted, log_likelihood: np.ndarray) -> dict[str, Any]:
    """The gaps as evaluation.json holds them, with the estimate of log p(x) [N] of the same images; nats per image.

    amortization_gap = optimized − encoder, approximation_gap = log p̂(x) − optimized, and inference_gap is their sum
    (Cremer et al. 2018); standard errors over images. If log p̂(x) is too low, the approximation gap is too
    small by the same amount.
    """
    gaps = {
        "elbo": fitted.encoder,
        "elbo_optimized": fitted.optimized,
        "amortization_gap": fitted.optimized - fitted.encoder,
        "approximation_gap": log_likelihood - fitted.optimized,
        "inference_gap": log_likelihood - fitted.encoder,
    }
    return {"num_examples": len(log_likelihood), **means_and_errors(gaps)}
