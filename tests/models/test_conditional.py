"""Class-conditional models: p(x|z, y) and q(z|x, y)."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae.models import generation
from vae.models import model as models
from vae.settings import Settings

SETTINGS = {
    "mlp": Settings((4, 4, 1), hidden_sizes=(8,), latent_dim=2, num_classes=3),
    "conv": Settings((4, 4, 1), network="conv", channels=(3,), hidden_sizes=(6,), latent_dim=2, num_classes=3),
    "gated_mlp": Settings((4, 4, 1), network="gated_mlp", hidden_sizes=(8,), latent_dim=2, num_classes=3),
    "gated_conv": Settings(
        (4, 4, 1), network="gated_conv", channels=(3,), hidden_sizes=(6,), latent_dim=2, num_classes=3
    ),
}


@cache
def initialized(name):
    model = models.build(SETTINGS[name])
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 1))
    return model, x, jax.jit(model.init)(jax.random.key(1), models.Batch(x))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_label_changes_q_and_the_likelihood_of_its_own_example_only(name):
    model, x, params = initialized(name)

    @jax.jit
    def both(y):
        q = model.posterior(params, models.Batch(x, y))
        z = jnp.ones((5, 2, 2))
        return q.mean, model.likelihood(params, z, y).log_prob(x[None])

    mean, log_p = jax.device_get(both(jnp.asarray([0, 1])))
    other_mean, other_log_p = jax.device_get(both(jnp.asarray([0, 2])))
    np.testing.assert_allclose(mean[0], other_mean[0], rtol=1e-6)
    np.testing.assert_allclose(log_p[:, 0], other_log_p[:, 0], rtol=1e-6)
    assert (mean[1] != other_mean[1]).all()
    assert (log_p[:, 1] != other_log_p[:, 1]).all()


def test_an_unconditional_model_ignores_the_label():
    settings = Settings((4, 4, 1), hidden_sizes=(8,), latent_dim=2)
    model, x = models.build(settings), jnp.ones((2, 4, 4, 1))
    params = jax.jit(model.init)(jax.random.key(1), models.Batch(x))
    assert params["encoder"]["Dense_0"]["kernel"].shape == (16, 8)
    mean = jax.jit(lambda y: model.posterior(params, models.Batch(x, y)).mean)
    np.testing.assert_array_equal(mean(jnp.asarray([0, 1])), mean(None))


def test_samples_reconstructions_and_codes_use_the_labels():
    model, x, params = initialized("mlp")
    images, labels = np.asarray(x), np.array([1, 2])
    others = np.array([1, 0])
    samples = [generation.samples(jax.random.key(0), params, model, 2, y) for y in (labels, others)]
    means = [generation.reconstructions(jax.random.key(0), params, images, model, y)[0] for y in (labels, others)]
    codes = [generation.encode(params, images, model, y).mean for y in (labels, others)]
    for one, other in (samples, means, codes):
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)
        assert (one[1] != other[1]).all()
    z = np.zeros((2, 5, 2))
    row = generation.decode(params, z, model, labels[:, None])
    np.testing.assert_allclose(row[1], generation.decode(params, z[1], model, np.full(5, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prior": "vamp"}, "pseudo-inputs of a VampPrior have no class"),
        ({"num_classes": 0, "prior": "vamp", "posterior": "planar"}, "posterior planar cannot"),
        ({"upper_latent_dim": 2, "posterior": "full"}, "two stochastic layers are diagonal normals"),
        ({"upper_latent_dim": 2, "prior": "flow"}, "prior flow goes with upper_latent_dim 0 only"),
        ({"latent_dim": 1, "posterior": "iaf"}, "posterior iaf changes one latent dimension given another"),
        ({"latent_dim": 1, "posterior": "realnvp"}, "needs a latent_dim of 2 or more"),
        ({"latent_dim": 1, "prior": "flow"}, "prior flow changes one latent dimension given another"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_with_the_reason(changes, reason):
    settings = Settings(**(SETTINGS["mlp"].to_dict() | changes))
    with pytest.raises(models.ModelError, match=reason):
        models.build(settings)
