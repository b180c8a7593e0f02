"""A step in slices of its batch is the step: the same noise, the same gradient, the same values of each example."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.marks import soaked
from vae import objectives
from vae.models import model as models
from vae.models.model import Batch
from vae.models.table import POSTERIORS, PRIORS
from vae.objectives import BOUNDS, OBJECTIVES
from vae.settings import Hyperparameters, Settings
from vae.training import slices
from vae.training.slices import number_of_slices

BATCH_SIZE, NUM_SLICES = 6, 3
WHOLE = {"image_shape": (3, 3, 1), "hidden_sizes": (), "latent_dim": 2, "batch_size": BATCH_SIZE}
WHOLE |= {"num_flows": 1, "flow_hidden_size": 4, "prior_components": 3}
# Every row that may be sliced, every estimator, every kind of q and p(z); the first ones of these have the rows.
BY_OBJECTIVE = {
    name: {"objective": name, "num_samples": 3} | ({"num_groups": 2} if row.grouped else {})
    for name, row in OBJECTIVES.items()
    if not row.of_batch
}
BY_PART = {
    **{f"{e}": {"objective": "iwae", "num_samples": 3, "estimator": e} for e in ("stl", "dreg", "score", "ovis")},
    **{name: {"objective": "iwae", "num_samples": 3, "posterior": name} for name in POSTERIORS if name != "diagonal"},
    **{name: {"objective": "iwae", "num_samples": 3, "prior": name} for name in PRIORS if name != "standard"},
    "rws dreg": {"objective": "rws", "num_samples": 3, "estimator": "dreg"},
    "piwae of a vamp": {"objective": "piwae", "num_samples": 2, "num_groups": 2, "prior": "vamp"},
    "iaf dreg": {"objective": "iwae", "num_samples": 3, "posterior": "iaf", "estimator": "dreg"},  # both are above
    "two layers": {"objective": "iwae", "num_samples": 3, "upper_latent_dim": 2, "upper_hidden_sizes": (3,)},
    "conditional": {"objective": "iwae", "num_samples": 3, "num_classes": 3},
}


def gradients(values):
    """Of the whole batch and in slices: twice (gradient, values of each example)."""
    settings = Settings(**WHOLE, **values)
    model, objective = models.build(settings), objectives.build(settings)
    objective = objective.at(objective.init_state(Hyperparameters()))
    rng = np.random.default_rng(0)
    x, index = rng.integers(0, 2, (BATCH_SIZE, 3, 3, 1)).astype(float), np.arange(BATCH_SIZE)
    batch = jax.device_put(Batch(x, index % 3 if settings.num_classes else None, index, 100))

    def initialize(key):
        return model.init(key, batch) | {"objective": objective.init(key, model)}

    with jax.debug_key_reuse(False):  # only the shapes are taken
        shapes = jax.eval_shape(initialize, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3), shapes)
    numbers = {"num_samples": settings.num_samples * settings.num_groups, "model": model, "objective": objective}

    def gradient(num_slices):
        now = batch, Hyperparameters(), 7
        of_params = partial(slices.gradient, num_slices=num_slices, **numbers)
        return jax.jit(lambda params: of_params(jax.random.key(1), params, *now))(params)

    return gradient(1), gradient(NUM_SLICES)


def difference(whole, sliced):
    """The largest one, as a part of the largest entry of the gradient."""
    whole, sliced = jax.tree.map(np.asarray, (whole, sliced))
    largest = max(abs(leaf).max() for leaf in jax.tree.leaves(whole[0]))
    pairs = zip(jax.tree.leaves(whole), jax.tree.leaves(sliced), strict=True)
    return max(abs(one - other).max() for one, other in pairs) / max(largest, 1)


# Of the bounds of log-weights, two that differ in what they take of them: each is a function of one example, as
# test_bounds.py has it. Of "iaf dreg" and "piwae of a vamp", both are there by themselves; dreg holds q
# as stl does.
SOAKED = "iaf dreg", "rws dreg", "stl", "piwae of a vamp", *(BOUNDS.keys() - {"iwae", "piwae"})


@pytest.mark.parametrize("name", soaked(BY_OBJECTIVE | BY_PART, *SOAKED))
def test_the_gradient_in_slices_is_that_of_the_whole_batch(float64, name):
    del float64
    whole, sliced = gradients((BY_OBJECTIVE | BY_PART)[name])
    assert jax.tree.structure(whole) == jax.tree.structure(sliced)
    assert difference(whole, sliced) < 1e-11


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.of_batch])
def test_what_compares_the_examples_of_a_batch_would_have_another_gradient(float64, name):
    """So that no row says it of itself for nothing."""
    del float64
    of_batch = {"capacity": {"capacity_of": "batch"}, "factor": {"discriminator_sizes": (4,)}}
    with jax.debug_key_reuse(False):  # those that draw more than samples of q spend the key in every slice
        assert difference(*gradients({"objective": name, "num_samples": 2, **of_batch.get(name, {})})) > 1e-6


def test_slices_divide_the_batch_and_fit():
    def number(platform="cpu", **values):
        return number_of_slices(Settings((28, 28, 1), **values), platform)

    assert number(batch_size=128) == 1
    assert number(batch_size=100, objective="iwae", num_samples=50) == 4
    assert number(batch_size=97, objective="iwae", num_samples=5000) == 97
    assert number(batch_size=100, objective="iwae", num_samples=50, platform="gpu") == 1
    assert number(batch_size=100, objective="iwae", num_samples=5000, platform="gpu") == 2
    # What compares the examples of a batch stays whole, however large.
    assert number(batch_size=100, objective="dip_i", num_samples=50) == 1
    two_layers = {"batch_size": 100, "objective": "warmup", "num_samples": 50, "upper_latent_dim": 2}
    assert [number(**two_layers, warmup_balance=balance) for balance in (False, True)] == [4, 1]
    assert number(batch_size=100, num_samples=50, likelihood="normal", scale="optimal") == 1
    assert number(batch_size=100, objective="rws", num_samples=50) == 4
    assert number(batch_size=100, objective="rws", num_samples=50, rws_phase="both") == 1
