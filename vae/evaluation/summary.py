"""The evaluation of images, and what evaluation.json and evaluation.npz say of it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.datasets.dataset import Split
from vae.evaluation import importance
from vae.evaluation.weights import pareto_k_threshold
from vae.models.model import Model
from vae.settings import Settings

ACTIVE_VARIANCE = 0.01  # a unit is active if Var_x(E[z|x]) exceeds this (Burda et al. 2016)
ABOUT = (
    "num_examples",
    "num_samples",
    "seed",
    "checkpoint",
    "latent_dim",
    "pareto_k_threshold",
)  # of `numbers`, those that are no result


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
        **summarize(result),
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
        summary["bits_per_dimension"] = bits_per_dimension(log_likelihood, data.images[0].size)
    return result, summary


def by_image(result: importance.Evaluation) -> dict[str, np.ndarray]:
    """The arrays of evaluation.npz, [N] in nats: what paired comparisons need of each image."""
    return {
        "log_likelihood": result.log_likelihood[max(result.log_likelihood)],
        "log_likelihood_psis": result.log_likelihood_psis,
        "elbo": result.elbo,
        "kl": kl_of_samples(result),
    }


def summarize(evaluation: importance.Evaluation) -> dict[str, Any]:
    """Means over examples, as evaluation.json holds them: nats per example, standard errors over examples.

    `elbo` = `reconstruction` − `kl` from the same samples, and `kl` is the sum of `kl_per_layer`, E[log q − log p] of
    each stochastic layer in the order of z. `kl_per_dimension` is the closed form, all layers end to end. `pareto_k` is
    the median over examples, `pareto_k_above_threshold` the share whose estimate is unreliable: it exceeds
    `pareto_k_threshold` (see weights.py). `log_likelihood_psis` is of Pareto-smoothed weights (Vehtari et al. 2024), of
    as many samples as `log_likelihood`; it is no bound. `log_likelihood_gain` says what each k adds to the k before it.
    `num_not_finite` examples have a log-likelihood or an ELBO that is not finite; then neither are the means, and there
    is no standard error. What does not exist is None.

    `active_units` are those of z of the first layer, which x is made of, with Var_x(E[z|x]) > 0.01 (Burda et al. 2016);
    of a flow, of the z that leaves it. If E[z|x] has no closed form, as there and in upper layers, the variance is
    the covariance of two means over half of the samples each, whose noise is independent. `inverse_error` is how wrong
    log q(z|x) and log p(z) of a given z are on average, by rounding in the inverse of a flow; of the posterior, only
    training with rws or with an estimator, except reparameterized, scores such a z.
    """
    headline = max(evaluation.log_likelihood)
    log_likelihood, log_likelihood_se = mean_and_error(evaluation.log_likelihood[headline])
    elbo, elbo_se = mean_and_error(evaluation.elbo)
    threshold = pareto_k_threshold(headline)
    psis, psis_se = (None, None) if threshold is None else mean_and_error(evaluation.log_likelihood_psis)
    worst_if_unknown = np.nan_to_num(evaluation.pareto_k, nan=np.inf, posinf=np.inf, neginf=-np.inf)
    median_pareto_k = float(np.median(worst_if_unknown))
    finite = np.isfinite(evaluation.log_likelihood[headline]) & np.isfinite(evaluation.elbo)
    kl, active = evaluation.kl_per_dimension, [active_units(means) for means in evaluation.posterior_means]
    return {
        "num_examples": len(evaluation.elbo),
        "num_samples": headline,
        "num_not_finite": int((~finite).sum()),
        "elbo": elbo,
        "elbo_se": elbo_se,
        "reconstruction": float(evaluation.reconstruction.mean()),
        "kl": float(kl_of_samples(evaluation).mean()),
        "kl_per_layer": [float(value) for value in evaluation.kl_per_layer.mean(0)],
        "kl_per_dimension": None if kl is None else [float(value) for value in kl.mean(0)],
        "log_likelihood": log_likelihood,
        "log_likelihood_se": log_likelihood_se,
        "log_likelihood_by_num_samples": {
            str(k): mean_and_error(values) for k, values in sorted(evaluation.log_likelihood.items())
        },
        "log_likelihood_gain": gains(evaluation.log_likelihood),
        "log_likelihood_psis": psis,
        "log_likelihood_psis_se": psis_se,
        "active_units": active[0] if active else None,
        "active_units_per_layer": active,
        "inverse_error": {name: float(error.mean()) for name, error in (evaluation.inverse_error or {}).items()},
        "effective_sample_size": float(evaluation.effective_sample_size.mean()),
        "pareto_k": median_pareto_k if math.isfinite(median_pareto_k) else None,
        "pareto_k_threshold": threshold,
        "pareto_k_above_threshold": None if threshold is None else float((worst_if_unknown > threshold).mean()),
    }


def gains(log_likelihood: Mapping[int, np.ndarray]) -> dict[str, tuple[float, float | None]]:
    """How much the estimate of each k is above that of the k before, mean over the same images, with its error."""
    ks = sorted(log_likelihood)
    with np.errstate(invalid="ignore"):
        return {str(k): mean_and_error(log_likelihood[k] - log_likelihood[before]) for before, k in pairwise(ks)}


def active_units(means: np.ndarray) -> int | None:
    """How many units have Var_x(E[z|x]) > `ACTIVE_VARIANCE`, from two estimates of E[z|x], [N, 2, D]; None of NaN."""
    centred = means.astype(np.float64) - means.mean(0, dtype=np.float64)
    covariance = centred.prod(1).mean(0)
    return None if np.isnan(covariance).any() else int((covariance > ACTIVE_VARIANCE).sum())


def kl_of_samples(evaluation: importance.Evaluation) -> np.ndarray:
    """reconstruction − ELBO, [N]; NaN if neither is finite."""
    with np.errstate(invalid="ignore"):
        return evaluation.reconstruction - evaluation.elbo


def upgrade(summary: dict[str, Any]) -> dict[str, Any]:
    """A stored summary with what it says of k̂ under the names of `summarize`, whatever version wrote it."""
    if "pareto_k_above_0.7" not in summary:
        return summary
    summary = dict(summary)
    share = summary.pop("pareto_k_above_0.7")
    exists = summary["num_samples"] >= 25  # with fewer there was no k̂, and a share of 0 was written
    return {
        **summary,
        "pareto_k_threshold": 0.7 if exists else None,
        "pareto_k_above_threshold": share if exists else None,
    }


def numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Every number of a summary under a name of its own, lists as they are; not the clock."""
    by_samples = summary.get("log_likelihood_by_num_samples")
    of_samples = {
        name: value
        for k, pair in (by_samples.items() if isinstance(by_samples, dict) else ())
        if isinstance(pair, list | tuple)
        for name, value in zip((f"log_likelihood_{k}", f"log_likelihood_{k}_se"), pair, strict=False)
    }
    found = {name: value for name, value in summary.items() if isinstance(value, int | float | list | None)}
    found.pop("seconds", None)
    return found | of_samples


def mean_and_error(values: np.ndarray) -> tuple[float, float | None]:
    """The mean of [N] and its standard error; None for N = 1 and if a value is not finite."""
    if len(values) > 1 and np.isfinite(values).all():
        return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    with np.errstate(invalid="ignore"):
        return float(values.mean()), None


def means_and_errors(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Each mean under its name, and its standard error under `<name>_se`."""
    summary: dict[str, float | None] = {}
    for name, array in values.items():
        summary[name], summary[f"{name}_se"] = mean_and_error(array)
    return summary


def bits_per_dimension(log_likelihood_of_masses: float, num_values: int) -> float:
    """Bits per value of images of `num_values` values: −log₂ of their probability, a code length; 8 if all are equal.

    Not for a density: its p(x) may be larger than one.
    """
    return -log_likelihood_of_masses / num_values / math.log(2)
