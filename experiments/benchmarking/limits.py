"""What a step or an evaluation cannot do without, at its measured speed: matrix products, and the bytes of Adam.

A convolution is the product of its patches, [B·H·W, 9·C], with its kernel. Activations, likelihood, noise, norms and
data take nothing here. The diagonal normal and a likelihood of one number for each value are counted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from vae.evaluation import importance
from vae.settings import Settings
from vae.training import timing
from vae.training.slices import number_of_slices
from vae.training.timing import Product

# Adam reads parameter, gradient and two moments, and writes all but the gradient; a pass of `timing.passes` reads and
# writes one array.
PASSES_OF_ADAM = 7 / 2


class TimedPart(NamedTuple):
    """A function to be timed, and how often its time counts."""

    function: Callable[[], Any]
    times: float = 1


def of_steps(settings: Settings, num_steps: int, platform: str) -> list[TimedPart]:
    """Of training steps, whose decoder works in the slices that training takes on this platform."""
    num_slices = number_of_slices(settings, platform)
    samples = settings.num_samples * settings.num_groups * settings.batch_size
    encoder, decoder = encoder_of(settings, settings.batch_size), decoder_of(settings, samples // num_slices)
    parameters = sum(layer.inputs * layer.outputs for layer in encoder + decoder)
    return [
        TimedPart(timing.products(encoder, num_steps, settings.precision)),
        TimedPart(timing.products(decoder, num_steps * num_slices, settings.precision)),
        TimedPart(timing.passes(4 * parameters, num_steps), PASSES_OF_ADAM),
    ]


def of_evaluation(settings: Settings, num_images: int, num_samples: int) -> list[TimedPart]:
    """Of the decoder, forwards, for `num_samples` of each image."""
    rows = min(num_samples, importance.SAMPLES_PER_TILE)
    layers = [layer._replace(of_kernel=False, of_rows=False) for layer in decoder_of(settings, rows)]
    return [TimedPart(timing.products(layers, num_images * -(-num_samples // rows), settings.precision))]


def encoder_of(settings: Settings, rows: int) -> list[Product]:
    """The products of the encoder for `rows` images."""
    height, width, depth = settings.image_shape
    layers = []
    for channels in settings.channels:
        height, width = -(-height // 2), -(-width // 2)
        layers.append(Product(rows * height * width, 9 * depth, channels))
        depth = channels
    layers += dense(rows, height * width * depth, *settings.hidden_sizes, 2 * settings.latent_dim)
    return [layers[0]._replace(of_rows=False), *layers[1:]]


def decoder_of(settings: Settings, rows: int) -> list[Product]:
    """The products of the decoder for `rows` samples."""
    height, width, depth = settings.image_shape
    sizes = settings.latent_dim, *settings.hidden_sizes[::-1]
    if not settings.channels:
        return dense(rows, *sizes, math.prod(settings.image_shape))
    shrink = 2 ** len(settings.channels)
    height, width = -(-height // shrink), -(-width // shrink)
    layers = dense(rows, *sizes, height * width * settings.channels[-1])
    for inputs, outputs in itertools.pairwise((*settings.channels[::-1], depth)):
        layers.append(Product(rows * height * width, 9 * inputs, 4 * outputs))
        height, width = 2 * height, 2 * width
    return layers


def dense(rows: int, *sizes: int) -> list[Product]:
    return [Product(rows, inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]
