"""A convolution as a product of slices is the convolution, and only programs for a CPU contain it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export, lax

from vae.models.products import convolution

SHAPES = [
    ((2, 8, 8, 3), 4, 2),
    ((3, 7, 9, 5), 2, 2),
    ((2, 5, 4, 1), 3, 1),
    ((1, 1, 1, 2), 2, 2),
    ((2, 6, 6, 2), 2, 3),
    ((3, 7, 9, 5), 4, 1),
]


def gradients(product, x, kernel, weights, strides):
    """Of Σ weights · conv(x, kernel): the value's own array, and the gradients of x and kernel."""
    layer = nn.Conv(kernel.shape[-1], (3, 3), strides, use_bias=False, conv_general_dilated=product)

    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def both(x, kernel):
        output = layer.apply({"params": {"kernel": kernel}}, x)
        return (weights * output).sum(), output

    return jax.jit(both)(x, kernel)


@pytest.mark.parametrize(("shape", "features", "strides"), SHAPES)
def test_slices_give_the_convolution_and_its_gradients(float64, shape, features, strides):
    del float64
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(3, 3, shape[-1], features))
    weights = rng.normal(size=(shape[0], *(-(-n // strides) for n in shape[1:3]), features))
    found = gradients(partial(convolution, bfloat16=False), x, kernel, weights, strides)
    wanted = gradients(lax.conv_general_dilated, x, kernel, weights, strides)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * abs(other).max() + 1e-13)


@pytest.mark.parametrize("strides", [1, 2])
def test_bfloat16_rounds_operands_and_nothing_else(strides):
    rng = np.random.default_rng(1)
    shapes = (2, 6, 6, 3), (3, 3, 3, 4), (2, 6 // strides, 6 // strides, 4)
    x, kernel, weights = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    rounded = [a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel, weights)]
    found = gradients(partial(convolution, bfloat16=True), x, kernel, weights, strides)
    x, kernel, weights = rounded
    wanted = gradients(lax.conv_general_dilated, x, kernel, weights, strides)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        # The gradient of a rounded operand is rounded too.
        np.testing.assert_allclose(one, other, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_other_platforms_keep_the_convolution(bfloat16):
    layer = nn.Conv(4, (3, 3), 2, conv_general_dilated=partial(convolution, bfloat16=bfloat16))
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)

    def program(platform):
        return export.export(jax.jit(layer.apply), platforms=[platform])(params, x).mlir_module()

    convolves = {platform: "stablehlo.convolution" in program(platform) for platform in ("cpu", "cuda", "tpu")}
    assert convolves == {"cpu": False, "cuda": True, "tpu": True}
