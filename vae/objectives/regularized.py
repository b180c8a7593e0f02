"""Objectives of the form reconstruction − Σ_i weight_i · term_i, each as its equation. Nats, per example.

A schedule may multiply weights: `scheduled`, the same for all of them.

A regulariser is a function `name(latents, **options) -> {term: (weight, [B])}`, whose options are those of its row in
`REGULARIZERS` of regularizer_table.py (and `key`, if it draws something); its unweighted terms are what is logged.
Those that compare the posteriors of a batch with each other are in aggregate.py. Shapes: K samples, B batch, D latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae.models.model import Model, sum_layers
from vae.objectives.objective import Latents, Objective, ObjectiveError, Scalar, Terms, no_parameters, values_for
from vae.objectives.regularizer_table import REGULARIZERS
from vae.settings import Hyperparameters, Settings


def elbo(latents: Latents) -> Terms:
    """ELBO with the analytic KL: 1/K Σ_k log p(x|z_k) − KL(q(z|x) ‖ p(z)) (Kingma & Welling 2014, eq. 7)."""
    return {"kl": (1.0, sum_layers(jax.tree.map(lambda kl: kl.sum(-1), latents.kl_per_dimension)))}


def beta(latents: Latents, beta: Scalar) -> Terms:
    """E log p(x|z) − β·KL (β-VAE; Higgins et al. 2017, eq. 4)."""
    return {"kl": (beta, latents.kl)}


def warmup(
    latents: Latents, warmup_shape: str, warmup_steps: Scalar, warmup_cycles: Scalar, warmup_balance: bool
) -> Terms:
    """E log p(x|z) − w(t)·KL, with w(t) rising to 1 in `warmup_steps`; see `warmup_weight`.

    With `warmup_balance`, E log p(x|z) − w(t)·Σ_l γ_l·KL_l over stochastic layers while w(t) < 1; see `balance`.
    """
    weight = warmup_weight(warmup_shape, latents.step, warmup_steps, warmup_cycles)
    if not warmup_balance:
        return {"kl": (weight, latents.kl)}
    layers, sizes = jax.tree.leaves(latents.kl_of_layers), [z.shape[-1] for z in jax.tree.leaves(latents.z)]
    gamma = jnp.where(weight < 1, balance(layers, sizes), 1.0)
    return {f"kl_{number + 1}": (weight * gamma[number], kl) for number, kl in enumerate(layers)}


def balance(kl_of_layers: Sequence[Float[Array, "B"]], sizes: Sequence[int]) -> Float[Array, "L"]:
    """γ_l ∝ (mean_b |KL_lb| + 0.01)/D_l of L layers of D_l dimensions, with the mean 1, and without a gradient.

    Layers that carry little are weighed less, so that they come to carry more (NVAE; Vahdat & Kautz 2020, appendix A,
    where "proportional to the size" is a misprint, as the authors say; the 0.01 is of their code).
    """
    carried = jnp.stack([(jnp.abs(kl).mean() + 0.01) / size for kl, size in zip(kl_of_layers, sizes, strict=True)])
    return lax.stop_gradient(carried / carried.mean())


def warmup_weight(shape: str, step, steps: Scalar, cycles: Scalar) -> Float[Array, ""]:
    """w(t) with T = `steps`: how the KL is weighed at step t.

    linear     min(1, t/T) (Sønderby et al. 2016)
    sigmoid    σ(10·(t/T − ½)), so it goes from 0.007 to 0.993 in T and on to 1 (Bowman et al. 2016)
    cyclical   `cycles` times min(1, 2·(t mod T/cycles) / (T/cycles)), then 1 (Fu et al. 2019, R = ½)

    With T = 0 it is 1 from step 0 on.
    """
    t = progress(step, steps)
    if shape == "sigmoid":
        weight = jax.nn.sigmoid(10 * (t - 0.5))
    elif shape == "cyclical":
        weight = jnp.where(t < 1, jnp.minimum(2 * (t * cycles % 1), 1.0), 1.0)
    else:
        weight = jnp.minimum(t, 1.0)
    return jnp.where(jnp.asarray(steps) > 0, weight, 1.0)


def progress(step, steps: Scalar) -> Float[Array, ""]:
    """step / steps, how far a schedule is; over (1 or more) from step 0 on if it lasts no steps."""
    steps = jnp.asarray(steps, jnp.float32)
    return jnp.where(steps > 0, step / jnp.maximum(steps, 1.0), 1.0)


def capacity(
    latents: Latents, capacity_weight: Scalar, max_capacity: Scalar, capacity_steps: Scalar, capacity_of: str
) -> Terms:
    """E log p(x|z) − γ·|KL − C(t)|, with C(t) rising linearly to C in `capacity_steps` (Burgess et al. 2018, eq. 8).

    C(t) is C from step 0 on with 0 steps. The KL is that of each example, as the equation has it, or, with
    `capacity_of` = "batch", the mean over the batch, as most public code has it: then single examples may have more or
    less, and the gap, |mean_b KL_b − C|, is at most the mean of the examples' gaps. It is spread evenly over the batch.
    """
    target = max_capacity * jnp.minimum(progress(latents.step, capacity_steps), 1.0)
    kl = latents.kl
    if capacity_of == "batch":
        kl = jnp.broadcast_to(kl.mean(), kl.shape)
    return {"capacity_gap": (capacity_weight, jnp.abs(kl - target))}


def free_bits(latents: Latents, free_nats: Scalar, free_bits_group_size: int) -> Terms:
    """E log p(x|z) − Σ_j max(λ, mean_b KL_jb), over groups j of dimensions (Kingma et al. 2016, eq. 15).

    Groups are `free_bits_group_size` adjacent dimensions, 1: each of them, 0: a whole stochastic layer. All groups of
    all layers have the same λ, as in the paper. The mean is over the batch, so the term is spread evenly over it. If
    there is no closed form, as of two stochastic layers, the KL of a whole layer is a mean over samples.
    Raises ObjectiveError if groups do not fill the dimensions, or if smaller ones have no KL in closed form.
    """
    if not free_bits_group_size and latents.q.kl_per_dimension(latents.prior) is None:
        layers = jax.tree.map(lambda kl: jnp.maximum(kl.mean(), free_nats), latents.kl_of_layers)
        return {"free_bits_kl": (1.0, jnp.broadcast_to(sum_layers(layers), latents.log_p_z.shape[1:]))}

    def of_layer(kl):
        latent_dim = kl.shape[-1]
        size = free_bits_group_size or latent_dim
        if latent_dim % size:
            raise ObjectiveError(f"free_bits_group_size {size} does not divide the {latent_dim} latent dimensions")
        groups = kl.mean(0).reshape(-1, size).sum(-1)
        return jnp.broadcast_to(jnp.maximum(groups, free_nats).sum(), kl.shape[:1])

    return {"free_bits_kl": (1.0, sum_layers(jax.tree.map(of_layer, latents.kl_per_dimension)))}


def regularized(settings: Settings) -> Objective:
    """reconstruction − Σ_i weight_i · term_i, differentiated through reparameterised samples."""
    row = REGULARIZERS[settings.objective]

    def apply(key, params, model: Model, batch, hyperparameters, step):
        key_z, key_terms = jax.random.split(key) if row.draws else (key, None)
        latents, reconstruction = encode(key_z, params, model, batch, step, settings.num_samples)
        drawn_with = {"key": key_terms} if row.draws else {}
        terms: Terms = row.function(latents, **values_for(row, settings, hyperparameters), **drawn_with)
        terms = scheduled(terms, settings, hyperparameters, step)
        bound = reconstruction - penalty(terms)
        return bound.mean(), bound, logged(latents, reconstruction, terms)

    return Objective(no_parameters, apply)


def scheduled(terms: Terms, settings: Settings, hyperparameters: Hyperparameters, step) -> Terms:
    """`terms` at `step`: the weights of those that the objective's row names are times w(t), as `warmup_weight`.

    At the end of the schedule w is 1. What the row does not name keeps its weight, as the KL of `factor`: without the
    named terms it is the ELBO, or the reconstruction if they are the KL.
    """
    if settings.weight_schedule == "constant":
        return terms
    h, named = hyperparameters, REGULARIZERS[settings.objective].scheduled
    now = warmup_weight(settings.weight_schedule, step, h.weight_steps, h.weight_cycles)
    return {name: (now * weight if name in named else weight, term) for name, (weight, term) in terms.items()}


def encode(key, params, model: Model, batch, step, num_samples: int) -> tuple[Latents, Float[Array, "B"]]:
    """The latents of a batch and the mean of log p(x|z) over their samples; spends `key`."""
    q, prior = model.posterior(params, batch), model.prior(params, batch.y)
    z, log_q = q.sample_and_log_prob(key, num_samples)
    reconstruction = model.likelihood(params, z, batch.y).log_prob(batch.x[None]).mean(0)
    dataset_size = len(batch.x) if batch.dataset_size is None else batch.dataset_size
    log_p = prior.log_prob(z)
    log_ratio = jax.tree.map(jnp.subtract, log_q, log_p)
    return Latents(q, prior, z, sum_layers(log_q), sum_layers(log_p), log_ratio, step, dataset_size), reconstruction


def penalty(terms: Terms) -> Float[Array, "B"]:
    """Σ_i weight_i · term_i."""
    return sum_layers([weight * term for weight, term in terms.values()])


def logged(latents: Latents, reconstruction: Float[Array, "B"], terms: Terms) -> dict[str, Float[Array, "B"]]:
    """Reconstruction, KL and the unweighted terms."""
    return {"reconstruction": reconstruction, "kl": latents.kl, **{name: term for name, (_, term) in terms.items()}}
