"""A VAE as a NamedTuple of pure functions. Shapes: K samples, B batch, H W C image, D latent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vae.models import memory
from vae.models.checks import check_images
from vae.models.posteriors import two_layers
from vae.models.priors import two_layers as two_layers_prior
from vae.models.protocols import Batch, CheckImages, Init, LikelihoodOf, PosteriorOf, PriorOf
from vae.models.table import LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS
from vae.options import load
from vae.settings import Settings


class Refit(NamedTuple):
    """What a model re-estimates in closed form from the training set after every epoch, and no gradient trains.

    likelihood_in_training: p(x|z) as a training step sees it, without these parameters.
    statistic(key, params, batch) -> [B], what their optimum depends on, for each image; spends `key`.
    apply(params, mean) -> `params` with the optimum for the mean of the statistic over the training set.
    """

    likelihood_in_training: LikelihoodOf
    statistic: Callable[..., Float[Array, "B"]]
    apply: Callable[[Any, Float[Array, ""]], Any]


class Model(NamedTuple):
    """Pure functions of `params`; protocols.py says what they take and give.

    `refit` is what is set in closed form after every epoch; None if gradients train everything.

    A class-conditional model is p(x|z, y) p(z) with q(z|x, y), given one-hot labels (Kingma et al. 2014, M2; Sohn et
    al. 2015). With y = None no class is marked.
    """

    init: Init
    posterior: PosteriorOf
    prior: PriorOf
    likelihood: LikelihoodOf
    refit: Refit | None = None
    check_images: CheckImages = lambda images: None
    sample_bytes: int = 0  # of one z, decoded and scored; see memory.py

    @property
    def in_training(self) -> Model:
        """The model that a training step sees."""
        return self if self.refit is None else self._replace(likelihood=self.refit.likelihood_in_training)


class ModelError(ValueError):
    """A model that makes no sense; one line for the user."""


def check(settings: Settings) -> None:
    """Raises ModelError if the parts of the model do not go together."""
    posterior, prior = settings.posterior, settings.prior
    if settings.upper_latent_dim and posterior != "diagonal":
        raise ModelError(
            f"two stochastic layers are diagonal normals: posterior {posterior} goes with upper_latent_dim 0 only"
        )
    if settings.upper_latent_dim and prior != "standard":
        raise ModelError(
            f"the prior of two stochastic layers is N(0, I) above and learned below: prior {prior} goes with "
            "upper_latent_dim 0 only"
        )
    if PRIORS[prior].encodes and not can_score(settings):
        raise ModelError(f"a VampPrior scores z under q(z|u), which posterior {posterior} cannot; use another")
    if PRIORS[prior].encodes and settings.num_classes:
        raise ModelError("the pseudo-inputs of a VampPrior have no class; use another prior for a conditional model")
    for part, name, row in (("posterior", posterior, POSTERIORS[posterior]), ("prior", prior, PRIORS[prior])):
        if settings.latent_dim < row.least_latent_dim:
            raise ModelError(
                f"{part} {name} changes one latent dimension given another; it needs a latent_dim of "
                f"{row.least_latent_dim} or more"
            )


def can_score(settings: Settings) -> bool:
    """Whether q.log_prob(z) exists, which every estimator except reparameterized needs."""
    return POSTERIORS[settings.posterior].can_score


def redraws_prior(settings: Settings) -> bool:
    """Whether the prior has parameters with which its samples move, which the estimator gdreg needs."""
    return settings.upper_latent_dim > 0 or PRIORS[settings.prior].redraws


def has_closed_form_kl(settings: Settings) -> bool:
    """Whether KL(q(z|x) ‖ p(z)) is known without samples; computes nothing. Raises ModelError as `build`."""
    model, batch = build(settings), Batch(jnp.zeros((1, *settings.image_shape)))

    def kl(key):
        params = model.init(key, batch)
        return model.posterior(params, batch).kl_per_dimension(model.prior(params))

    return jax.eval_shape(kl, jax.random.key(0)) is not None


@functools.lru_cache(maxsize=64)
def build(settings: Settings) -> Model:
    """The model that `settings` describe; raises ModelError if they make no sense.

    Equal settings have the same model, so that what jax compiled of one is compiled.
    """
    check(settings)
    network = NETWORKS[settings.network]
    likelihood_family = LIKELIHOODS[settings.likelihood].function(settings)
    posterior_family = (two_layers if settings.upper_latent_dim else POSTERIORS[settings.posterior].function)(settings)
    prior_family = (two_layers_prior if settings.upper_latent_dim else PRIORS[settings.prior].function)(settings)
    encoder = network.function(settings, posterior_family.num_outputs)
    decoder = load(network.decoder)(settings, likelihood_family.outputs_per_channel)

    def init(key, batch, spread=1.0):
        key_encoder, key_decoder, key_posterior, key_prior = jax.random.split(key, 4)
        z = jnp.zeros((1, settings.latent_dim + settings.num_classes))
        mean_image = batch.x.mean(0)
        labels = one_hot(batch.y, settings, len(batch.x))
        return {
            "encoder": {**encoder.init(key_encoder, batch.x, labels)["params"], **posterior_family.init(key_posterior)},
            "decoder": {
                "network": decoder.init(key_decoder, z)["params"],
                "output": likelihood_family.init(mean_image, jnp.asarray(spread, mean_image.dtype)),
            },
            "prior": prior_family.init(key_prior, mean_image),
        }

    def posterior(params, batch):
        labels = one_hot(batch.y, settings, len(batch.x))
        outputs: Any = encoder.apply({"params": params["encoder"]}, batch.x, labels)
        return posterior_family.distribution(params["encoder"], outputs)

    def prior(params, y=None):
        del y
        return prior_family.distribution(params["prior"], lambda images: posterior(params, Batch(images)))

    def decoded(distribution):
        def likelihood(params, z, y=None):
            z = jax.tree.leaves(z)[0]
            labels = one_hot(y, settings, z.shape[-2])
            if labels is not None:
                z = jnp.concatenate([z, jnp.broadcast_to(labels, (*z.shape[:-1], labels.shape[-1]))], axis=-1)
            raw: Any = decoder.apply({"params": params["decoder"]["network"]}, z)
            return distribution(params["decoder"]["output"], raw)

        return likelihood

    likelihood, of_output = decoded(likelihood_family.distribution), likelihood_family.refit
    return Model(
        init,
        posterior,
        prior,
        likelihood,
        None if of_output is None else _refit(of_output, posterior, likelihood, decoded(of_output.in_training)),
        check_images=lambda images: check_images(settings, images),
        sample_bytes=memory.bytes_of(settings, 1),
    )


def _refit(of_output: Any, posterior: Callable, likelihood: Callable, likelihood_in_training: Callable) -> Refit:
    """The Refit of a model whose likelihood has the LikelihoodRefit `of_output`."""

    def statistic(key, params, batch):
        z, _ = posterior(params, batch).sample_and_log_prob(key, 1)
        return of_output.statistic(likelihood(params, z, batch.y), batch.x)

    def apply(params, mean):
        decoder = params["decoder"]
        return params | {"decoder": decoder | {"output": decoder["output"] | of_output.solve(mean)}}

    return Refit(likelihood_in_training, statistic, apply)


def one_hot(y: Int[Array, "B"] | None, settings: Settings, size: int) -> Float[Array, "B classes"] | None:
    """Labels as the networks see them; None if they see none, and zeros if `y` is not known."""
    if settings.num_classes == 0:
        return None
    return jnp.zeros((size, settings.num_classes)) if y is None else jax.nn.one_hot(y, settings.num_classes)


class Weighted(NamedTuple):
    """K samples of q(z|x) per example, scored. Log densities in nats, [K, B]; one leaf per stochastic layer in z."""

    z: Any
    log_p_x_given_z: Float[Array, "K B"]
    log_p_z: Float[Array, "K B"]
    log_q_z_given_x: Float[Array, "K B"]
    log_q_over_p: Any  # log q − log p of each stochastic layer, one [K, B] for each
    log_mass: Float[Array, "K B"] | None = None  # log P(x|z) of x as one of the images of values k/255, if asked for

    @property
    def log_w(self) -> Float[Array, "K B"]:
        """log p(x|z) + log p(z) − log q(z|x)."""
        return self.log_p_x_given_z + self.log_p_z - self.log_q_z_given_x

    @property
    def log_w_of_masses(self) -> Float[Array, "K B"] | None:
        """log w of the model whose p(x|z) are these masses."""
        return None if self.log_mass is None else self._replace(log_p_x_given_z=self.log_mass).log_w


def sum_layers(per_layer: Any) -> Float[Array, "..."]:
    """One array for all stochastic layers together, from a pytree with one of that shape per layer."""
    return jax.tree.reduce(jnp.add, per_layer)


def weigh(key, params, model: Model, q, batch: Batch, num_samples: int, masses: bool = False) -> Weighted:
    """Draw `num_samples` z from q(z|x) for each example of `batch` and score them; spends `key`."""
    z, log_q = q.sample_and_log_prob(key, num_samples)
    return score_samples(params, model, batch, z, log_q, masses)


def score_samples(params, model: Model, batch: Batch, z, log_q, masses: bool = False) -> Weighted:
    """Score samples z, K for each example of `batch`, whose log q(z|x) is known; `masses`: x is of values k/255."""
    log_p = model.prior(params, batch.y).log_prob(z)
    p_x_given_z = model.likelihood(params, z, batch.y)
    return Weighted(
        z=z,
        log_p_x_given_z=p_x_given_z.log_prob(batch.x[None]),
        log_p_z=sum_layers(log_p),
        log_q_z_given_x=sum_layers(log_q),
        log_q_over_p=jax.tree.map(jnp.subtract, log_q, log_p),
        log_mass=p_x_given_z.log_mass(batch.x[None]) if masses else None,
    )
