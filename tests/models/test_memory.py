"""What a computation needs is estimated from its settings, and what cannot fit is refused by the option at fault."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.run_samples import config, digits
from vae import objectives, untrusted
from vae.datasets import from_arrays
from vae.evaluation import importance
from vae.models import generation, memory
from vae.models import model as models
from vae.models.memory import TooLarge
from vae.models.model import Batch
from vae.settings import Hyperparameters, Settings
from vae.training import start

GREY = {"binarization": "none"}
CASES = [
    {"image_shape": (64, 64, 3)},
    {"image_shape": (12, 12, 3), "likelihood": "categorical", **GREY},
    {"image_shape": (16, 16, 1), "likelihood": "logistic_mixture", **GREY},
    {"image_shape": (16, 16, 3), "network": "conv", "channels": (32, 64)},
    {"image_shape": (16, 16, 3), "network": "gated_conv", "channels": (8,), "likelihood": "logistic_mixture", **GREY},
    {"image_shape": (8, 8, 1), "prior": "mixture", "prior_components": 1000},
    {"image_shape": (32, 32, 3), "latent_dim": 2, "prior": "vamp", "prior_components": 1000},
]
KEY = jax.eval_shape(lambda: jax.random.key(0))


def measured(function, *arguments) -> int:
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def parts(**values):
    settings = Settings(**values)
    model = models.build(settings)
    images = jnp.zeros((2, *settings.image_shape))
    return settings, model, jax.eval_shape(lambda key: model.init(key, Batch(images)), KEY)


@pytest.mark.parametrize("values", CASES, ids=str)
def test_a_training_step_needs_no_more_than_is_estimated_and_not_much_less(values):
    settings, model, params = parts(**values, objective="iwae", num_samples=10, batch_size=20)
    objective = objectives.build(settings)
    images = jax.ShapeDtypeStruct((20, *settings.image_shape), jnp.float32)

    def loss(params, key, x):
        batch = Batch(x, None, jnp.arange(20))
        return objective.apply(key, params, model, batch, Hyperparameters(), jnp.int32(0))[0].mean()

    needed = measured(jax.grad(loss), params, KEY, images)
    estimate = memory.bytes_of_step(settings, 200)
    assert needed <= 1.1 * estimate
    assert estimate <= 5 * needed


@pytest.mark.parametrize("values", CASES[:3], ids=str)
def test_an_evaluation_needs_no_more_than_is_allowed_at_once(monkeypatch, values):
    """Also where one block of 100 samples is too much."""
    _, model, params = parts(**values)
    allowed = 25 * model.sample_bytes
    images = jax.ShapeDtypeStruct((2, *values["image_shape"]), jnp.uint8)
    index = jax.ShapeDtypeStruct((2,), jnp.int32)

    def weigh(*arguments):
        return importance.weigh_examples(*arguments[:3], None, arguments[3], model=model, num_samples=1000)

    whole = measured(weigh, KEY, params, images, index)
    monkeypatch.setattr(memory, "AT_ONCE", allowed)
    assert measured(lambda *arguments: weigh(*arguments), KEY, params, images, index) <= 1.5 * allowed + 10**6
    assert whole > 5 * allowed


def test_an_evaluation_in_parts_is_the_same_to_rounding(monkeypatch):
    settings = config(latent_dim=3).settings
    model, test = models.build(settings), digits().test
    params = jax.jit(model.init)(jax.random.key(1), Batch(jnp.zeros((2, 8, 8, 1))))
    images = np.where(test.images[:4] > 127, 255, 0).astype(np.uint8)

    def evaluated():
        return importance.evaluate(jax.random.key(0), params, images, model=model, num_samples=150)

    whole = evaluated()
    monkeypatch.setattr(memory, "AT_ONCE", 7 * model.sample_bytes)
    in_parts = evaluated()
    for name in ("elbo", "reconstruction", "effective_sample_size", "kl_per_layer", "kl_per_dimension"):
        np.testing.assert_allclose(getattr(in_parts, name), getattr(whole, name), rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(in_parts.log_likelihood[150], whole.log_likelihood[150], rtol=1e-5)
    decoded = generation.decode(params, np.zeros((20, 3)), model)
    monkeypatch.undo()
    np.testing.assert_allclose(decoded, generation.decode(params, np.zeros((20, 3)), model), atol=1e-6)


def test_pictures_of_large_images_are_decoded_in_parts(monkeypatch):
    """64×64×3 of 256 values each: 38 MB an image."""
    _, model, _ = parts(image_shape=(64, 64, 3), likelihood="categorical", **GREY)
    assert model.sample_bytes == pytest.approx(37.8e6, rel=0.01)
    assert max(part.stop - part.start for part in generation._parts(400, model)) == 28
    _, model, _ = parts(image_shape=(28, 28, 1))
    assert generation._parts(400, model) == [slice(0, 1000)]


COLOUR = from_arrays(np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), np.arange(40))


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"objective": "iwae", "num_samples": 10**5}, "num_samples=100000"),
        ({"objective": "miwae", "num_samples": 2, "num_groups": 10**5}, "num_groups=100000"),
        ({"likelihood": "categorical", "num_samples": 100, "objective": "iwae"}, "likelihood=categorical"),
        ({"prior": "mixture", "prior_components": 10**6}, "prior_components=1000000"),
        ({"prior": "vamp", "prior_components": 10**5}, "prior_components=100000"),
        ({"num_classes": 10**7}, "conditional"),
        ({"batch_size": 30, "hidden_sizes": (10**6,)}, "hidden_sizes=1000000"),
    ],
    ids=str,
)
def test_a_step_that_cannot_fit_is_refused_by_the_option_that_takes_most(values, option):
    settings = Settings(image_shape=(16, 16, 3), **({"batch_size": 20, **GREY} | values))
    with pytest.raises(TooLarge, match=rf"a training step takes about .* GB, .*; `{option}` takes most of it"):
        memory.check_training(settings, 0, 1, 10**9 if "batch_size" not in values else 10**8)
    memory.check_training(settings, 0, 1, 10**15)


def test_training_is_refused_before_it_begins_and_so_is_an_evaluation(monkeypatch):
    monkeypatch.setattr(untrusted, "physical_memory", lambda: 10**8)
    asked = config(objective="iwae", num_samples=10_000)
    with pytest.raises(TooLarge, match="`num_samples=10000` takes most of it"):
        start.check(None, asked, digits(), jax.devices()[:1])
    start.check(None, config(), digits(), jax.devices()[:1])
    with pytest.raises(TooLarge, match=r"the evaluation of an image with `num_samples=2000000` takes about 0.16 GB"):
        importance.check_memory(2_000_000)
