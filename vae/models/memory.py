"""How many bytes a computation on samples of z needs, from the settings alone: sizes follow from it, and refusals.

Shapes: K samples, B batch, D latent, H W C image.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from vae import untrusted
from vae.models.table import LIKELIHOODS, NETWORKS, PRIORS
from vae.settings import Settings

# Copies of all values of a sample that are there at once, without a gradient and with one. XLA needs no more than this,
# and of models with large outputs that much.
FORWARD, WITH_GRADIENT = 3, 4

COPIES_OF_MAP = 9  # shifted, side by side: how a CPU convolves (products.py)
AT_ONCE = 2**30  # bytes of the samples that are decoded at once outside training
# The settings that a step's memory follows from, each with the value that asks for least.
LEAST = {
    "num_samples": 1,
    "num_groups": 1,
    "batch_size": 1,
    "prior_components": 1,
    "likelihood": "bernoulli",
    "channels": (),
    "hidden_sizes": (),
    "num_classes": 0,
}


class TooLarge(ValueError):
    """What was asked for does not fit into memory; one line for the user."""


def values_of_a_sample(settings: Settings) -> int:
    """How many numbers a model computes of one z of one image: in the decoder, in p(x|z), in the prior and in q."""
    values = _num_outputs(settings) + _values_of_layers(settings) + settings.num_classes
    return values + settings.latent_dim * (2 + _components(settings)) + settings.upper_latent_dim * 2


def values_of_prior(settings: Settings) -> int:
    """How many numbers the encoder computes of the pseudo-inputs that a prior has, once for all samples."""
    if not PRIORS[settings.prior].encodes:
        return 0
    of_each = math.prod(settings.image_shape) + _values_of_layers(settings) + 2 * settings.latent_dim
    return _components(settings) * of_each


def _values_of_layers(settings: Settings) -> int:
    """How many numbers the hidden layers of the encoder, or of the decoder, compute of one image."""
    height, width, _ = settings.image_shape
    row = NETWORKS[settings.network]
    maps = settings.channels if "channels" in row.fields else ()
    values = sum(settings.hidden_sizes) + sum(
        -(-height // 2**depth) * -(-width // 2**depth) * channels * (1 + COPIES_OF_MAP)
        for depth, channels in enumerate(maps, 1)
    )
    return values * (2 if row.gated else 1)


def _num_outputs(settings: Settings) -> int:
    """How many numbers the decoder gives for p(x|z)."""
    return math.prod(settings.image_shape) * LIKELIHOODS[settings.likelihood].function(settings).outputs_per_channel


def _components(settings: Settings) -> int:
    return settings.prior_components if "prior_components" in PRIORS[settings.prior].fields else 1


def bytes_of(settings: Settings, num_samples: int, *, gradient: bool = False) -> int:
    """Bytes of the arrays of `num_samples` z at once, K·B of them, roughly."""
    if not gradient:
        return 4 * values_of_a_sample(settings) * num_samples * FORWARD
    convolved = "channels" in NETWORKS[settings.network].fields
    of_outputs = _num_outputs(settings) * COPIES_OF_MAP if convolved else 0  # their cotangents, in the last gradient
    return 4 * (values_of_a_sample(settings) * WITH_GRADIENT + of_outputs) * num_samples


def with_gradient(sample_bytes: int) -> int:
    """Bytes of a sample if a gradient flows through it, from those without one."""
    return sample_bytes * WITH_GRADIENT // FORWARD


def bytes_of_step(settings: Settings, num_samples: int) -> int:
    """Bytes of the gradient of a bound of `num_samples` z, K·B of them, without those of the parameters."""
    return bytes_of(settings, num_samples, gradient=True) + 4 * values_of_prior(settings) * WITH_GRADIENT


def samples_at_once(sample_bytes: int) -> int:
    """How many samples are computed at once, if each needs so many bytes; at least one.

    It depends on nothing else, so that results have the same bits on every machine.
    """
    return max(1, AT_ONCE // max(1, sample_bytes))


def of_device(device: Any) -> int:
    """Bytes of memory that a device has."""
    return (device.memory_stats() or {}).get("bytes_limit") or untrusted.physical_memory()


def check(needed: int, there: int, what: str, remedy: str) -> None:
    """Raises TooLarge unless `needed` bytes are `there`."""
    if needed > there:
        raise TooLarge(
            f"{what} takes about {needed / 1e9:,.4g} GB, but there are {there / 1e9:,.4g} GB of memory; {remedy}"
        )


def check_training(
    settings: Settings, state_bytes: int, num_devices: int, there: int, what: str = "a training step"
) -> None:
    """Raises TooLarge, which names the option that takes most, if a training step cannot fit on each of the devices."""

    def needed(values: Settings) -> int:
        samples = values.batch_size * values.num_samples * values.num_groups
        return state_bytes + bytes_of_step(values, -(-samples // num_devices))

    def without(name: str) -> int:
        smaller = {name: LEAST[name]} | ({"prior": "standard"} if name == "prior_components" else {})
        return needed(dataclasses.replace(settings, **smaller))

    if needed(settings) > there:
        name = min(LEAST, key=without)
        shown = {"num_classes": "conditional", "likelihood": f"likelihood={settings.likelihood}"}.get(
            name, f"{name}={_shown(getattr(settings, name))}"
        )
        remedy = "use another" if name in ("likelihood", "num_classes") else "use a smaller one"
        check(needed(settings), there, what, f"`{shown}` takes most of it: {remedy}")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
