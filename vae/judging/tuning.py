"""What is compared: of each objective the tuned point that is best on validation images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae.evaluation.summary import mean_and_error
from vae.judging.evaluations import RunEvaluation, evaluate_groups
from vae.judging.groups import WHOLE, RunGroup
from vae.runs import naming
from vae.sweeps.comparing import ComparisonPlan, Places, shown
from vae.training.record import FAILURE

NUM_SAMPLES = 100  # k of the validation images, among which a learning rate is chosen


class ComparedRuns(NamedTuple):
    """The groups of runs that are compared, the seconds a step of each, and how they came about."""

    groups: list[RunGroup]
    paces: list[float]
    tried: list[dict[str, Any]]  # each point, if something was tuned
    left_out: list[str]  # why, in a line each


def choose(
    plan: ComparisonPlan,
    places: Places,
    evaluate: Callable[[Path], RunEvaluation],
    report: Callable[[str], None] = lambda line: None,
) -> ComparedRuns:
    """The point of each variant with the highest log-likelihood of validation images, mean over seeds.

    One at which a seed diverged or is not finite is out (see WHOLE). `evaluate(folder)` is on validation images.
    """
    is_tuned = len(plan.candidates) > len(plan.labels)
    best: dict[int, tuple[float, int]] = {}
    tried, left_out = [], []
    for position, (candidate, by_seed) in enumerate(zip(plan.candidates, places, strict=True)):
        label, point = plan.labels[candidate.variant], shown(candidate.point)
        words = " ".join([label, *(f"{name}={naming.text(value)}" for name, value in candidate.point.items())])
        score = error = None
        if failed := [str(seed) for seed, folder in by_seed.items() if (folder / FAILURE).exists()]:
            left_out.append(f"{words} diverged (seed {', '.join(failed)}); {WHOLE}")
        elif is_tuned:
            report(f"validation: {label}, {point}")
            group = RunGroup(words, candidate.config, by_seed)
            _, found, unusable = evaluate_groups([group], list(by_seed), evaluate, report)
            left_out += unusable
            if found:
                score, error = mean_and_error(np.array([one.summary["log_likelihood"] for one in found.values()]))
        usable = not failed and (score is not None or not is_tuned)
        if usable and (score or 0.0) > best.get(candidate.variant, (-math.inf, 0))[0]:
            best[candidate.variant] = score or 0.0, position
        tried.append({"label": label, "point": point, "log_likelihood": score, "log_likelihood_se": error})
    chosen = sorted(position for _, position in best.values())
    groups = [
        RunGroup(plan.labels[one.variant], one.config, places[position])
        for position in chosen
        for one in [plan.candidates[position]]
    ]
    tried = [one | {"chosen": position in chosen} for position, one in enumerate(tried)] if is_tuned else []
    return ComparedRuns(groups, [plan.paces[position] for position in chosen], tried, left_out)
