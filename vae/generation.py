"""What a trained model makes: samples, reconstructions, paths through latent space. Arrays in, numpy images out.

Images are means of p(x|z), float32 in [0, 1]. Shapes: N images, D latent, T steps, G grid. One stochastic layer.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae.images import to_unit_interval
from vae.model import Batch, Model

ROWS_AT_ONCE = 1000


def decode(params: Any, z: np.ndarray | jax.Array, model: Model) -> np.ndarray:
    """The mean of p(x|z), clipped to [0, 1]: z [..., D] -> [..., H, W, C]."""
    rows = np.asarray(z, np.float32).reshape(-1, z.shape[-1])
    mean = jax.jit(lambda z: model.likelihood(params, z).mean)
    parts = [np.asarray(mean(rows[first : first + ROWS_AT_ONCE])) for first in range(0, len(rows), ROWS_AT_ONCE)]
    images = np.clip(np.concatenate(parts), 0, 1)
    return images.reshape(*z.shape[:-1], *images.shape[1:])


def encode(params: Any, images: np.ndarray, model: Model) -> Any:
    """q(z|x) of stored images [N, H, W, C]."""
    posterior = jax.jit(lambda images: model.posterior(params, Batch(to_unit_interval(images))))
    parts = [posterior(images[first : first + ROWS_AT_ONCE]) for first in range(0, len(images), ROWS_AT_ONCE)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def samples(key: jax.Array, params: Any, model: Model, num_samples: int) -> np.ndarray:
    """Decoded draws from the prior: [N, H, W, C]. Spends `key`."""
    z, _ = model.prior(params).sample_and_log_prob(key, num_samples)
    return decode(params, np.asarray(z)[:, 0], model)


def reconstructions(key: jax.Array, params: Any, images: np.ndarray, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Of each of [N, H, W, C]: p(x|z)'s mean at the mean of q(z|x), and a draw of x at a draw of z; spends `key`."""
    key_z, key_x = jax.random.split(key)
    q = encode(params, images, model)
    z, _ = q.sample_and_log_prob(key_z, 1)
    drawn = model.likelihood(params, z[0]).sample(key_x)
    return decode(params, q.mean, model), np.clip(np.asarray(drawn), 0, 1)


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


def most_active(posterior_mean: np.ndarray, count: int) -> np.ndarray:
    """The `count` dimensions of [N, D] whose posterior mean varies most over the data, in descending order."""
    return np.argsort(-posterior_mean.var(0), kind="stable")[:count]
