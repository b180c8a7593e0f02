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

# Of float32 products, which else round their operands: to TF32 on a GPU, to bfloat16 on a TPU.
EXACT = lax.Precision.HIGHEST


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: Float[Array, "*B N"], w: Float[Array, "N M"], bfloat16: bool = False) -> Float[Array, "*B M"]:
    """x w, or with operands rounded to bfloat16 and sums in float32, in both directions of reverse-mode autodiff.

    Its gradient is written out, because XLA's CPU backend copies arrays to transpose them for the one that autodiff
    makes: a step of an MLP takes 1.1 times as long with that.
    """
    return _product(*_operands(bfloat16, x, w))


def _operands(bfloat16: bool, *arrays: Array) -> tuple[Array, ...]:
    return tuple(a.astype(jnp.bfloat16) for a in arrays) if bfloat16 else arrays


def _product(a: Array, b: Array) -> Array:
    if a.dtype == jnp.bfloat16:
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)
    return jnp.matmul(a, b, precision=EXACT)


def _matmul_forward(x, w, bfloat16):
    x, w = _operands(bfloat16, x, w)
    return _product(x, w), (x, w)


def _matmul_backward(bfloat16, operands, cotangent):
    (x, w), (cotangent,) = operands, _operands(bfloat16, cotangent)
    rows, cotangent_rows = x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])
    return _product(cotangent, w.T), _product(rows.T, cotangent_rows)


matmul.defvjp(_matmul_forward, _matmul_backward)


def dense(lhs, rhs, dimension_numbers, *_, bfloat16: bool = False, **__):
    """`matmul` in place of lax.dot_general; raises ValueError unless it is the product of a dense layer."""
    if dimension_numbers != (((lhs.ndim - 1,), (0,)), ((), ())):
        raise ValueError(f"only the product of a dense layer is supported, got dimension_numbers={dimension_numbers}")
    return matmul(lhs, rhs, bfloat16)


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
    pads = tuple(lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding))
    unit = _product_of_unit_strides if tuple(strides) == (1, 1) else partial(_product_of_slices, strides=strides)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: unit(x, kernel, pads, bfloat16),
        default=partial(_convolution, strides=tuple(strides), padding=padding, bfloat16=bfloat16, **others),
    )


Pads = Sequence[tuple[int, int]]  # zeros before and after, of the rows and of the columns


def _product_of_slices(x, kernel, pads: Pads, bfloat16: bool, strides: Sequence[int] = (1, 1)):
    patches = _patches(x, kernel.shape[:2], pads, strides)
    return matmul(patches, kernel.reshape(-1, kernel.shape[-1]), bfloat16)


def _patches(x: Float[Array, "B H W C"], sides: Sequence[int], pads: Pads, strides: Sequence[int] = (1, 1)):
    """What each output of a convolution sees, [B, _, _, k k C]."""
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    rows, columns = ((n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], sides, strides, strict=True))
    slices = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]] for i in range(sides[0]) for j in range(sides[1])
    ]
    return jnp.stack(slices, axis=-2).reshape(*slices[0].shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product_of_unit_strides(x, kernel, pads: Pads, bfloat16: bool):
    """`_product_of_slices` with a faster gradient: it takes both parts from the patches of the cotangent.

    Autodiff adds up k² padded arrays, and XLA does so again for each use of the sum: a step of a convolutional network
    took 1.3 to 1.4 times as long.
    """
    return _product_of_slices(x, kernel, pads, bfloat16)


def _unit_strides_forward(x, kernel, pads, bfloat16):
    return _product_of_slices(x, kernel, pads, bfloat16), (x, kernel)


def _unit_strides_backward(pads, bfloat16, residuals, cotangent):
    x, kernel = residuals
    height, width, channels, features = kernel.shape
    # Of a pixel: the cotangents of the outputs that see it, the last one first.
    opposite = [(k - 1 - before, k - 1 - after) for k, (before, after) in zip((height, width), pads, strict=True)]
    seeing = _patches(cotangent, (height, width), opposite)
    of_x = matmul(seeing, kernel[::-1, ::-1].swapaxes(2, 3).reshape(-1, channels), bfloat16)
    of_kernel: Array = matmul(x.reshape(-1, channels).T, seeing.reshape(-1, seeing.shape[-1]), bfloat16)
    of_kernel = of_kernel.reshape(channels, height, width, features)[:, ::-1, ::-1]
    return of_x, jnp.moveaxis(of_kernel, 0, 2)


_product_of_unit_strides.defvjp(_unit_strides_forward, _unit_strides_backward)


def _convolution(x, kernel, *, strides: tuple[int, ...], padding: str, bfloat16: bool, **others):
    if not bfloat16:
        return lax.conv_general_dilated(x, kernel, strides, padding, **others)
    others |= {"preferred_element_type": None, "precision": None}  # sums in float32, and the result is rounded once
    product = lax.conv_general_dilated(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), strides, padding, **others)
    return product.astype(jnp.float32)
