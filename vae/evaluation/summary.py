"""The evaluation of images, and what evaluation.json and evaluation.npz say of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.datasets.dataset import Split
from vae.evaluation import importance
from vae.models.model import Model
from vae.settings import Settings


class EvaluationSettings(NamedTuple):
    """What two evaluations must have in common, besides their data."""

    split: str
    num_samples: int
    seed: int
    num_examples: int | None = None  # None: all


def judge(
    params: Any,
    data: Split,
    index: np.ndarray,
    chosen: EvaluationSettings,
    *,
    model: Model,
    settings: Settings,
    checkpoint: int,
    devices: Sequence[Any],
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[importance.Evaluation, dict[str, Any]]:
    """The evaluation of each image, and what evaluation.json says of it; nats per image.

    `index` [N] are the images' positions in their split, `checkpoint` is the step of `params`, and `on_progress` gets
    the number of images that are done.
    """
    started = time.perf_counter()
    result = importance.evaluate(
        jax.random.key(chosen.seed),
        params,
        data.images,
        data.labels,
        index,
        model=model,
        num_samples=chosen.num_samples,
        devices=devices,
        on_progress=on_progress,
    )
    summary = {
        **importance.summarize(result),
        "latent_dim": settings.latent_dim,
        "latent_dims": [means.shape[-1] for means in result.posterior_means],
        "split": chosen.split,
        "checkpoint": checkpoint,
        "binarization": "fixed" if settings.binarization == "dynamic" else settings.binarization,
        "seed": chosen.seed,
        "images_sha256": hashlib.sha256(data.images.tobytes()).hexdigest(),
        "seconds": time.perf_counter() - started,
    }
    if result.log_likelihood_of_masses is not None:
        log_likelihood = float(result.log_likelihood_of_masses.mean())
        summary["bits_per_dimension"] = importance.bits_per_dimension(log_likelihood, data.images[0].size)
    return result, summary


def by_image(result: importance.Evaluation) -> dict[str, np.ndarray]:
    """The arrays of evaluation.npz, [N] in nats: what paired comparisons need of each image."""
    headline = result.log_likelihood[max(result.log_likelihood)]
    return {"log_likelihood": headline, "elbo": result.elbo, "kl": importance.kl_of_samples(result)}
