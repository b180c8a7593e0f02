"""FactorVAE: the total correlation of q(z) by a discriminator that is trained beside the model (Kim & Mnih 2018)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from vae.models.model import Model
from vae.models.networks import Discriminator
from vae.objectives.aggregate import one_layer
from vae.objectives.objective import Latents, Objective, Scalar, Terms
from vae.objectives.regularized import encode, logged, penalty, scheduled
from vae.settings import Settings


def factor(latents: Latents, log_ratio: Float[Array, "B"], factor_gamma: Scalar) -> Terms:
    """ELBO − γ·TC with TC = E_q(z) log D(z)/(1 − D(z)) (Kim & Mnih 2018, eqs. 2 and 3); `log_ratio` is its logit."""
    return {"kl": (1.0, latents.kl), "total_correlation": (factor_gamma, log_ratio)}


def with_discriminator(settings: Settings) -> Objective:
    """`factor`, and the discriminator that tells draws of q(z) from draws of Π_j q(z_j), in one surrogate.

    The model sees the discriminator held, and the discriminator the samples held. Draws of the product are the batch's
    samples with each dimension permuted over the batch, where the paper permutes those of a second batch. Each of the
    two has an optimiser of its own (training/step.py).
    """
    discriminator = Discriminator(settings.discriminator_sizes)

    def init(key, model):
        del model
        variables: Any = discriminator.init(key, jnp.zeros((1, settings.latent_dim)))
        return variables["params"]

    def apply(key, params, model: Model, batch, hyperparameters, step):
        key_z, key_permute = jax.random.split(key)
        latents, reconstruction = encode(key_z, params, model, batch, step, settings.num_samples)
        z = one_layer(latents.z)

        def logits(z, weights) -> Float[Array, "K B"]:
            return discriminator.apply({"params": weights}, z)  # pyright: ignore[reportReturnType]

        log_ratio = logits(z, lax.stop_gradient(params["objective"])).mean(0)
        terms = scheduled(factor(latents, log_ratio, hyperparameters.factor_gamma), settings, hyperparameters, step)
        bound = reconstruction - penalty(terms)
        held = lax.stop_gradient(z)
        joint, product = (logits(z, params["objective"]) for z in (held, permute_dimensions(key_permute, held)))
        log_loss = jax.nn.softplus(-joint) + jax.nn.softplus(product)
        return bound.mean() - 0.5 * log_loss.mean(), bound, logged(latents, reconstruction, terms)

    return Objective(init, apply)


def permute_dimensions(key: Key[Array, ""], z: Float[Array, "K B D"]) -> Float[Array, "K B D"]:
    """z with every dimension permuted over the batch by itself (Kim & Mnih 2018, algorithm 1); spends `key`."""
    return jax.random.permutation(key, z, axis=1, independent=True)
