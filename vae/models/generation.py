"""What a trained model makes: samples, reconstructions, paths through latent space. Arrays in, numpy images out.

Images are means of p(x|z), float32 in [0, 1]. Shapes: N images, D latent, T steps, G grid. Of two stochastic layers, z
is the first, which x is made of. Labels are those of a class-conditional model; others ignore them.
"""

from __future__ import annotations

from functools import partial
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.datasets.images import to_unit_interval
from vae.models import memory
from vae.models.model import Batch, Model
from vae.models.normals import DiagonalNormal

MOST_AT_ONCE = 1000  # images
SAMPLES_OF_MEAN = 100


class Codes(NamedTuple):
    """Where q(z|x) puts images: its mean and its log-scale, [N, D], the latter where z is independent normals."""

    mean: Any
    log_scale: Any  # or None


def decode(
    params: Any, z: np.ndarray | jax.Array, model: Model, labels: np.ndarray | np.integer | None = None
) -> np.ndarray:
    """The mean of p(x|z), clipped to [0, 1]: z [..., D] and labels [...], or one for all -> [..., H, W, C]."""
    rows = np.asarray(z, np.float32).reshape(-1, z.shape[-1])
    y = None if labels is None else np.broadcast_to(labels, z.shape[:-1]).reshape(-1)
    parts = [np.asarray(_mean(params, rows[p], None if y is None else y[p], model)) for p in _parts(len(rows), model)]
    images = np.clip(np.concatenate(parts), 0, 1)
    return images.reshape(*z.shape[:-1], *images.shape[1:])


def encode(params: Any, images: np.ndarray, model: Model, labels: np.ndarray | None = None) -> Codes:
    """Where q(z|x) puts stored images [N, H, W, C].

    A mean without a closed form, as a flow's, is that of `SAMPLES_OF_MEAN` draws under a fixed key.
    """
    parts = [
        _codes(params, images[p], None if labels is None else labels[p], model) for p in _parts(len(images), model)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@partial(jax.jit, static_argnames="model")
def _mean(params, z, labels, model: Model):
    return model.likelihood(params, z, labels).mean


@partial(jax.jit, static_argnames="model")
def _codes(params, images, labels, model: Model) -> Codes:
    q = model.posterior(params, Batch(to_unit_interval(images), labels))
    if q.mean is None:
        z, _ = q.sample_and_log_prob(jax.random.key(0), SAMPLES_OF_MEAN)
        return Codes(jax.tree.leaves(z)[0].mean(0), None)
    lowest = getattr(q, "lower", q)
    return Codes(q.mean, lowest.log_scale if isinstance(lowest, DiagonalNormal) else None)


@partial(jax.jit, static_argnames=("model", "num_samples"))
def _from_prior(key, params, labels, model: Model, num_samples: int):
    return model.prior(params, labels).sample_and_log_prob(key, num_samples)[0]


@partial(jax.jit, static_argnames="model")
def _draw(key_z, key_x, params, images, labels, model: Model):
    """A draw of x at a draw of z from q(z|x)."""
    z, _ = model.posterior(params, Batch(to_unit_interval(images), labels)).sample_and_log_prob(key_z, 1)
    return model.likelihood(params, jax.tree.leaves(z)[0][0], labels).sample(key_x)


def _parts(size: int, model: Model) -> list[slice]:
    step = min(MOST_AT_ONCE, memory.samples_at_once(model.sample_bytes))
    return [slice(first, first + step) for first in range(0, size, step)]


def samples(
    key: jax.Array, params: Any, model: Model, num_samples: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """Decoded draws from the prior, of the classes `labels` [N] if given: [N, H, W, C]. Spends `key`."""
    z = _from_prior(key, params, labels, model, num_samples)
    return decode(params, jax.tree.leaves(z)[0][:, 0], model, labels)


def reconstructions(
    key: jax.Array, params: Any, images: np.ndarray, model: Model, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of each of [N, H, W, C]: p(x|z)'s mean at the mean of q(z|x), and a draw of x at a draw of z; spends `key`."""
    key_z, key_x = jax.random.split(key)
    means = decode(params, encode(params, images, model, labels).mean, model, labels)
    return means, np.clip(np.asarray(_draw(key_z, key_x, params, images, labels, model)), 0, 1)


def interpolate(start: np.ndarray, end: np.ndarray, num_steps: int, path: str = "spherical") -> np.ndarray:
    """Points from start to end [D], both included: [T, D], along a straight line or a great circle.

    The spherical path turns at a constant rate while the length changes linearly, so that it stays where a normal
    prior has its mass (White 2016). Between vectors without a direction, or with
    opposite ones, it is the straight line.
    """
    t = np.linspace(0, 1, num_steps)[:, None]
    line = (1 - t) * start + t * end
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    if path == "linear" or min(lengths) < 1e-8:
        return line
    a, b = start / lengths[0], end / lengths[1]
    angle = np.arccos(np.clip(a @ b, -1, 1))
    if np.sin(angle) < 1e-6:
        return line
    direction = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return direction * ((1 - t) * lengths[0] + t * lengths[1])


def traversals(z: np.ndarray, dimensions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`z` [D] with one coordinate at a time set to each of `values` [T]: [len(dimensions), T, D]."""
    points = np.tile(z, (len(dimensions), len(values), 1))
    for row, dimension in enumerate(dimensions):
        points[row, :, dimension] = values
    return points


def quantile_grid(latent_dim: int, dimensions: tuple[int, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid at equal steps of the standard normal's distribution function in two dimensions, the others at zero.

    Returns its values [G] and points [G, G, D], the first axis along dimensions[0].
    """
    values = np.array([NormalDist().inv_cdf(p) for p in np.linspace(0.03, 0.97, size)])
    points = np.zeros((size, size, latent_dim))
    points[..., dimensions[0]] = values[:, None]
    points[..., dimensions[1]] = values[None, :]
    return values, points


def most_active(codes: Codes, count: int) -> np.ndarray:
    """The `count` dimensions that carry most, in descending order: by the KL from N(0, I), mean over the data; if that
    has no closed form, by how much the posterior mean varies."""
    mean = np.asarray(codes.mean, np.float64)
    if codes.log_scale is None:
        carried = mean.var(0)
    else:
        log_scale = np.asarray(codes.log_scale, np.float64)
        carried = (0.5 * (mean**2 + np.exp(2 * log_scale) - 1) - log_scale).mean(0)
    return np.argsort(-carried, kind="stable")[:count]
