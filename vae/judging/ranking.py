"""What comparison.json holds of the numbers: the objectives from the best on, and their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae.evaluation import comparison
from vae.evaluation.summary import EvaluationSettings
from vae.judging.differing import parted
from vae.judging.evaluations import RunEvaluation
from vae.judging.groups import RunGroup, about
from vae.report.words import counted
from vae.runs.files import finite_or_null

# Of a run: a number, of which the comparison has the mean over seeds, its standard error and the value of each seed.
NUMBERS = ("log_likelihood", "log_likelihood_psis", "elbo", "reconstruction", "kl", "active_units",
           "effective_sample_size", "pareto_k_above_threshold", "bits_per_dimension")  # fmt: skip


def ranked(
    groups: Sequence[RunGroup], seeds: Sequence[int], evaluations: Mapping[Path, RunEvaluation]
) -> list[RunGroup]:
    """`groups` from the highest log-likelihood on, mean over `seeds`."""

    def total(group):
        return sum(evaluations[group.folders[seed]].summary["log_likelihood"] for seed in seeds)

    return sorted(groups, key=total, reverse=True)


def assemble(
    groups: Sequence[RunGroup],
    paces: Sequence[float],
    seeds: Sequence[int],
    evaluations: Mapping[Path, RunEvaluation],
    chosen: EvaluationSettings,
) -> dict[str, Any]:
    """The numbers of comparison.json; `groups` are best first, and `paces` are seconds a step of each."""
    labels = [group.label for group in groups]
    of_groups = [[evaluations[group.folders[seed]] for seed in seeds] for group in groups]
    scores = np.stack([[one.log_likelihood for one in of_group] for of_group in of_groups])
    found = comparison.compare(scores)
    pairs = finite_or_null(comparison.rows(found, labels))
    entries = [
        {
            "label": group.label,
            "runs": [str(group.folders[seed]) for seed in seeds],
            **_of_seeds([one.summary for one in of_groups[position]]),
            "log_likelihood": float(found.mean[position]),
            "log_likelihood_se": float(found.standard_error[position]),
            "latent_dim": group.config.settings.latent_dim,
            "epochs": group.config.epochs,
            "steps": of_groups[position][0].summary["checkpoint"],
            "decoder_samples_per_image": group.config.settings.num_samples * group.config.settings.num_groups,
            "seconds_per_step": pace,
            "settings": _without_seed(group),
        }
        for position, (group, pace) in enumerate(zip(groups, paces, strict=True))
    ]
    evaluation = about(groups[0].config) | chosen._asdict() | {"num_examples": len(scores[0, 0])}
    shared, differing = parted([one["settings"] for one in entries])
    return {
        "title": f"{counted([group.config.settings.objective for group in groups])} on "
        f"{Path(groups[0].config.dataset).stem}",
        "conclusion": comparison.conclusion(labels, pairs, len(seeds)),
        "evaluation": evaluation
        | {name: of_groups[0][0].summary.get(name) for name in ("images_sha256", "pareto_k_threshold")},
        "level": comparison.LEVEL,
        "seeds": list(seeds),
        "objectives": finite_or_null(entries),
        "pairs": pairs,
        "settings": shared,
        "differing": differing,
    }


def _of_seeds(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """NUMBERS: `<name>` is the mean over seeds, `<name>_se` its standard error, `<name>_by_seed` the values."""
    found: dict[str, Any] = {}
    for name in NUMBERS:
        by_seed = [summary.get(name) for summary in summaries]
        # None, which is not finite or does not exist, becomes NaN here and null in the file.
        values = np.array(by_seed, float)
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        found |= {name: float(values.mean()), f"{name}_se": float(error), f"{name}_by_seed": by_seed}
    spectra = np.array([summary["kl_per_dimension"] for summary in summaries], float)
    return found | {"kl_per_dimension": spectra.mean(0).tolist()}


def _without_seed(group: RunGroup) -> dict[str, Any]:
    return {name: value for name, value in group.config.flat().items() if name != "seed"}
