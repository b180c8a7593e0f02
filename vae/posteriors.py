"""What q(z|x) can be: pytrees that can be sampled and scored. Shapes: K samples, B batch, D latent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae.distributions import Normal, bounded, normal_kl_divergence


class DiagonalNormal(NamedTuple):
    """N(loc, diag(exp(log_scale))²) with one stochastic layer; also the standard-normal prior, with B = 1."""

    loc: Float[Array, "B D"]
    log_scale: Float[Array, "B D"]

    @property
    def mean(self) -> Float[Array, "B D"]:
        return self.loc

    @property
    def covariance(self) -> Float[Array, "B D D"]:
        return jax.vmap(jnp.diag)(jnp.exp(2 * self.log_scale))

    def sample_and_log_prob(
        self, key: Key[Array, ""], num_samples: int
    ) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        """Reparameterised samples z = loc + scale·ε and log q(z) in nats; spends `key`."""
        noise = jax.random.normal(key, (num_samples, *self.loc.shape), self.loc.dtype)
        z = self.loc[None] + jnp.exp(self.log_scale)[None] * noise
        return z, self.log_prob(z)

    def log_prob_per_dimension(self, z: Float[Array, "K #B D"]) -> Float[Array, "K _ D"]:
        return Normal(self.loc[None], self.log_scale[None]).log_prob(z)

    def log_prob(self, z: Float[Array, "K #B D"]) -> Float[Array, "K _"]:
        return self.log_prob_per_dimension(z).sum(-1)

    def kl_per_dimension(self, prior) -> Float[Array, "B D"] | None:
        """KL(q ‖ prior) of each dimension in nats; None where there is no closed form."""
        if not isinstance(prior, DiagonalNormal):
            return None
        return normal_kl_divergence(Normal(*self), Normal(*prior))


def standard_normal(latent_dim: int) -> DiagonalNormal:
    """The prior N(0, I), with B = 1."""
    return DiagonalNormal(jnp.zeros((1, latent_dim)), jnp.zeros((1, latent_dim)))


def diagonal_normal(outputs: Float[Array, "B N"]) -> DiagonalNormal:
    """The posterior from the encoder's N = 2D outputs: the means, then unbounded log-scales."""
    loc, raw_log_scale = jnp.split(outputs, 2, axis=-1)
    return DiagonalNormal(loc, bounded(raw_log_scale))
