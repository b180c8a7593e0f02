"""Gradient estimators, orthogonal to the bounds. Shapes: S samples (K, or M·K), B batch.

Each takes samples z of the posterior q with their log q(z|x), and a bound F, and gives a surrogate whose derivative
estimates the gradient of the mean over b of F(log_w[:, b]); none changes the value that is reported. With c = ∇F and
H = ∇²F of each example:

    reparameterized  F(log_w), through the samples and through q's density (Kingma & Welling 2014)
    stl              the same, but q's density has no gradient: sticking the landing (Roeder et al. 2017); needs only c
    dreg             decoder and prior weighted by c_k, the path through the samples by c_k − H_kk, as stl. For
                     F = IWAE these are w̃_k and w̃_k² (Tucker et al. 2018); it holds for every smooth F
    gdreg            the same, and the prior's parameters too through samples, as if it had drawn z (Bauer & Mnih 2021)
    score            REINFORCE (Williams 1992), nothing through the samples, with one of the control variates of
                     `BASELINES`, of which VIMCO's (Mnih & Rezende 2016) is the default; unbiased with each, for every F
    ovis             the same with nearly the best control variate, by S more samples (Liévin et al. 2020); unbiased
    covariance       the same by the covariance of log w and ∂log q, for tvo alone (Masrani et al. 2019); biased
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae.models.model import Batch, Model, score_samples, sum_layers
from vae.models.protocols import Layers

Bound = Callable[..., Float[Array, "B"]]  # of log-weights [S, B]


class Samples(NamedTuple):
    """Samples z of the posterior q of a batch, each with log q(z|x); of two stochastic layers, one for each.

    `auxiliary` are more samples z, of which the reported bound knows nothing, for the estimator that takes some.
    """

    q: Any  # an ApproximatePosterior that can score z, except with `reparameterized`
    z: Layers[Float[Array, "S B D"]]
    log_q: Layers[Float[Array, "S B"]]
    auxiliary: Layers[Float[Array, "A B D"]] | None = None


def reparameterized(params, model: Model, batch: Batch, samples: Samples, bound: Bound):
    """(surrogate [], Weighted): the bound itself."""
    weighted = score_samples(params, model, batch, samples.z, samples.log_q)
    return bound(weighted.log_w).mean(), weighted


def stl(params, model: Model, batch: Batch, samples: Samples, bound: Bound):
    """(surrogate [], Weighted): the bound without a gradient of q's density (Roeder et al. 2017).

    What is left out, −Σ_k c_k ∂log q(z_k|x)/∂φ, has the mean 0 if the c_k are constants: for a bound that is linear in
    log w (`elbo_mc`; `miwae`, and the encoder of `piwae`, with K = 1; `ciwae` with β = 1; `renyi` with α = 1; the left
    sum of `tvo` with one partition; one sample). For all others, `vr_max` among them, it is biased, unless q is the
    posterior.
    """
    q, z, *_ = samples
    weighted = score_samples(params, model, batch, z, lax.stop_gradient(q).log_prob(z))
    return bound(weighted.log_w).mean(), weighted


def dreg(params, model: Model, batch: Batch, samples: Samples, bound: Bound):
    """(surrogate [], Weighted): doubly reparameterised, unbiased for every smooth bound.

    Of q with several stochastic layers, or with flows, this is the estimator that Bauer & Mnih (2021) generalise to
    hierarchical posteriors: all parameters of q are held where it is scored, while what z_1 does to log q(z_2|z_1) is
    differentiated; and a sample of a layer moves with those it is drawn from. The prior's parameters have the plain
    gradient, Σ_k c_k ∂log p(z_k); that paper's gradient of them is `gdreg`.
    """
    return doubly_reparameterized(params, model, batch, samples, doubly_weights(bound))


def gdreg(params, model: Model, batch: Batch, samples: Samples, bound: Bound):
    """(surrogate [], Weighted): `dreg`, and the prior's parameters through its samples (Bauer & Mnih 2021).

    Σ_k c_k ∂log p(z_k) has the mean of Σ_k (c_k ∂log p(x|z_k)/∂z_k − d_k ∂log w_k/∂z_k) ∂z_k, where z_k moves as if the
    prior had drawn it from the noise that gives it, and c_k, d_k are the weights of `dreg`. Unbiased as that is. It can
    have less noise than the plain gradient of the prior, or more: more where the posterior is much narrower than p(z).
    """
    held = model._replace(prior=lambda params, *args: model.prior(lax.stop_gradient(params), *args))
    surrogate, weighted = dreg(params, held, batch, samples, bound)
    c, d = doubly_weights(bound)(lax.stop_gradient(weighted.log_w))
    fixed, z, q = lax.stop_gradient((params, samples.z, samples.q))

    def pulled(z):
        scored = score_samples(fixed, model, batch, z, q.log_prob(z))
        return (c * scored.log_p_x_given_z - d * scored.log_w).sum()

    moved: Any = model.prior(params, batch.y)
    products = jax.tree.map(lambda pull, z: (pull * z).sum((0, -1)).mean(), jax.grad(pulled)(z), moved.redrawn(z))
    return surrogate + sum_layers(products), weighted


def doubly_weights(bound: Bound) -> Callable[..., Any]:
    """c = ∇F and d = c − diagonal of ∇²F, as a function of log-weights."""

    def weights(log_w):
        c = jax.grad(lambda log_w: bound(log_w).sum())(log_w)
        return c, c - diagonal_of_hessian(bound, log_w)

    return weights


def doubly_reparameterized(params, model: Model, batch: Batch, samples: Samples, weights: Callable[..., Any]):
    """(surrogate [], Weighted): Σ_k c_k ∂log w_k in p(x|z) and p(z), and Σ_k d_k ∂log w_k/∂z_k ∂z_k, where q is held.

    `weights(log_w)` gives c and d.
    """
    q, z, *_ = samples
    held = lax.stop_gradient(q)

    def log_weights(z):
        return score_samples(params, model, batch, z, held.log_prob(z))

    # The same products as below, so the compiler computes them once.
    log_w = lax.stop_gradient(log_weights(z).log_w)
    c, d = weights(log_w)
    ratio = jnp.where(c == 0, 0, d / jnp.where(c == 0, 1, c))
    weighted = log_weights(jax.tree.map(lambda leaf: scale_gradient(leaf, ratio), z))
    return (c * weighted.log_w).sum(0).mean(), weighted


def score(params, model: Model, batch: Batch, samples: Samples, bound: Bound, baseline: str):
    """(surrogate [], Weighted): Σ_k (F − b_k) ∂log q(z_k|x) + ∂F, for K ≥ 2.

    `baseline` says what b_k is: none, 0; leave_one_out, the bound of the other samples, which for `elbo_mc` is that of
    Kool et al. (2019); vimco, the bound with log w_k replaced by the mean of the others (Mnih & Rezende 2016). Unbiased
    with each of them, as none depends on z_k.
    """

    def control(log_w):
        num_samples = len(log_w)
        if baseline == "none":
            return jnp.zeros_like(log_w)
        if baseline == "leave_one_out":
            others = (jnp.arange(num_samples)[:, None] + jnp.arange(1, num_samples)[None]) % num_samples
            return jax.vmap(lambda rows: bound(log_w[rows]))(others)
        mean = (log_w.sum(0)[None] - log_w) / (num_samples - 1)
        itself = jnp.eye(num_samples, dtype=bool)[:, :, None]
        return jax.vmap(bound)(jnp.where(itself, mean[:, None], log_w[None]))

    return with_control(params, model, batch, samples, bound, control)


def ovis(params, model: Model, batch: Batch, samples: Samples, bound: Bound):
    """(surrogate [], Weighted): the score-function estimator with OVIS_MC's control variate (Liévin et al. 2020).

    What ∂log q(z_k|x) is multiplied by is d_k = F − ∂F/∂log w_k. Its mean over z_k given the other samples is nearly
    the best control variate, and is estimated by the mean of d_k with each of the auxiliary samples in place of z_k.
    Unbiased, as none of these is z_k. The paper's other form, OVIS_~, needs no more samples, and has a bias.
    """
    z = lax.stop_gradient(samples.auxiliary)
    in_place = lax.stop_gradient(score_samples(params, model, batch, z, samples.q.log_prob(z)).log_w)

    def control(log_w):
        def signal(k, other):
            value, pull = jax.vjp(bound, jnp.where(jnp.arange(len(log_w))[:, None] == k, other[None], log_w))
            return value - pull(jnp.ones_like(value))[0][k]

        return jax.vmap(jax.vmap(signal, (0, None)), (None, 0))(jnp.arange(len(log_w)), in_place).mean(0)

    return with_control(params, model, batch, samples, bound, control)


def with_control(params, model: Model, batch: Batch, samples: Samples, bound: Bound, control: Callable[..., Any]):
    """(surrogate [], Weighted): ∂F + Σ_k (F − control_k) ∂log q(z_k|x), nothing through the samples."""
    q, z = samples.q, lax.stop_gradient(samples.z)
    weighted = score_samples(params, model, batch, z, q.log_prob(z))
    log_w = lax.stop_gradient(weighted.log_w)
    signal = bound(log_w)[None] - control(log_w)
    surrogate = bound(weighted.log_w) + (signal * weighted.log_q_z_given_x).sum(0)
    return surrogate.mean(), weighted


def covariance(params, model: Model, batch: Batch, samples: Samples, bound: Bound):
    """(surrogate [], Weighted): the covariance gradient of a thermodynamic objective (Masrani et al. 2019, eq. 11).

    E_β[∂log w] + Cov_β[∂log π_β, log w], with π_β = p^β q^{1−β}: the derivative of the bound where samples are held and
    their masses are as q's density. It is unbiased for the decoder and the prior. For the encoder it estimates the
    gradient of what the bound tends to with many samples, with a bias of the order 1/K; at β = 0 there is none, by the
    factor K/(K − 1) of a covariance.
    """
    q, z = samples.q, lax.stop_gradient(samples.z)
    weighted = score_samples(params, model, batch, z, q.log_prob(z))
    log_q = weighted.log_q_z_given_x
    log_measure = len(log_q) / (len(log_q) - 1) * (log_q - lax.stop_gradient(log_q))
    return bound(weighted.log_w, log_measure=log_measure).mean(), weighted


def diagonal_of_hessian(bound: Bound, log_w: Float[Array, "S B"]) -> Float[Array, "S B"]:
    """∂²F/∂log w_k² of each example, by forward over reverse mode."""
    gradient = jax.grad(lambda log_w: bound(log_w).sum())

    def second_derivative(direction, k):
        tangent = jnp.broadcast_to(direction[:, None], log_w.shape)
        return jax.jvp(gradient, (log_w,), (tangent,))[1][k]

    num_samples = log_w.shape[0]
    return jax.vmap(second_derivative)(jnp.eye(num_samples, dtype=log_w.dtype), jnp.arange(num_samples))


@jax.custom_vjp
def scale_gradient(z: Float[Array, "S B D"], scale: Float[Array, "S B"]) -> Float[Array, "S B D"]:
    """z, with its gradient multiplied by `scale`."""
    del scale
    return z


scale_gradient.defvjp(
    lambda z, scale: (z, scale), lambda scale, gradient: (gradient * scale[..., None], jnp.zeros_like(scale))
)
