"""Every model keeps what bounds and estimators rely on, whatever its parts are."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.marks import soaked
from vae import objectives
from vae.evaluation import importance as evaluation
from vae.models import model as models
from vae.models import protocols
from vae.objectives.table import ESTIMATORS, REFUSED
from vae.settings import Hyperparameters, Settings

TINY = {"hidden_sizes": (), "latent_dim": 3, "num_flows": 1, "flow_hidden_size": 5, "prior_components": 3}
MODELS = {
    name: Settings((2, 2, 1), **(TINY | changes))
    for name, changes in {
        "full": {"posterior": "full"},
        "planar": {"posterior": "planar"},
        "iaf": {"posterior": "iaf"},
        "realnvp": {"posterior": "realnvp"},
        "mixture": {"prior": "mixture"},
        "vamp": {"prior": "vamp"},
        "flow prior": {"prior": "flow"},
        "two layers": {"upper_latent_dim": 2, "upper_hidden_sizes": (5,)},
        "conditional": {"num_classes": 2},
        "conditional with two layers": {
            "num_classes": 2,
            "hidden_sizes": (4,),
            "upper_latent_dim": 2,
            "upper_hidden_sizes": (),
        },
        "full with a flow prior, in bfloat16": {"posterior": "full", "prior": "flow", "precision": "bfloat16"},
    }.items()
}
JOINED = "conditional with two layers", "full with a flow prior, in bfloat16"  # each part is above by itself
BATCH = jax.device_put(
    models.Batch(
        np.random.default_rng(0).integers(0, 2, (3, 2, 2, 1)).astype(np.float32), np.array([0, 1, 1]), np.arange(3)
    )
)


@cache
def initialized(name):
    """The model, and random parameters in the shapes of its own, which takes no program to compile."""
    model, generator = models.build(MODELS[name]), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(1), BATCH)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), leaf.dtype), shapes)
    return model, params


def members(protocol):
    """The names that a Protocol asks for."""
    return {
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False)
        for name in vars(base)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_part_of_a_model_offers_what_its_protocol_says_with_its_shapes(name):
    model, params = initialized(name)
    settings, classes = MODELS[name], BATCH.y if MODELS[name].num_classes else None
    dims = (settings.latent_dim, *([settings.upper_latent_dim] if settings.upper_latent_dim else []))

    def shapes(tree):
        return [leaf.shape for leaf in jax.tree.leaves(tree)]

    @jax.eval_shape
    def _checked():
        q, p = model.posterior(params, BATCH), model.prior(params, classes)
        for part, protocol in ((q, protocols.ApproximatePosterior), (p, protocols.PriorDistribution)):
            assert members(protocol) <= set(dir(part))
            size = 3 if part is q else 1
            z, log_density = part.sample_and_log_prob(jax.random.key(2), 5)
            assert shapes(z) == [(5, size, dim) for dim in dims]
            assert shapes(log_density) == [(5, size)] * len(dims)
            assert (part.log_prob is None) == (part is q and not models.can_score(settings))
            if part.log_prob is not None:
                assert shapes(part.log_prob(z)) == [(5, size)] * len(dims)
        z, _ = q.sample_and_log_prob(jax.random.key(2), 5)
        assert q.mean is None or q.mean.shape == (3, dims[0])
        assert q.covariance is None or q.covariance.shape == (3, dims[0], dims[0])
        assert shapes(q.log_prob_per_dimension(z)) in ([], [(5, 3, dims[0])])
        assert shapes(q.kl_per_dimension(p)) in ([], [(3, dim) for dim in dims])
        x = model.likelihood(params, z, classes)
        assert members(protocols.ImageDistribution) <= set(dir(x))
        assert shapes((x.mean, x.sample(jax.random.key(3)))) == [(5, 3, *BATCH.x.shape[1:])] * 2
        assert x.log_prob(BATCH.x[None]).shape == (5, 3)
        return ()


# A bound sees log-weights alone, whatever the model: test_objectives.py has all of them.
@pytest.mark.parametrize("bound", ["iwae", pytest.param("elbo_mc", marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", soaked(MODELS, *JOINED))
def test_every_estimator_reports_the_same_finite_bound_and_has_a_finite_gradient_even_at_extreme_parameters(
    name, bound
):
    model, params = initialized(name)
    allowed = [
        estimator
        for estimator, how in ESTIMATORS.items()
        if (bound, estimator) not in REFUSED
        and (models.can_score(MODELS[name]) or not how.needs_density)
        and (models.redraws_prior(MODELS[name]) or not how.redraws_prior)
    ]
    traces = []

    @jax.jit
    def values_and_gradients(params):
        traces.append(1)
        found = {}
        for estimator in allowed:
            settings = dataclasses.replace(MODELS[name], objective=bound, estimator=estimator, num_samples=3)
            objective = objectives.build(settings)

            def surrogate(params, objective=objective):
                value, *rest = objective.apply(jax.random.key(2), params, model, BATCH, Hyperparameters(), 0)
                return value, rest

            found[estimator] = jax.grad(surrogate, has_aux=True)(params)
        return found

    for scale in (1.0, 3e3):
        found = jax.device_get(
            values_and_gradients(jax.tree.map(lambda leaf, s=scale: np.float32(s) * np.asarray(leaf), params))
        )
        for estimator, (gradient, (value, metrics)) in found.items():
            assert value.shape == metrics["kl"].shape == metrics["reconstruction"].shape == (3,)
            assert np.isfinite(value).all(), estimator
            if scale == 1:
                np.testing.assert_allclose(value, found["reparameterized"][1][0], rtol=1e-4)
            for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
                assert np.isfinite(leaf).all(), (estimator, path)
                assert scale > 1 or (leaf != 0).any(), (estimator, path)
    assert len(traces) == 1


@pytest.mark.parametrize("name", soaked(MODELS, "conditional with two layers"))
def test_every_model_is_evaluated_as_its_log_weights_say(name):
    """The evaluation's ELBO of each image is the mean of its log-weights, and its layers' samples come in blocks."""
    model, params = initialized(name)
    images, labels = np.asarray(BATCH.x), np.asarray(BATCH.y)
    result = evaluation.evaluate(jax.random.key(3), params, images, labels, model=model, num_samples=300)

    @jax.jit
    def log_weights(params):
        q = model.posterior(params, BATCH)
        weighted = models.weigh(jax.random.key(4), params, model, q, BATCH, 3000)
        return q.mean, weighted.z, weighted.log_w

    mean, samples, log_w = log_weights(params)
    error = np.asarray(log_w).std(0) / np.sqrt(300)
    assert (np.abs(result.elbo - np.asarray(log_w).mean(0)) < 6 * error + 1e-5).all()
    assert (mean is None) == (MODELS[name].posterior in ("planar", "iaf", "realnvp"))
    first, *upper = result.posterior_means
    if mean is not None:
        expected = np.stack([mean, mean], 1)
        np.testing.assert_allclose(first, expected, rtol=1e-2 if "bfloat16" in name else 1e-4, atol=1e-3)
    for means, z in zip([first, *upper], jax.tree.leaves(samples), strict=True):
        error = np.asarray(z).std(0) * np.sqrt(1 / 150 + 1 / 3000)
        assert (np.abs(means - np.asarray(z).mean(0)[:, None]) < 6 * error[:, None] + 1e-2).all()
    assert (result.kl_per_dimension is not None) == (name in ("full", "conditional"))
