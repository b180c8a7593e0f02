"""p(z) = N(0, I), p(x|z) = N(Wz + b, σ²I): everything about it is known in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vae.models.distributions import Independent, Normal
from vae.models.model import Model
from vae.models.normals import DiagonalNormal, standard_normal


class LinearGaussian(NamedTuple):
    weights: np.ndarray  # W, [X, D]
    bias: np.ndarray  # b, [X]
    sigma: float

    @classmethod
    def random(cls, seed: int, num_pixels: int = 6, latent_dim: int = 3, sigma: float = 0.7):
        generator = np.random.default_rng(seed)
        return cls(generator.normal(size=(num_pixels, latent_dim)), generator.normal(size=num_pixels), sigma)

    def sample(self, seed: int, num_examples: int) -> np.ndarray:
        """x of shape [N, X, 1, 1], drawn from the model."""
        generator = np.random.default_rng(seed)
        z = generator.normal(size=(num_examples, self.weights.shape[1]))
        x = z @ self.weights.T + self.bias
        return (x + self.sigma * generator.normal(size=x.shape))[:, :, None, None]

    def log_p(self, x: np.ndarray) -> np.ndarray:
        """log N(x; b, WWᵀ + σ²I) of [N, X, 1, 1], by scipy."""
        covariance = self.weights @ self.weights.T + self.sigma**2 * np.eye(len(self.bias))
        return scipy.stats.multivariate_normal(self.bias, covariance).logpdf(x.reshape(len(x), -1))

    @property
    def posterior_covariance(self) -> np.ndarray:
        """σ²M⁻¹ with M = WᵀW + σ²I."""
        latent_dim = self.weights.shape[1]
        return self.sigma**2 * np.linalg.inv(self.weights.T @ self.weights + self.sigma**2 * np.eye(latent_dim))

    def posterior_mean(self, x):
        """M⁻¹Wᵀ(x − b) of [N, X, 1, 1]."""
        return (x.reshape(len(x), -1) - self.bias) @ (self.weights @ self.posterior_covariance / self.sigma**2)

    @property
    def diagonal_gap(self) -> float:
        """KL of the best diagonal q, with variances 1/(Σ⁻¹)_jj, to the posterior N(·, Σ)."""
        covariance = self.posterior_covariance
        precision = np.linalg.inv(covariance)
        return 0.5 * (np.log(np.diag(precision)).sum() + np.linalg.slogdet(covariance)[1])

    def model(self, posterior: str = "exact") -> Model:
        """As a Model with the exact, non-diagonal posterior, or the best diagonal one."""
        dtype = jnp.zeros(()).dtype
        weights, bias = jnp.asarray(self.weights, dtype), jnp.asarray(self.bias, dtype)
        covariance = self.posterior_covariance

        def encode(params, batch):
            del params
            mean = (batch.x.reshape(len(batch.x), -1) - bias[None]) @ (
                weights @ jnp.asarray(covariance, dtype) / self.sigma**2
            )
            if posterior == "exact":
                scale_tril = jnp.asarray(np.linalg.cholesky(covariance), dtype)
                return FullNormal(mean, jnp.broadcast_to(scale_tril, (len(mean), *scale_tril.shape)))
            variances = 1 / np.diag(np.linalg.inv(covariance))
            log_scale = jnp.asarray(0.5 * np.log(variances), dtype)
            return DiagonalNormal(mean, jnp.broadcast_to(log_scale, mean.shape))

        def likelihood(params, z, y=None):
            del params, y
            loc = z @ weights.T
            loc = loc + jnp.broadcast_to(bias, loc.shape)
            return Independent(Normal(loc[..., None, None], jnp.log(jnp.asarray(self.sigma, dtype))))

        return Model(
            init=lambda key, batch: {},
            posterior=encode,
            prior=lambda params, y=None: standard_normal(self.weights.shape[1]),
            likelihood=likelihood,
        )


class FullNormal(NamedTuple):
    """N(loc, LLᵀ) as a posterior without a closed-form KL."""

    loc: jax.Array  # [B, D]
    scale_tril: jax.Array  # [B, D, D]

    @property
    def mean(self):
        return self.loc

    @property
    def covariance(self):
        return self.scale_tril @ self.scale_tril.mT

    def log_prob_per_dimension(self, z):
        return None

    def sample_and_log_prob(self, key, num_samples):
        noise = jax.random.normal(key, (num_samples, *self.loc.shape), self.loc.dtype)
        z = self.loc[None] + jnp.einsum("bij,kbj->kbi", self.scale_tril, noise)
        return z, self.log_prob(z)

    def log_prob(self, z):
        def one(z, loc, scale_tril):
            return jax.scipy.stats.multivariate_normal.logpdf(z, loc, scale_tril @ scale_tril.T)

        return jax.vmap(lambda z_k: jax.vmap(one)(z_k, self.loc, self.scale_tril))(z)

    def kl_per_dimension(self, prior):
        return None
