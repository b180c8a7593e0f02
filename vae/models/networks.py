"""Encoders and decoders, as Flax Linen modules. Glorot-uniform weights, zero biases.

To add a network: two modules as `MLPEncoder` and `MLPDecoder`, and a row in `NETWORKS` of table.py. The only file that
imports flax. Shapes: K samples, B batch, H W C image, D latent, N outputs; decoders take any
leading axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from vae.models.products import EXACT, convolution, dense
from vae.models.table import ACTIVATIONS, NETWORKS
from vae.settings import Settings

_glorot = nn.initializers.glorot_uniform()
_near_zero = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")


def _dense(settings: Settings, features: int, use_bias: bool = True) -> nn.Dense:
    product = partial(dense, bfloat16=settings.precision == "bfloat16")
    return nn.Dense(features, use_bias=use_bias, kernel_init=_glorot, dot_general=product)


def _conv(settings: Settings, features: int, strides: int = 1, use_bias: bool = True) -> nn.Conv:
    product = partial(convolution, bfloat16=settings.precision == "bfloat16")
    return nn.Conv(
        features, (3, 3), strides, use_bias=use_bias, precision=EXACT, kernel_init=_glorot, conv_general_dilated=product
    )


def _hidden(settings: Settings, x: Array, layer: Callable[[], nn.Module]) -> Array:
    """A hidden layer: the activation of a new `layer()` of x.

    If the network is gated, layer()(x) ⊙ σ(layer()(x)), of two new ones (Tomczak & Welling 2018).
    """
    if NETWORKS[settings.network].gated:
        return layer()(x) * nn.sigmoid(layer()(x))
    return ACTIVATIONS[settings.activation].function(layer()(x))


def depth_to_space(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C//4"]:
    """Four channels become a block of 2×2 pixels: the sub-pixel convolution of Shi et al. (2016)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).swapaxes(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


class MLPEncoder(nn.Module):
    """Dense layers of `hidden_sizes`; `labels`, one-hot, stand beside the pixels."""

    settings: Settings
    num_outputs: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], labels: Float[Array, "B classes"] | None = None
    ) -> Float[Array, "B N"]:
        x = x.reshape(x.shape[0], -1)
        if labels is not None:
            x = jnp.concatenate([x, labels], axis=-1)
        for size in self.settings.hidden_sizes:
            x = _hidden(self.settings, x, partial(_dense, self.settings, size))
        return _dense(self.settings, self.num_outputs)(x)


class MLPDecoder(nn.Module):
    """Dense layers of `hidden_sizes` in reverse; the output bias belongs to the likelihood."""

    settings: Settings
    outputs_per_channel: int

    @nn.compact
    def __call__(self, z: Float[Array, "*K B D"]) -> Float[Array, "*K B H W N"]:
        height, width, num_channels = self.settings.image_shape
        for size in self.settings.hidden_sizes[::-1]:
            z = _hidden(self.settings, z, partial(_dense, self.settings, size))
        z = _dense(self.settings, height * width * num_channels * self.outputs_per_channel, use_bias=False)(z)
        return z.reshape(*z.shape[:-1], height, width, num_channels * self.outputs_per_channel)


class ConvEncoder(nn.Module):
    """3×3 convolutions of stride 2 with `channels`, then dense layers of `hidden_sizes`, which see the labels too."""

    settings: Settings
    num_outputs: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], labels: Float[Array, "B classes"] | None = None
    ) -> Float[Array, "B N"]:
        for channels in self.settings.channels:
            x = _hidden(self.settings, x, partial(_conv, self.settings, channels, strides=2))
        return MLPEncoder(self.settings, self.num_outputs)(x, labels)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: dense layers, then sub-pixel convolutions, cropped to the image's size."""

    settings: Settings
    outputs_per_channel: int

    @nn.compact
    def __call__(self, z: Float[Array, "*K B D"]) -> Float[Array, "*K B H W N"]:
        settings = self.settings
        height, width, num_channels = settings.image_shape
        leading, z = z.shape[:-1], z.reshape(-1, z.shape[-1])
        for size in settings.hidden_sizes[::-1]:
            z = _hidden(settings, z, partial(_dense, settings, size))
        shrink = 2 ** len(settings.channels)
        top = (-(-height // shrink), -(-width // shrink), settings.channels[-1])
        x = _hidden(settings, z, partial(_dense, settings, math.prod(top))).reshape(-1, *top)
        for channels in settings.channels[-2::-1]:
            x = depth_to_space(_hidden(settings, x, partial(_conv, settings, 4 * channels)))
        num_outputs = num_channels * self.outputs_per_channel
        x = depth_to_space(_conv(settings, 4 * num_outputs, use_bias=False)(x))
        return x[:, :height, :width].reshape(*leading, height, width, num_outputs)


class Discriminator(nn.Module):
    """Dense layers of `sizes` with leaky ReLUs, and one logit (Kim & Mnih 2018, appendix A)."""

    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "*K B D"]) -> Float[Array, "*K B"]:
        for size in self.sizes:
            z = nn.leaky_relu(nn.Dense(size, kernel_init=_glorot, dot_general=dense)(z), 0.2)
        return nn.Dense(1, kernel_init=_glorot, dot_general=dense)(z)[..., 0]


class MLP(nn.Module):
    """Dense layers of `hidden_sizes` from one stochastic layer to the next."""

    settings: Settings
    hidden_sizes: tuple[int, ...]
    num_outputs: int

    @nn.compact
    def __call__(self, z: Float[Array, "*K B D"]) -> Float[Array, "*K B N"]:
        for size in self.hidden_sizes:
            z = _hidden(self.settings, z, partial(_dense, self.settings, size))
        return _dense(self.settings, self.num_outputs)(z)


class FlowNetwork(nn.Module):
    """Two tanh layers of `hidden_size`, whose first is also given the context; nearly zero before training.

    `autoregressive`: N is a multiple of D, and output n depends only on inputs before n mod D (Germain et al. 2015).
    In float32 whatever the precision: a flow and its inverse must find the same numbers.
    """

    hidden_size: int
    num_outputs: int
    autoregressive: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "K #B D"], context: Float[Array, "B H"] | None = None) -> Float[Array, "K _ N"]:
        sizes = (z.shape[-1], self.hidden_size, self.hidden_size, self.num_outputs)
        masks = autoregressive_masks(sizes) if self.autoregressive else (None, None, None)
        hidden = _masked_dense(sizes[1], masks[0])(z)
        if context is not None:
            of_context = nn.Dense(sizes[1], use_bias=False, precision=EXACT, kernel_init=_glorot)
            hidden = hidden + of_context(context)[None]
        hidden = jnp.tanh(_masked_dense(sizes[2], masks[1])(jnp.tanh(hidden)))
        return _masked_dense(sizes[3], masks[2], _near_zero)(hidden)


def autoregressive_masks(sizes: tuple[int, int, int, int]) -> list[np.ndarray]:
    """Of each layer, [inputs, outputs]: a unit of degree d is reached by the inputs 0 … d − 1 (Germain et al. 2015)."""
    num_inputs, *hidden, num_outputs = sizes
    degrees = [np.arange(1, num_inputs + 1), *(np.arange(size) % max(1, num_inputs - 1) + 1 for size in hidden)]
    masks = [after[None] >= before[:, None] for before, after in itertools.pairwise(degrees)]
    return [*masks, np.arange(num_outputs)[None] % num_inputs >= degrees[-1][:, None]]


def _masked_dense(features: int, mask: np.ndarray | None, kernel_init: Any = _glorot) -> nn.Dense:
    def dot_general(lhs, kernel, *args, **kwargs):
        return lax.dot_general(lhs, kernel if mask is None else jnp.where(mask, kernel, 0), *args, **kwargs)

    return nn.Dense(features, precision=EXACT, kernel_init=kernel_init, dot_general=dot_general)
