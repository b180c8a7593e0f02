"""What p(z) can be, of the same interface as q(z|x), with B = 1. Shapes: K samples, P components, D latent.

To add one: the pytree, a function of the settings as `standard` below, and a row in `PRIORS` of table.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from vae.models.distributions import bounded
from vae.models.flows import Flow, coupling_steps
from vae.models.networks import MLP
from vae.models.normals import DiagonalNormal, normal, standard_normal
from vae.settings import Settings


class MixturePrior(NamedTuple):
    """1/P Σ_p q_p(z), the q_p a posterior whose batch axis counts the components."""

    components: Any

    def log_prob(self, z: Float[Array, "K B D"]) -> Float[Array, "K B"]:
        log_q = self.components.log_prob(z.reshape(-1, 1, z.shape[-1]))
        return (logsumexp(log_q, axis=-1) - jnp.log(log_q.shape[-1])).reshape(z.shape[:-1])

    def inverse_error(self, z: Float[Array, "K B D"]) -> Float[Array, "K B"] | None:
        """How wrong `log_prob` is by rounding in the inverses of flows, in nats; None of components that have none."""
        of_component = getattr(self.components, "inverse_error", None)
        if of_component is None:
            return None
        flat = z.reshape(-1, 1, z.shape[-1])
        share = jax.nn.softmax(self.components.log_prob(flat), axis=-1)
        return jnp.where(share == 0, 0, share * of_component(flat)).sum(-1).reshape(z.shape[:-1])

    def sample_and_log_prob(
        self, key: Key[Array, ""], num_samples: int
    ) -> tuple[Float[Array, "K 1 D"], Float[Array, "K 1"]]:
        """Samples, each of a component drawn for it, and log p(z) in nats; spends `key`."""
        key_choice, key_sample = jax.random.split(key)
        one_of_each = jax.eval_shape(lambda: self.components.sample_and_log_prob(jax.random.key(0), 1)[1])
        chosen = jax.random.randint(key_choice, (num_samples,), 0, one_of_each.size)

        def sample(choice_and_key):
            choice, key = choice_and_key
            return self.components.sample_and_log_prob(key, 1)[0][:, choice]

        # One after the other: all components for all samples at once would be P times the memory.
        z = lax.map(sample, (chosen, jax.random.split(key_sample, num_samples)))
        return z, self.log_prob(z)


class TwoLayersPrior(NamedTuple):
    """p(z2) p(z1|z2), the two-layer generative model of Burda et al. (2016); z is the pair (z1, z2).

    `lower(z2)` gives means and unbounded log-scales of z1, [K, B, 2·D1].
    """

    upper: DiagonalNormal
    lower: Callable[..., Any]

    def sample_and_log_prob(self, key: Key[Array, ""], num_samples: int):
        """((z1, z2), (log p(z1|z2), log p(z2))), z2 drawn first; [K, 1, D] and [K, 1] in nats; spends `key`."""
        key_upper, key_lower = jax.random.split(key)
        z2, _ = self.upper.sample_and_log_prob(key_upper, num_samples)
        z = normal(self.lower(z2)).sample(key_lower), z2
        return z, self.log_prob(z)

    def log_prob(self, z):
        z1, z2 = z
        return normal(self.lower(z2)).log_prob(z1).sum(-1), self.upper.log_prob(z2)

    def redrawn(self, z):
        """(z1, z2) as functions of the parameters, as if this prior had drawn them: of the noise that gives them."""
        z1, z2 = z
        given = normal(self.lower(z2))
        return given.loc + jnp.exp(given.log_scale) * lax.stop_gradient(
            (z1 - given.loc) * jnp.exp(-given.log_scale)
        ), z2


class Prior(NamedTuple):
    """How parameters become p(z).

    init(key, mean_image) -> params["prior"]; distribution(params, encode) -> p, where encode(images) is q(z|images).
    """

    init: Callable[..., dict[str, Any]]
    distribution: Callable[..., Any]


def standard(settings: Settings) -> Prior:
    """N(0, I)."""

    def init(key, mean_image):
        del key, mean_image
        return {}

    return Prior(init, lambda params, encode: standard_normal(settings.latent_dim))


def mixture(settings: Settings) -> Prior:
    """Normals of equal weight with learned means and scales, which begin near N(0, I) together."""
    shape = settings.prior_components, settings.latent_dim

    def init(key, mean_image):
        del mean_image
        half = jnp.sqrt(0.5)
        return {"loc": half * jax.random.normal(key, shape), "log_scale": jnp.full(shape, jnp.log(half))}

    def distribution(params, encode):
        del encode
        return MixturePrior(DiagonalNormal(params["loc"], bounded(params["log_scale"])))

    return Prior(init, distribution)


def vamp(settings: Settings) -> Prior:
    """VampPrior: 1/P Σ_p q(z|u_p) with learned pseudo-inputs u = sigmoid(logits) (Tomczak & Welling 2018).

    They begin around the mean image: its logits, clipped as in likelihoods.py, with standard normal noise.
    """

    def init(key, mean_image):
        mean = jnp.clip(mean_image, 0.001, 0.999)
        noise = jax.random.normal(key, (settings.prior_components, *mean.shape))
        return {"pseudo_inputs": (jnp.log(mean) - jnp.log1p(-mean))[None] + noise}

    return Prior(init, lambda params, encode: MixturePrior(encode(jax.nn.sigmoid(params["pseudo_inputs"]))))


def flow(settings: Settings) -> Prior:
    """Affine couplings of N(0, I) (Dinh et al. 2017)."""
    steps = coupling_steps(settings, with_context=False)

    def init(key, mean_image):
        del mean_image
        return steps.init(key)

    return Prior(init, lambda params, encode: Flow(standard_normal(settings.latent_dim), steps.build(params, None)))


def two_layers(settings: Settings) -> Prior:
    """p(z2) = N(0, I), and `upper_hidden_sizes` reversed lead from z2 to p(z1|z2)."""
    network = MLP(settings, settings.upper_hidden_sizes[::-1], 2 * settings.latent_dim)

    def init(key, mean_image):
        del mean_image
        return {"lower": network.init(key, jnp.zeros((1, settings.upper_latent_dim)))["params"]}

    def distribution(params, encode):
        del encode
        lower = Partial(network.apply, {"params": params["lower"]})
        return TwoLayersPrior(standard_normal(settings.upper_latent_dim), lower)

    return Prior(init, distribution)
