"""Objectives that are a bound on log-weights (bounds.py) and an estimator of its gradient (estimators.py).

Nats, per example. Shapes: K samples, M groups of them, B batch.
"""

from __future__ import annotations

from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float

from vae.models.model import Model, Weighted, score_samples
from vae.objectives.bounds import iwae
from vae.objectives.estimators import Samples, reparameterized
from vae.objectives.objective import Objective, no_parameters, num_drawn, values_for
from vae.objectives.table import BOUNDS, ESTIMATORS
from vae.settings import Hyperparameters, Settings


def from_log_weights(settings: Settings) -> Objective:
    """The bound of `settings.objective` with M·K samples and the gradient estimator of `settings`."""
    estimator = estimator_of(settings)

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del step
        bound = on_log_weights(settings.objective, settings, hyperparameters)
        samples = draw(key, model.posterior(params, batch), settings)
        surrogate, weighted = estimator(params, model, batch, samples, bound)
        return surrogate, bound(weighted.log_w), metrics(weighted)

    return Objective(no_parameters, apply)


def piwae(settings: Settings) -> Objective:
    """The decoder maximises IWAE with M·K samples, the encoder MIWAE (Rainforth et al. 2018); reports the former."""
    estimator = estimator_of(settings)

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        samples = draw(key, model.posterior(params, batch), settings)
        # stop_gradient by use, not by name: a prior may share the encoder's weights.
        held_decoder = model._replace(
            prior=lambda params, *args: model.prior(lax.stop_gradient(params), *args),
            likelihood=lambda params, *args: model.likelihood(lax.stop_gradient(params), *args),
        )
        for_encoder = on_log_weights("miwae", settings, Hyperparameters())
        decoders, weighted = reparameterized(params, model, batch, lax.stop_gradient(samples), iwae)
        encoders, _ = estimator(params, held_decoder, batch, samples, for_encoder)
        return decoders + encoders, iwae(weighted.log_w), metrics(weighted)

    return Objective(no_parameters, apply)


def rws(settings: Settings) -> Objective:
    """Reweighted wake-sleep with the wake-phase update of q (Bornschein & Bengio 2015); reports IWAE.

    With constant normalised weights w̃, and without a gradient through the samples: θ climbs Σ_k w̃_k log p(x, z_k),
    which is IWAE's gradient, and φ climbs Σ_k w̃_k log q(z_k|x), which brings q towards the posterior in KL(p(z|x) ‖
    q(z|x)).
    """

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        q = model.posterior(params, batch)
        assert q.log_prob is not None  # as `objectives.build` has checked
        z = lax.stop_gradient(q.sample_and_log_prob(key, settings.num_samples)[0])
        weighted = score_samples(params, model, batch, z, q.log_prob(z))
        normalized = lax.stop_gradient(jax.nn.softmax(weighted.log_w, axis=0))
        log_joint = weighted.log_p_x_given_z + weighted.log_p_z
        surrogate = (normalized * (log_joint + weighted.log_q_z_given_x)).sum(0)
        return surrogate.mean(), iwae(weighted.log_w), metrics(weighted)

    return Objective(no_parameters, apply)


def estimator_of(settings: Settings):
    """The estimator of `settings` with its options filled in, except the number of samples that it is given."""
    row = ESTIMATORS[settings.estimator]
    values = values_for(row, settings, Hyperparameters())
    return partial(row.function, **{name: value for name, value in values.items() if name != row.more_samples})


def draw(key, q, settings: Settings) -> Samples:
    """M·K samples of q, and those that the estimator takes besides; spends `key`.

    The former are the same whatever the estimator: of more samples, random numbers begin with those of fewer.
    """
    drawn = q.sample_and_log_prob(key, num_drawn(settings))
    num_samples = settings.num_groups * settings.num_samples
    if num_drawn(settings) == num_samples:
        return Samples(q, *drawn)
    return Samples(
        q,
        *jax.tree.map(lambda leaf: leaf[:num_samples], drawn),
        auxiliary=jax.tree.map(lambda leaf: leaf[num_samples:], drawn[0]),
    )


def on_log_weights(name: str, settings: Settings, hyperparameters: Hyperparameters):
    """`BOUNDS[name]` as a function of flat log-weights [M·K, B], with its options filled in."""
    bound, values = BOUNDS[name].function, values_for(BOUNDS[name], settings, hyperparameters)
    if not BOUNDS[name].grouped:
        return partial(bound, **values)
    groups = settings.num_groups, settings.num_samples
    return lambda log_w: bound(log_w.reshape(*groups, log_w.shape[-1]), **values)


def metrics(weighted: Weighted) -> dict[str, Float[Array, "B"]]:
    """Reconstruction and KL of each example, means over its samples."""
    return {
        "reconstruction": weighted.log_p_x_given_z.mean(0),
        "kl": (weighted.log_q_z_given_x - weighted.log_p_z).mean(0),
    }
