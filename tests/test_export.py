"""Programs for a CPU, a GPU and a TPU are made on any machine, and say how exact their products are."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tests.run_samples import config
from vae import objectives
from vae.datasets.dataset import Split
from vae.datasets.images import Moments
from vae.evaluation import importance
from vae.models import generation
from vae.models import model as models
from vae.settings import Hyperparameters, Settings
from vae.training import step as training
from vae.training.program import Program, run_inputs

PLATFORMS = ("cpu", "cuda", "tpu")
CONV = {"network": "conv", "channels": (2, 3)}
PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)\b.*: \((.*)\) -> (tensor<.*>)")
FLOAT32 = ("f32", "f32", "f32", "HIGHEST")
DATA = Split(np.zeros((300, 8, 8, 1), np.uint8))
MOMENTS = Moments(jnp.zeros((8, 8, 1)), jnp.ones(()))


def products(function, *arguments):
    """Of each product in the program of all platforms: the types of its operands and its result, and its precision."""
    text = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).mlir_module()
    found = set()
    for line in text.splitlines():
        if product := PRODUCT.search(line):
            types = re.findall(r"(\w+)>", ", ".join(product.groups()))
            types = [one.rpartition("x")[2] for one in types]
            found.add(
                (*types, "HIGHEST" if re.search(r"HIGHEST>?, (?:#stablehlo<precision )?HIGHEST", line) else "DEFAULT")
            )
    return found


def step(settings: Settings):
    """A program of training steps, and its arguments."""
    parts = {"model": models.build(settings), "objective": objectives.build(settings), "settings": settings}
    state = training.abstract_state(**parts, hyperparameters=Hyperparameters())
    steps = partial(training.train_steps, **parts)
    return steps, jax.random.key(0), state, DATA, np.int32(1), Hyperparameters()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        CONV,
        {"posterior": "full", "objective": "dip_ii"},
        {"posterior": "iaf", "prior": "flow", "objective": "iwae"},
        {"objective": "factor", "prior": "vamp"},
        {"objective": "info"},
        {"upper_latent_dim": 2, "objective": "iwae"},
    ],
    ids=str,
)
def test_float32_products_of_training_are_float32_on_every_platform(settings):
    assert products(*step(config(**settings).settings)) == {FLOAT32}


@pytest.mark.parametrize("network", [{}, CONV], ids=str)
def test_bfloat16_products_of_training_have_bfloat16_operands_and_float32_sums(network):
    found = products(*step(config(precision="bfloat16", **network).settings))
    assert {of[:2] for of in found} == {("bf16", "bf16")}
    # A convolution of an accelerator sums in float32 and rounds its result once.
    assert {of[2] for of in found} <= ({"f32", "bf16"} if network else {"f32"})


def test_a_sweep_is_exported_for_every_platform():
    configs = [config(seed=seed) for seed in (0, 1)]
    program = Program(configs[0].settings, jax.devices()[:1], 2, "vmap")
    inputs = run_inputs(configs)
    state = jax.eval_shape(program._initialize, MOMENTS, inputs)
    found = products(program._train_steps, DATA, state, inputs, np.ones(2, np.int32))
    assert found == {FLOAT32}


def test_evaluation_and_generation_are_exported_for_every_platform():
    settings = config().settings
    model = models.build(settings)
    params = step(settings)[2].params
    labels, index = None, np.arange(2, dtype=np.int32)
    weigh = partial(importance.weigh_examples, model=model, num_samples=10)
    draw = partial(generation._from_prior, model=model, num_samples=2)
    decode = partial(generation._mean, model=model)
    root, images = jax.random.key(0), DATA.images[:2]
    assert products(weigh, root, params, images, labels, index) == {FLOAT32}
    assert products(decode, params, jnp.zeros((2, 2)), labels) == {FLOAT32}
    assert products(draw, root, params, labels) == set()
