"""SUMO: log p(x) without bias, from a random number of importance samples (Luo et al. 2020).

Russian roulette on the series log p(x) = L_1 + Σ_{k≥1} Δ_k, whose terms are the gains Δ_k = L_{k+1} − L_k of the
importance-weighted bound of the first k + 1 samples over that of the first k. Shapes: N examples, R repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae.evaluation import importance
from vae.evaluation.summary import means_and_errors
from vae.models.model import Model
from vae.streams import Stream, stream

CUT, DECAY = 80, 0.9  # α, and what the tail is multiplied by at each k above it (Luo et al. 2020)
REPETITIONS = 100  # estimates of each image, of about six samples each


class Sumo(NamedTuple):
    """Independent estimates of log p(x) of each example; nats, float64 on the host."""

    estimates: np.ndarray  # [N, R]
    num_samples: np.ndarray  # [N, R], K + 1


def survival(k: np.ndarray) -> np.ndarray:
    """P(K ≥ k) of whole k ≥ 1: 1/k below the cut α, 0.9^(k−α)/α from there on (Luo et al. 2020)."""
    return np.where(k < CUT, 1 / k, DECAY ** np.maximum(k - CUT, 0.0) / CUT)


def quantile(u: np.ndarray) -> np.ndarray:
    """The largest k with P(K ≥ k) ≥ u, for u in (0, 1]: of a uniform u it has the distribution of `survival`."""
    tail = CUT + np.floor(np.log(np.minimum(CUT * u, 1)) / math.log(DECAY))
    return np.where(CUT * u > 1, np.floor(1 / u), tail).astype(int)


def sumo(log_w: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """L_1 + Σ_{k ≤ K} Δ_k / P(K ≥ k) of each row of log-weights [R, S], with `terms` K [R] below S.

    The mean over K is log p(x). NaN if the first weight is 0.
    """
    k = np.arange(1, log_w.shape[1])
    bounds = np.logaddexp.accumulate(log_w, axis=1) - np.log(np.arange(1, log_w.shape[1] + 1))
    with np.errstate(invalid="ignore"):
        gains = np.diff(bounds, axis=1) / survival(k)
        return bounds[:, 0] + np.where(k <= terms[:, None], gains, 0).sum(1)


def estimate(
    root: jax.Array,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    index: np.ndarray | None = None,
    *,
    model: Model,
    num_repetitions: int = REPETITIONS,
    devices: Sequence[Any] | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Sumo:
    """`num_repetitions` estimates of each image, each of samples of its own.

    K is a function of (root, position of the example), and the samples of (root, position, block), laid end to end: as
    many for each image as the one needs that needs most. `on_progress` gets the number of finished images. Raises
    LikelihoodError if p(x|z) cannot score them.
    """
    model.check_images(images)
    devices = list(devices or jax.devices()[:1])
    index = np.arange(len(images)) if index is None else np.asarray(index)
    root = stream(root, Stream.SUMO)
    keys = jax.vmap(lambda position: stream(root, Stream.SUMO, position))(jnp.asarray(index))
    bits = np.asarray(jax.vmap(lambda key: jax.random.bits(key, (2, num_repetitions)))(keys), np.float64)
    terms = quantile((bits[:, 0] + (bits[:, 1] + 1) / 2**32) / 2**32)
    needed = int((terms + 1).sum(1).max())
    num_samples = importance.SAMPLES_PER_TILE * -(-needed // importance.SAMPLES_PER_TILE)
    weigh = importance.program(
        importance.weigh_examples, tuple(devices), model=model, num_samples=num_samples, num_devices=len(devices)
    )
    root, params = jax.device_put((root, params), importance.shardings(devices)[1])
    estimates: list[np.ndarray] = []
    at_once = max(1, 2**18 // num_samples)
    for batch, count in importance.batches((images, labels, index), at_once, devices):
        log_w = np.asarray(weigh(root, params, *batch).log_w, np.float64)[:count]
        first = len(estimates)
        estimates += [of_weights(row, terms[first + number]) for number, row in enumerate(log_w)]
        on_progress(len(estimates))
    return Sumo(np.stack(estimates), terms + 1)


def of_weights(log_w: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """`sumo` of each of R estimates, the first of which takes the first K_1 + 1 of the log-weights [S], and so on."""
    first = np.cumsum(terms + 1) - (terms + 1)
    position = first[:, None] + np.arange(terms.max() + 1)
    return sumo(log_w[np.minimum(position, len(log_w) - 1)], terms)


def summarize(found: Sumo, importance_sampling: np.ndarray) -> dict[str, Any]:
    """Means as evaluation.json holds them; `importance_sampling` [N] is log p̂ of the same images by the evaluation.

    `variance` is that of one estimate of an image, mean over images, in squared nats, and `repetitions_se` the standard
    error of `log_likelihood` that it causes; `_se` are over images, and have it in them. Nats per image.

    Above the cut, E Δ_k² falls as 1/k² and P(K ≥ k) much faster. So large gains are counted rarely and then with a
    large weight: the true variance is infinite, and what is measured is that of no more than `most_samples` samples.
    """
    of_images = found.estimates.mean(1)
    values = {
        "log_likelihood": of_images,
        "importance_sampling": importance_sampling,
        "difference": of_images - importance_sampling,
    }
    num_examples, num_repetitions = found.estimates.shape
    with np.errstate(invalid="ignore"):
        variance = float(found.estimates.var(1, ddof=1).mean())
    return {
        "num_examples": num_examples,
        "num_repetitions": num_repetitions,
        "mean_samples": float(found.num_samples.mean()),
        "most_samples": int(found.num_samples.max()),
        **means_and_errors(values),
        "variance": variance,
        "repetitions_se": math.sqrt(variance / (num_examples * num_repetitions)),
    }
