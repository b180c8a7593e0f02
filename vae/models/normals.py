"""Normal distributions of z, from which posteriors and priors are made. Shapes: K samples, B batch, D latent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Key

from vae.models.distributions import Normal, bounded, normal_kl_divergence
from vae.models.intervals import LOG_2PI
from vae.models.products import EXACT


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
        """KL(q ‖ prior) of each dimension in nats; None if there is no closed form."""
        if not isinstance(prior, DiagonalNormal):
            return None
        return normal_kl_divergence(Normal(*self), Normal(*prior))


class FullNormal(NamedTuple):
    """N(loc, LLᵀ) with L = diag(exp(log_scale))·`unit`, `unit` lower triangular with ones on its diagonal.

    Nothing but the strict lower triangle of `unit` is read: any numbers elsewhere are the same distribution.
    """

    loc: Float[Array, "B D"]
    log_scale: Float[Array, "B D"]
    unit: Float[Array, "B D D"]

    @property
    def mean(self) -> Float[Array, "B D"]:
        return self.loc

    @property
    def scale_tril(self) -> Float[Array, "B D D"]:
        unit = jnp.tril(self.unit, -1) + jnp.eye(self.unit.shape[-1], dtype=self.unit.dtype)[None]
        return jnp.exp(self.log_scale)[:, :, None] * unit

    @property
    def covariance(self) -> Float[Array, "B D D"]:
        return jnp.matmul(self.scale_tril, self.scale_tril.mT, precision=EXACT)

    def sample_and_log_prob(
        self, key: Key[Array, ""], num_samples: int
    ) -> tuple[Float[Array, "K B D"], Float[Array, "K B"]]:
        """Reparameterised samples z = loc + Lε and log q(z) in nats; spends `key`."""
        noise = jax.random.normal(key, (num_samples, *self.loc.shape), self.loc.dtype)
        z = self.loc[None] + jnp.einsum("bij,kbj->kbi", self.scale_tril, noise, precision=EXACT)
        return z, self._log_prob_of_noise(noise)

    def log_prob(self, z: Float[Array, "K #B D"]) -> Float[Array, "K _"]:
        standardized = (z - self.loc[None]) * jnp.exp(-self.log_scale)[None]
        columns = solve_triangular(self.unit, jnp.moveaxis(standardized, 0, -1), lower=True, unit_diagonal=True)
        return self._log_prob_of_noise(jnp.moveaxis(columns, -1, 0))

    def _log_prob_of_noise(self, noise):
        return (-0.5 * (noise**2 + LOG_2PI) - self.log_scale[None]).sum(-1)

    def log_prob_per_dimension(self, z) -> None:
        """None: the dimensions depend on each other."""
        del z

    def kl_per_dimension(self, prior) -> Float[Array, "B D"] | None:
        """The terms of the chain rule, which add up to KL(q ‖ prior), in nats; None without a closed form.

        Of dimension j, the mean over q(z_<j) of KL(q(z_j|z_<j) ‖ p(z_j)): it depends on the order of the dimensions.
        """
        if not isinstance(prior, DiagonalNormal):
            return None
        alone = normal_kl_divergence(Normal(self.loc, self.log_scale), Normal(*prior))
        from_others = (jnp.tril(self.scale_tril, -1) ** 2).sum(-1)
        return alone + 0.5 * from_others * jnp.exp(-2 * prior.log_scale)


def normal(outputs: Float[Array, "*K B N"]) -> Normal:
    """From a network's N = 2D outputs: the means, then unbounded log-scales."""
    loc, raw_log_scale = jnp.split(outputs, 2, axis=-1)
    return Normal(loc, bounded(raw_log_scale))


def standard_normal(latent_dim: int) -> DiagonalNormal:
    """The prior N(0, I), with B = 1."""
    return DiagonalNormal(jnp.zeros((1, latent_dim)), jnp.zeros((1, latent_dim)))


def diagonal_normal(outputs: Float[Array, "B N"]) -> DiagonalNormal:
    """The posterior from the encoder's N = 2D outputs: the means, then unbounded log-scales."""
    return DiagonalNormal(*normal(outputs))
