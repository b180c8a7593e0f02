"""The KL to the prior, decomposed with the aggregate posterior q(z) = 1/N Σ_n q(z|x_n).

Shapes: N images, S samples of each, D latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from vae.datasets.images import to_unit_interval
from vae.evaluation.importance import batches, program, shardings
from vae.models.model import Batch, Model, sum_layers
from vae.streams import Stream, stream

IMAGES_PER_CALL = 256


class Decomposition(NamedTuple):
    """[N, S]; the means are E_x KL(q(z|x) ‖ p(z)) and its parts. Nats, float64 on the host.

    kl = mutual_information + total_correlation + dimension_wise_kl, sample by sample (Chen et al. 2018, eq. 2). The
    last one is Σ_d KL(q(z_d) ‖ p(z_d)) under a prior that factorises; under a learned one it is no sum of KLs and may
    be negative.
    """

    kl: np.ndarray  # log q(z|x) − log p(z)
    mutual_information: np.ndarray  # log q(z|x) − log q(z), at most log N
    total_correlation: np.ndarray  # log q(z) − Σ_d log q(z_d)
    dimension_wise_kl: np.ndarray  # Σ_d log q(z_d) − log p(z)


def decompose(
    root: jax.Array,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    index: np.ndarray | None = None,
    *,
    model: Model,
    num_samples: int = 4,
    devices: Sequence[Any] | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Decomposition:
    """Score S = `num_samples` samples of each q(z|x_n) under q(z), a mixture of all N (Hoffman & Johnson 2016).

    Raises ValueError if `unavailable` says why, LikelihoodError if p(x|z) cannot score the images. Noise is a
    function of (root, position of the example). It takes N² S D exponentials; `on_progress` gets the number of finished
    images.
    """
    model.check_images(images)
    devices = list(devices or jax.devices()[:1])
    index = np.arange(len(images)) if index is None else np.asarray(index)
    if reason := unavailable(model, params, images, labels):
        raise ValueError(f"this KL cannot be taken apart: {reason}")
    devices = tuple(devices)
    whole = shardings(devices)[1]
    root, params = jax.device_put((root, params), whole)
    encode = program(_encode, devices, model=model)
    parts = [
        jax.tree.map(lambda a: np.asarray(a)[:count], encode(params, *batch))  # noqa: B023
        for batch, count in batches((images, labels), IMAGES_PER_CALL, devices)
    ]
    q = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    score = program(_score, devices, model=model, num_samples=num_samples, num_devices=len(devices))
    components = jax.device_put(q, whole)
    results, done = [], 0
    for batch, count in batches((q, labels, index), IMAGES_PER_CALL, devices):
        densities = score(root, params, components, *batch)
        log_q_given_x, log_q, log_q_factorial, log_p = (np.asarray(a, np.float64)[:count] for a in densities)
        results.append(
            Decomposition(
                kl=log_q_given_x - log_p,
                mutual_information=log_q_given_x - log_q,
                total_correlation=log_q - log_q_factorial,
                dimension_wise_kl=log_q_factorial - log_p,
            )
        )
        done += count
        on_progress(done)
    return jax.tree.map(lambda *rows: np.concatenate(rows), *results)


def unavailable(model: Model, params: Any, images: np.ndarray, labels: np.ndarray | None) -> str | None:
    """The reason why the KL of `model` has no such parts; None if it has them."""

    def parts(images, labels):
        q, p = model.posterior(params, Batch(to_unit_interval(images), labels)), model.prior(params, labels)
        z, _ = q.sample_and_log_prob(jax.random.key(0), 1)
        return q.log_prob_per_dimension(z), p.sample_and_log_prob(jax.random.key(0), 1)[0]

    per_dimension, from_prior = jax.eval_shape(parts, images[:2], None if labels is None else labels[:2])
    if per_dimension is None:
        return "q(z|x) has no density of each dimension"
    if len(images) > 1 and any(leaf.shape[1] > 1 for leaf in jax.tree.leaves(from_prior)):
        return "p(z) depends on the label"
    return None


def _encode(params, images, labels, *, model: Model):
    return model.posterior(params, Batch(to_unit_interval(images), labels))


def _score(root, params, components, q, labels, index, *, model: Model, num_samples: int, num_devices: int):
    """log q(z|x), log q(z), Σ_d log q(z_d) and log p(z) of the samples of each row of q, [B, S] each."""

    def one(example):
        q, label, index = example
        q = jax.tree.map(lambda a: a[None], q)
        z, _ = q.sample_and_log_prob(stream(root, Stream.AGGREGATE, index), num_samples)  # [S, 1, D]
        log_p = sum_layers(model.prior(params, None if label is None else label[None]).log_prob(z))
        log_q, log_q_factorial = lax.map(mixture, z)
        return q.log_prob_per_dimension(z).sum(-1)[:, 0], log_q, log_q_factorial, log_p[:, 0]

    def mixture(z):
        per_dimension = components.log_prob_per_dimension(z[None])[0]  # [N, D]
        log_n = math.log(len(per_dimension))
        return logsumexp(per_dimension.sum(-1)) - log_n, (logsumexp(per_dimension, axis=0) - log_n).sum()

    # No device needs the rows of another one.
    rows = jax.tree.map(lambda a: a.reshape(num_devices, -1, *a.shape[1:]), (q, labels, index))
    scored = jax.vmap(lambda rows: lax.map(one, rows))(rows)
    return jax.tree.map(lambda a: a.reshape(-1, num_samples), scored)


def summarize(decomposition: Decomposition) -> dict[str, Any]:
    """Means as evaluation.json holds them, nats per image, each with its Monte-Carlo standard error.

    The error is that of the samples of z, for these N images; None for S = 1. `log_num_examples` bounds the mutual
    information. The closed-form KL of the evaluation is `kl` without that error.
    """
    num_examples, num_samples = decomposition.kl.shape

    def mean_and_error(values):
        if num_samples == 1:
            return float(values.mean()), None
        return float(values.mean()), math.sqrt(values.var(1, ddof=1).sum() / num_samples) / num_examples

    summary: dict[str, Any] = {
        "num_examples": num_examples,
        "num_samples": num_samples,
        "log_num_examples": math.log(num_examples),
    }
    for name, values in decomposition._asdict().items():
        summary[name], summary[f"{name}_se"] = mean_and_error(values)
    return summary
