"""A VAE as a NamedTuple of pure functions. Shapes: K samples, B batch, H W C image, D latent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vae import networks
from vae.likelihoods import LIKELIHOODS
from vae.posteriors import diagonal_normal, standard_normal
from vae.settings import Settings


class Batch(NamedTuple):
    """Images in [0, 1], and, where there are any, their labels and their positions in a data set of `dataset_size`."""

    x: Float[Array, "B H W C"]
    y: Int[Array, "B"] | None = None
    index: Int[Array, "B"] | None = None
    dataset_size: int | Int[Array, ""] | None = None


class Model(NamedTuple):
    """Pure functions of `params`, a dict with the subtrees `encoder`, `decoder` and `prior`.

    init(key, batch) -> params; the mean of `batch.x` sets the decoder's output bias, so pass the training set's
        mean image (as a batch of one) or a large batch. Spends `key`.
    posterior(params, batch) -> q(z|x), with B examples (see posteriors.py).
    prior(params, y=None) -> p(z), of the same interface, with B = 1 where it does not depend on y.
    likelihood(params, z, y=None) -> p(x|z); `log_prob(x)` sums over an image, `sample(key)`, `mean`.
        z is [..., B, D], and x is broadcast by the caller.
    likelihood_in_training: what p(x|z) is while it is trained, where that differs; None where it does not.
    """

    init: Callable[..., Any]
    posterior: Callable[..., Any]
    prior: Callable[..., Any]
    likelihood: Callable[..., Any]
    likelihood_in_training: Callable[..., Any] | None = None

    @property
    def in_training(self) -> Model:
        """The model that a training step sees."""
        return self if self.likelihood_in_training is None else self._replace(likelihood=self.likelihood_in_training)


def build(settings: Settings) -> Model:
    """The model that `settings` describe."""
    encoder_class, decoder_class = networks.NETWORKS[settings.network]
    likelihood_family = LIKELIHOODS[settings.likelihood](settings)
    encoder = encoder_class(settings, 2 * settings.latent_dim)
    decoder = decoder_class(settings, likelihood_family.outputs_per_channel)

    def init(key, batch):
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": encoder.init(key_encoder, batch.x)["params"],
            "decoder": {
                "network": decoder.init(key_decoder, jnp.zeros((1, settings.latent_dim)))["params"],
                "output": likelihood_family.init(batch.x.mean(0)),
            },
            "prior": {},
        }

    def posterior(params, batch):
        outputs: Any = encoder.apply({"params": params["encoder"]}, batch.x)
        return diagonal_normal(outputs)

    def prior(params, y=None):
        del params, y
        return standard_normal(settings.latent_dim)

    def decoded(distribution):
        def likelihood(params, z, y=None):
            del y
            raw: Any = decoder.apply({"params": params["decoder"]["network"]}, z)
            return distribution(params["decoder"]["output"], raw)

        return likelihood

    in_training = likelihood_family.in_training
    return Model(
        init,
        posterior,
        prior,
        likelihood=decoded(likelihood_family.distribution),
        likelihood_in_training=None if in_training is None else decoded(in_training),
    )


class Weighted(NamedTuple):
    """K samples of q(z|x) per example, scored. Log densities in nats, [K, B]; one leaf per stochastic layer in z."""

    z: Any
    log_p_x_given_z: Float[Array, "K B"]
    log_p_z: Float[Array, "K B"]
    log_q_z_given_x: Float[Array, "K B"]
    log_q_over_p: Any  # log q − log p of each stochastic layer, one [K, B] for each

    @property
    def log_w(self) -> Float[Array, "K B"]:
        """log p(x|z) + log p(z) − log q(z|x)."""
        return self.log_p_x_given_z + self.log_p_z - self.log_q_z_given_x


def sum_layers(per_layer: Any) -> Float[Array, "..."]:
    """One array for all stochastic layers together, from a pytree with one of that shape per layer."""
    return jax.tree.reduce(jnp.add, per_layer)


def weigh(key, params, model: Model, q, batch: Batch, num_samples: int) -> Weighted:
    """Draw `num_samples` z from q(z|x) for each example of `batch` and score them; spends `key`."""
    z, log_q = q.sample_and_log_prob(key, num_samples)
    return score_samples(params, model, batch, z, log_q)


def score_samples(params, model: Model, batch: Batch, z, log_q) -> Weighted:
    """Score samples z, K for each example of `batch`, whose log q(z|x) is known."""
    log_p = model.prior(params, batch.y).log_prob(z)
    return Weighted(
        z=z,
        log_p_x_given_z=model.likelihood(params, z, batch.y).log_prob(batch.x[None]),
        log_p_z=sum_layers(log_p),
        log_q_z_given_x=sum_layers(log_q),
        log_q_over_p=jax.tree.map(jnp.subtract, log_q, log_p),
    )
