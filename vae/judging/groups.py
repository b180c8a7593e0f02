"""The runs of a comparison, by objective and seed, and whether they can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae.evaluation import comparison
from vae.models.table import LIKELIHOODS, MASSES
from vae.runs.config import Config, read_config
from vae.runs.metrics import read_metrics
from vae.runs.standing import standing
from vae.training.record import FAILURE

# An objective of which one run is not finite is not compared at all. Without that seed alone, its mean would be over
# the runs that went well, and nobody who trains it can choose those: survivorship. Without that seed of all objectives,
# the same, and one objective would decide what is said of the others, whose comparison stands on all seeds as it is.
WHOLE = "it is out with all its seeds, since a mean over those that went well would flatter it"

SAME_MASSES = "masses of the 256 values"


class ComparisonError(ValueError):
    """Runs that cannot be compared; one line for the user."""


class RunGroup(NamedTuple):
    """The runs of one objective, by seed; they differ in nothing else."""

    label: str
    config: Config  # of the first seed
    folders: dict[int, Path]


def group(
    folders: Sequence[Path], labels: Callable[[Sequence[Config]], Sequence[str]]
) -> tuple[list[RunGroup], list[str]]:
    """The runs in `folders`, grouped by all but their seeds, and a line for each group with a run that diverged.

    Those are left out (see WHOLE). `labels` names the groups. Raises RunError or ComparisonError if a run is no use.
    """
    found: dict[Config, dict[int, Path]] = {}
    diverged: dict[Config, list[Path]] = {}
    for folder in folders:
        config = read_config(folder)
        of_all_seeds = dataclasses.replace(config, seed=0)
        if (folder / FAILURE).exists():
            diverged.setdefault(of_all_seeds, []).append(folder)
        elif not (stands := standing(folder, config, read_metrics(folder))).finished:
            raise ComparisonError(
                f"{folder} is not finished: it is at epoch {stands.epoch:g} of {config.epochs}; resume it with "
                f"experiments.train `workdir={folder}`, or leave it out"
            )
        by_seed = found.setdefault(of_all_seeds, {})
        if config.seed in by_seed:
            raise ComparisonError(
                f"{by_seed[config.seed]} and {folder} are the same run: all settings and the seed {config.seed} "
                "agree; leave one of them out"
            )
        by_seed[config.seed] = folder
    named = dict(zip(found, labels(list(found)), strict=True))
    groups = [
        RunGroup(named[config], config, dict(sorted(by_seed.items())))
        for config, by_seed in found.items()
        if config not in diverged
    ]
    return groups, [
        f"{named[config]} diverged ({', '.join(map(str, bad))}); {WHOLE}" for config, bad in diverged.items()
    ]


def check_comparable(groups: Sequence[RunGroup]) -> None:
    """Raises ComparisonError if two runs cannot be evaluated alike, by what their configs say."""
    refuse_others([(str(folder), about(one.config)) for one in groups for folder in one.folders.values()])


def refuse_others(fields: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raises ComparisonError that names the first run that differs from the first of all, and the difference."""
    first, expected = fields[0]
    for name, one in fields[1:]:
        if difference := comparison.incomparable(expected, one):
            raise ComparisonError(f"{first} and {name} cannot be compared: {difference}")


def common_seeds(groups: Sequence[RunGroup]) -> list[int]:
    """The seeds of all groups; raises ComparisonError if there is none."""
    seeds = comparison.common_seeds([list(one.folders) for one in groups])
    if not seeds:
        listed = "; ".join(f"{one.label}: {', '.join(map(str, one.folders))}" for one in groups)
        raise ComparisonError(f"the objectives have no seed in common, and runs are paired by their seeds ({listed})")
    return seeds


def about(config: Config) -> dict[str, Any]:
    """What of a run's config makes its evaluation comparable."""
    settings = config.settings
    return {
        "dataset": config.dataset,
        "image_size": config.image_size,
        "image_shape": list(settings.image_shape),
        "binarization": "fixed" if settings.binarization == "dynamic" else settings.binarization,
        # Masses of the same values are probabilities of the same images, whatever family they are of.
        "likelihood": SAME_MASSES if LIKELIHOODS[settings.likelihood].of == MASSES else settings.likelihood,
        "num_classes": settings.num_classes,
    }
