"""Objectives that are a bound on log-weights (bounds.py) and an estimator of its gradient (estimators.py).

Nats, per example. Shapes: K samples, M groups of them, B batch.
"""

from __future__ import annotations

from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float

from vae.models.model import Batch, Model, Weighted, score_samples, sum_layers
from vae.objectives.bounds import iwae
from vae.objectives.estimators import Samples, doubly_reparameterized, reparameterized
from vae.objectives.objective import Objective, ObjectiveError, no_parameters, num_drawn, values_for
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
    """Reweighted wake-sleep (Bornschein & Bengio 2015); reports IWAE.

    With constant normalised weights w̃, and no gradient through the samples, θ climbs Σ_k w̃_k log p(x, z_k), which is
    IWAE's gradient. What φ climbs is `rws_phase`: wake_q, Σ_k w̃_k log q(z_k|x), which brings q towards the posterior in
    KL(p(z|x) ‖ q(z|x)); sleep_q, log q(z|x) of x and z that the model draws, one pair for each example of the batch;
    both, the mean of the two. With the estimator dreg, the wake phase of q goes through the samples.

    Raises ObjectiveError if there is no sleep phase, or if nothing is left for dreg to do.
    """
    phase, doubly = settings.rws_phase, settings.estimator == "dreg"
    wake_share = {"wake_q": 1.0, "sleep_q": 0.0, "both": 0.5}[phase]
    if phase != "wake_q" and settings.scale == "optimal":
        raise ObjectiveError(
            f"`rws_phase={phase}` draws images of p(x|z), whose σ is not known in training with `scale=optimal`; use "
            "another scale, or `rws_phase=wake_q`"
        )
    if phase == "sleep_q" and doubly:
        raise ObjectiveError(
            "the estimator dreg is of the wake phase of q, which `rws_phase=sleep_q` does not have; use reparameterized"
        )

    def apply(key, params, model: Model, batch, hyperparameters, step):
        del hyperparameters, step
        key_wake, key_sleep = jax.random.split(key) if wake_share < 1 else (key, None)
        samples = draw(key_wake, model.posterior(params, batch), settings)
        surrogate, weighted = (wake_doubly if doubly else wake)(params, model, batch, samples, wake_share)
        if wake_share < 1:
            surrogate = surrogate + (1 - wake_share) * sleep(key_sleep, params, model, batch).mean()
        return surrogate, iwae(weighted.log_w), metrics(weighted)

    return Objective(no_parameters, apply)


def wake(params, model: Model, batch: Batch, samples: Samples, of_q: float):
    """(surrogate [], Weighted): Σ_k w̃_k (log p(x, z_k) + `of_q` · log q(z_k|x)), with w̃_k and z_k held."""
    z = lax.stop_gradient(samples.z)
    weighted = score_samples(params, model, batch, z, samples.q.log_prob(z))
    normalized = lax.stop_gradient(jax.nn.softmax(weighted.log_w, axis=0))
    log_joint = weighted.log_p_x_given_z + weighted.log_p_z
    return (normalized * (log_joint + of_q * weighted.log_q_z_given_x)).sum(0).mean(), weighted


def wake_doubly(params, model: Model, batch: Batch, samples: Samples, of_q: float):
    """(surrogate [], Weighted): the same gradient in the mean, q's through samples (Tucker et al. 2018, RWS-DReG).

    It is Σ_k (w̃_k − w̃_k²) ∂log w_k/∂z_k ∂z_k/∂φ.
    """

    def weights(log_w):
        normalized = jax.nn.softmax(log_w, axis=0)
        return normalized, of_q * normalized * (1 - normalized)

    return doubly_reparameterized(params, model, batch, samples, weights)


def sleep(key, params, model: Model, batch: Batch) -> Float[Array, "B"]:
    """log q(z|x) where the model draws z and x, with the labels of the batch; spends `key`. It trains q alone."""
    key_z, key_x = jax.random.split(key)
    held = lax.stop_gradient(params)
    drawn, _ = model.prior(held, batch.y).sample_and_log_prob(key_z, len(batch.x))
    z = jax.tree.map(lambda layer: layer.swapaxes(0, 1), drawn)
    q = model.posterior(params, batch._replace(x=model.likelihood(held, z, batch.y).sample(key_x)[0]))
    assert q.log_prob is not None  # as `objectives.build` has checked
    return sum_layers(q.log_prob(z))[0]


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
