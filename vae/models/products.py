"""The products of layers, in the form in which Flax takes them: of bfloat16 operands, and convolutions fast on a CPU.

Shapes: B batch, H W C image, F features, k the kernel's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_vjp
def bfloat16_matmul(x: Float[Array, "*B N"], w: Float[Array, "N M"]) -> Float[Array, "*B M"]:
    """x w with operands rounded to bfloat16 and sums in float32, in both directions of autodiff."""
    return _bfloat16_matmul_forward(x, w)[0]


def _bfloat16_matmul_forward(x, w):
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    return jnp.matmul(x, w, preferred_element_type=jnp.float32), (x, w)


def _bfloat16_matmul_backward(residuals, cotangent):
    x, w = residuals
    cotangent = cotangent.astype(jnp.bfloat16)
    rows, cotangent_rows = x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])
    return (
        jnp.matmul(cotangent, w.T, preferred_element_type=jnp.float32),
        jnp.matmul(rows.T, cotangent_rows, preferred_element_type=jnp.float32),
    )


bfloat16_matmul.defvjp(_bfloat16_matmul_forward, _bfloat16_matmul_backward)


def bfloat16_dot_general(lhs, rhs, dimension_numbers, precision=None, **_):
    """`bfloat16_matmul` in place of lax.dot_general; raises ValueError unless it is the product of a dense layer."""
    del precision
    if dimension_numbers != (((lhs.ndim - 1,), (0,)), ((), ())):
        raise ValueError(f"only the product of a dense layer is supported, got dimension_numbers={dimension_numbers}")
    return bfloat16_matmul(lhs, rhs)


def convolution(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k k C F"],
    strides: Sequence[int],
    padding: str,
    *,
    bfloat16: bool,
    **others,
) -> Float[Array, "B _ _ F"]:
    """A convolution in place of lax.conv_general_dilated; on a CPU it is one matrix product.

    XLA's CPU backend takes 17 to 24 times longer for the gradient of a convolution inside a loop than outside of one,
    as training is. As a product of the k² strided slices of x, the step of a small network takes a tenth of the time.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_product_of_slices, strides=tuple(strides), padding=padding, bfloat16=bfloat16),
        default=partial(_convolution, strides=tuple(strides), padding=padding, bfloat16=bfloat16, **others),
    )


def _product_of_slices(x, kernel, *, strides: tuple[int, ...], padding: str, bfloat16: bool):
    height, width, channels, features = kernel.shape
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    rows, columns = ((n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True))
    slices = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]] for i in range(height) for j in range(width)
    ]
    matmul = bfloat16_matmul if bfloat16 else jnp.matmul
    return matmul(jnp.concatenate(slices, -1), kernel.reshape(height * width * channels, features))


def _convolution(x, kernel, *, strides: tuple[int, ...], padding: str, bfloat16: bool, **others):
    if not bfloat16:
        return lax.conv_general_dilated(x, kernel, strides, padding, **others)
    others["preferred_element_type"] = None  # sums in float32, and the result is rounded once
    product = lax.conv_general_dilated(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), strides, padding, **others)
    return product.astype(jnp.float32)
