"""The pictures of a comparison: from its runs and their evaluations to files by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.pictures.run_pictures import drawn, original, sorted_classes, unit
from vae import figures
from vae.api import load_run
from vae.evaluation.comparison import LEAST_SEEDS
from vae.judging.groups import RunGroup
from vae.models import generation
from vae.runs.folder import FIGURES
from vae.runs.metrics import read_metrics

NUM_RECONSTRUCTED, NUM_SAMPLED = 12, 12


def draw(
    groups: Sequence[RunGroup],
    comparison: dict[str, Any],
    evaluations: dict[Path, dict],
    images: Callable[[Path], tuple],
) -> dict[str, dict[str, bytes]]:
    """Draw every picture of report.PICTURES that the runs allow, as files by their suffix; `groups` and the comparison
    are best first.

    Those that cannot be drawn are left out, with a line that says why.
    """
    made = drawn(charts(groups, comparison, evaluations) | of_models(groups, images))
    return drawn({name: partial(figures.files, figure) for name, figure in made.items()})


def save(workdir: Path, pictures: dict[str, dict[str, bytes]]) -> None:
    """Write <workdir>/figures/<name>.<suffix>; a line for each picture that cannot be written."""

    def write(name):
        for suffix, content in pictures[name].items():
            figures.write(workdir / FIGURES / f"{name}.{suffix}", content)

    drawn({name: partial(write, name) for name in pictures})


def charts(
    groups: Sequence[RunGroup], comparison: dict[str, Any], evaluations: dict[Path, dict]
) -> dict[str, Callable[[], Any]]:
    """What draws each chart, by its name."""
    entries, best = comparison["objectives"], groups[0].label
    scores = {one["label"]: one["log_likelihood_by_seed"] for one in entries}
    made: dict[str, Callable[[], Any]] = {
        "log_likelihoods": partial(figures.log_likelihoods, scores, "Log-likelihood by seed")
    }
    pairs = {pair["lower"]: pair for pair in comparison["pairs"] if pair["higher"] == best}
    if len(comparison["seeds"]) >= LEAST_SEEDS:  # fewer have no intervals
        leads = {
            group.label: tuple(pairs[group.label][key] for key in ("difference", "low", "high", "significant"))
            for group in groups[1:]
        }
        made["differences"] = partial(figures.differences, leads, best, f"Paired difference from {best}")
    curves = {group.label: [elbo_curve(folder) for folder in folders(group, comparison)] for group in groups}
    curves = {name: [curve for curve in runs if len(curve[0])] for name, runs in curves.items()}
    if any(curves.values()):
        splits = {held_out_split(folder) for group in groups for folder in folders(group, comparison)}
        label = f"{splits.pop() if len(splits) == 1 else 'validation or test'} ELBO (nats per image)"
        made["elbo_by_step"] = partial(figures.curves_of_objectives, curves, "step", label, "ELBO against steps")
        paces = {one["label"]: one["seconds_per_step"] for one in entries}
        timed = {name: [(paces[name] * t, values) for t, values in runs] for name, runs in curves.items()}
        made["elbo_by_second"] = partial(
            figures.curves_of_objectives, timed, "seconds of training, alone", label, "ELBO against seconds"
        )
    of_runs = {group.label: [evaluations[folder] for folder in folders(group, comparison)] for group in groups}
    planes = {name: (values_of(runs, "kl"), -values_of(runs, "reconstruction")) for name, runs in of_runs.items()}
    planes = {name: plane for name, plane in planes.items() if np.isfinite(plane).all()}
    if planes:
        made["rate_distortion"] = partial(figures.rate_distortion, planes, "Rate and distortion, test images")
    spectra = {name: values_of(runs, "kl_per_dimension") for name, runs in of_runs.items()}
    spectra = {name: values for name, values in spectra.items() if np.isfinite(values).all()}
    if spectra:
        made["kl_spectra"] = partial(figures.kl_spectra, spectra, "KL of each latent dimension")
    return made


def values_of(summaries: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """The values of each seed; NaN for those that do not exist or are not finite."""
    return np.array([summary[name] for summary in summaries], float)


def folders(group: RunGroup, comparison: dict[str, Any]) -> list[Path]:
    return [group.folders[seed] for seed in comparison["seeds"]]


def held_out_split(folder: Path) -> str:
    """Validation, or test of a run that held out nothing else."""
    return "validation" if any(row["split"] == "validation" for row in read_metrics(folder)) else "test"


def elbo_curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the ELBO of the split that was held out in training; empty if it was not logged."""
    rows, split = read_metrics(folder), held_out_split(folder)
    kept = [row for row in rows if row["split"] == split and None not in (row.get("kl"), row.get("reconstruction"))]
    values = [row["reconstruction"] - row["kl"] for row in kept]
    return np.array([row["step"] for row in kept], float), np.array(values, float)


def of_models(groups: Sequence[RunGroup], images: Callable[[Path], tuple]) -> dict[str, Callable[[], Any]]:
    """What draws reconstructions of the same images and samples from the same key, a row for each objective, of the
    first seed."""
    key_samples, key_reconstructions = jax.random.split(jax.random.key(0))
    first = {group.label: next(iter(group.folders.values())) for group in groups}
    loaded = functools.cache(load_run)

    def reconstructions():
        data, index = images(next(iter(first.values())))
        chosen = np.linspace(0, len(data.images) - 1, NUM_RECONSTRUCTED).astype(int)
        name = original(groups[0].config.settings)
        rows = {f"{name}, #{index[chosen[0]]} to #{index[chosen[-1]]}": unit(data.images[chosen])}
        for name, folder in first.items():
            run = loaded(folder)
            labels = data.labels[chosen] if run.settings.num_classes else None
            key = jax.random.clone(key_reconstructions)
            rows[name], _ = generation.reconstructions(key, run.params, data.images[chosen], run.model, labels)
        return figures.side_by_side(rows, "Reconstructions of the same test images")

    def samples():
        rows = {}
        for name, folder in first.items():
            run = loaded(folder)
            classes = sorted_classes(run.settings.num_classes, NUM_SAMPLED)
            key = jax.random.clone(key_samples)
            rows[name] = generation.samples(key, run.params, run.model, NUM_SAMPLED, classes)
        return figures.side_by_side(rows, "Samples from the same draws of the prior")

    return {"reconstructions": reconstructions, "samples": samples}
