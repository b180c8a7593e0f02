"""Regularisers of the aggregate posterior q(z) = E_x q(z|x): they compare the posteriors of a batch with each other.

A term that is one number of a batch is spread evenly over it. Nats, except squared covariances and MMD. One stochastic
layer. Shapes: K samples, B batch, D latent; N images in the data set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from vae.models.products import EXACT
from vae.objectives.objective import Latents, ObjectiveError, Scalar, Terms

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def beta_tcvae(
    latents: Latents, mi_weight: Scalar, tc_weight: Scalar, dimension_weight: Scalar, aggregate_estimator: str
) -> Terms:
    """E log p(x|z) − α·MI − β·TC − γ·Σ_j KL(q(z_j) ‖ p(z_j)), means over samples (Chen et al. 2018, eq. 4).

    MI = log q(z|x)/q(z), TC = log q(z)/Π_j q(z_j), the last one log Π_j q(z_j)/p(z): they add up to log q(z|x)/p(z)
    whatever the estimate of q(z), so with unit weights this is the ELBO. Needs K·B² densities.

    The last one, `dimension_wise_kl`, has the mean Σ_j KL(q(z_j) ‖ p(z_j)) if p(z) = Π_j p(z_j), as N(0, I) does.
    Under another prior (mixture, vamp, flow) it is E_q(z) log Π_j q(z_j)/p(z), no sum of KLs, and can be negative.
    """
    z = one_layer(latents.z)
    log_q_per_dimension = jax.vmap(lambda z: pairwise_log_q(latents.q, z))(z)  # [K, B, B, D]
    log_weights = log_weights_of(aggregate_estimator, z.shape[1], latents.dataset_size)[None]
    log_q_z = logsumexp(log_weights + log_q_per_dimension.sum(-1), axis=-1)
    log_product = logsumexp(log_weights[..., None] + log_q_per_dimension, axis=-2).sum(-1)
    return {
        "mutual_information": (mi_weight, (latents.log_q_z_given_x - log_q_z).mean(0)),
        "total_correlation": (tc_weight, (log_q_z - log_product).mean(0)),
        "dimension_wise_kl": (dimension_weight, (log_product - latents.log_p_z).mean(0)),
    }


def pairwise_log_q(q, z: Float[Array, "B D"]) -> Float[Array, "B B D"]:
    """log q(z_i|x_j) of each dimension, at [i, j]; raises ObjectiveError if q has no density of a dimension."""
    log_q = q.log_prob_per_dimension(z[:, None])
    if log_q is None:
        raise ObjectiveError("beta_tcvae needs the density of each dimension of q(z|x); use `posterior=diagonal`")
    return log_q


def log_weights_of(estimator: str, batch_size: int, dataset_size) -> Float[Array, "B B"]:
    """log W of the estimates q(z_i) ≈ Σ_j W_ij q(z_i|x_j) from a batch of B of N images.

    stratified   W_ii = 1/N and W_ij = (N − 1)/(N·(B − 1)): unbiased for q(z_i), as z_i came from x_i (Chen et al. 2018,
                 appendix C.2)
    weighted     W_ij = 1/(N·B): biased low by about log N (Chen et al. 2018, eq. 5)
    """
    n = jnp.asarray(dataset_size, jnp.zeros(()).dtype)
    if estimator == "weighted":
        return jnp.broadcast_to(-jnp.log(n * batch_size), (batch_size, batch_size))
    others = jnp.log(n - 1) - jnp.log(n) - jnp.log(max(batch_size - 1, 1))
    return jnp.where(jnp.eye(batch_size, dtype=bool), -jnp.log(n), others)


def dip_i(latents: Latents, dip_off_diagonal: Scalar, dip_diagonal: Scalar) -> Terms:
    """ELBO − λ_od Σ_{i≠j} C_ij² − λ_d Σ_i (C_ii − 1)² with C = Cov_x(E[z|x]) (DIP-VAE-I; Kumar et al. 2018, eq. 6)."""
    return dip(latents, covariance(means(latents)), dip_off_diagonal, dip_diagonal)


def dip_ii(latents: Latents, dip_off_diagonal: Scalar, dip_diagonal: Scalar) -> Terms:
    """The same with C = E_x Cov(z|x) + Cov_x(E[z|x]), the covariance of q(z) (DIP-VAE-II; Kumar et al. 2018, eq. 7)."""
    mean = means(latents)
    if (within := latents.q.covariance) is None:
        raise ObjectiveError("dip_ii needs the covariance of q(z|x), which this posterior has not; use dip_i")
    total = within.mean(0) + covariance(mean)
    return dip(latents, total, dip_off_diagonal, dip_diagonal)


def means(latents: Latents) -> Float[Array, "B D"]:
    """E[z|x]; raises ObjectiveError if the posterior has no mean in closed form."""
    one_layer(latents.z)
    if latents.q.mean is None:
        raise ObjectiveError("DIP-VAE needs the mean of q(z|x), which this posterior has not; use `posterior=diagonal`")
    return latents.q.mean


def covariance(mean: Float[Array, "B D"]) -> Float[Array, "D D"]:
    """Over the batch, with 1/B."""
    centred = mean - mean.mean(0, keepdims=True)
    return jnp.matmul(centred.T, centred, precision=EXACT) / len(mean)


def dip(latents: Latents, covariance: Float[Array, "D D"], off_diagonal: Scalar, diagonal: Scalar) -> Terms:
    """The KL, and how far a covariance is from the identity: off its diagonal, and on it."""
    variances = jnp.diag(covariance)
    return {
        "kl": (1.0, latents.kl),
        "covariance_off_diagonal": (off_diagonal, spread(latents, (covariance**2).sum() - (variances**2).sum())),
        "covariance_diagonal": (diagonal, spread(latents, ((variances - 1) ** 2).sum())),
    }


def spread(latents: Latents, value: Float[Array, ""]) -> Float[Array, "B"]:
    """One number of the batch, for each of its images."""
    return jnp.broadcast_to(value, latents.log_p_z.shape[1:])


def info(
    latents: Latents,
    info_alpha: Scalar,
    info_lambda: Scalar,
    mmd_kernel: str,
    mmd_scale: Scalar,
    *,
    key: Key[Array, ""],
) -> Terms:
    """E log p(x|z) − (1 − α)·KL − (α + λ − 1)·MMD²(q(z), p(z)) (InfoVAE; Zhao et al. 2019, eq. 6).

    α is how much mutual information of x and z is worth: from 0, as in the ELBO, to 1, which leaves no KL and λ·MMD²,
    the MMD-VAE of Zhao et al. and the Wasserstein autoencoder of Tolstikhin et al. (2018). Spends `key`.
    """
    z = one_layer(latents.z)
    num_samples, batch_size = z.shape[:2]
    prior_z, _ = latents.prior.sample_and_log_prob(key, num_samples * batch_size)
    # Of a single image, which a new run is refused, all pairs would be left out: its draws pass for those of q(z).
    image = jnp.tile(jnp.arange(batch_size), num_samples) if batch_size > 1 else None
    mmd = mmd_squared(z.reshape(-1, z.shape[-1]), one_layer(prior_z)[:, 0], mmd_kernel, mmd_scale, image)
    return {"kl": (1 - info_alpha, latents.kl), "mmd": (info_alpha + info_lambda - 1, spread(latents, mmd))}


def mmd_squared(
    a: Float[Array, "N D"],
    b: Float[Array, "N D"],
    kernel: str,
    scale: Scalar,
    image: Int[Array, "N"] | None = None,
) -> Float[Array, ""]:
    """The unbiased estimate of MMD² between two samples of equal size (Gretton et al. 2012, eq. 3).

    `image` says from which image's posterior each row of `a` was drawn (None: each from another's). Two draws of one
    posterior are not two draws of q(z): only pairs of different images count, which leaves the estimate unbiased.

    With C = 2·D·scale², the mean squared distance between two draws of N(0, scale²·I) (Tolstikhin et al. 2018):
    rbf exp(−d²/C), imq C/(C + d²), imq_sum Σ_s sC/(sC + d²) over s of IMQ_SCALES (their code).
    """
    num_samples, latent_dim = a.shape
    c = 2 * latent_dim * jnp.asarray(scale, a.dtype) ** 2
    itself = jnp.eye(num_samples, dtype=bool)
    same_image = itself if image is None else image[:, None] == image[None]

    def kernel_of(squares):
        if kernel == "rbf":
            return jnp.exp(-squares / c)
        if kernel == "imq_sum":
            return jnp.stack([s * c / (s * c + squares) for s in IMQ_SCALES]).sum(0)
        return c / (c + squares)

    def mean_kernel(a, b, left_out):
        squares = (a**2).sum(-1)[:, None] + (b**2).sum(-1)[None] - 2 * jnp.matmul(a, b.T, precision=EXACT)
        squares = jnp.maximum(squares, 0)
        return jnp.where(left_out, 0, kernel_of(squares)).sum() / (num_samples**2 - left_out.sum())

    none = jnp.zeros_like(itself)
    return mean_kernel(a, a, same_image) + mean_kernel(b, b, itself) - 2 * mean_kernel(a, b, none)


def one_layer(z) -> Float[Array, "K B D"]:
    """z, of a model with one stochastic layer; raises ObjectiveError for others."""
    if not isinstance(z, jax.Array):
        raise ObjectiveError("this objective is defined for one stochastic layer; use `upper_latent_dim=0`")
    return z
