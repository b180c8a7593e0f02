"""What comparison.json holds of the numbers: the objectives from the best on, and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae.evaluation import comparison
from vae.evaluation.summary import EvaluationSettings
from vae.judging.evaluations import RunEvaluation
from vae.judging.groups import RunGroup, about
from vae.report.words import counted
from vae.runs.files import finite_or_null

MEANS = ("elbo", "reconstruction", "kl", "active_units", "kl_per_dimension")  # over seeds
SHOWN = ("network", "hidden_sizes", "channels", "activation", "latent_dim", "likelihood", "binarization",
         "batch_size", "num_samples", "learning_rate", "schedule", "precision", "epochs", "validation")  # fmt: skip


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
            "log_likelihood": float(found.mean[position]),
            "log_likelihood_se": float(found.standard_error[position]),
            **_of_seeds([one.summary for one in of_groups[position]]),
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
    return {
        "title": f"{counted([group.config.settings.objective for group in groups])} on "
        f"{Path(groups[0].config.dataset).stem}",
        "conclusion": comparison.conclusion(labels, pairs, len(seeds)),
        "evaluation": evaluation | {"images_sha256": of_groups[0][0].summary["images_sha256"]},
        "level": comparison.LEVEL,
        "seeds": list(seeds),
        "objectives": finite_or_null(entries),
        "pairs": pairs,
        "settings": common_settings(groups),
    }


def _of_seeds(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # None, which is not finite or does not exist, becomes NaN here and null in the file.
    means = {key: np.mean(np.array([one[key] for one in summaries], float), axis=0).tolist() for key in MEANS}
    return {"log_likelihood_by_seed": [one["log_likelihood"] for one in summaries]} | means


def _without_seed(group: RunGroup) -> dict[str, Any]:
    return {name: value for name, value in group.config.flat().items() if name != "seed"}


def common_settings(groups: Sequence[RunGroup]) -> dict[str, Any]:
    """The settings in which all groups agree and that are not what they would be anyway."""
    values = [_without_seed(group) for group in groups]
    return {
        name: ",".join(map(str, values[0][name])) if isinstance(values[0][name], list | tuple) else values[0][name]
        for name in SHOWN
        if len({str(one[name]) for one in values}) == 1 and values[0][name] not in (None, ())
    }
