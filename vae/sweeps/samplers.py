"""What a search draws its trials with, and what ends them early: Optuna's samplers and pruners, seeded."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from vae.runs.files import RunError

# What the pickled state of CMA-ES is made of; numpy before 2 called its package numpy.core.
PICKLED = {("cmaes._cma", "CMA"), ("numpy", "dtype"), ("numpy", "ndarray")} | {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "scalar"), ("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
}
Space = dict[str, BaseDistribution]
TOLD = (TrialState.COMPLETE, TrialState.PRUNED)


class Spec(NamedTuple):
    """What is searched, and how."""

    space: Space
    sampler: str
    pruner: str
    metric: str  # bound: of the objective; elbo: reconstruction − KL
    population: int  # trials in a round
    epochs: int
    seeds: tuple[int, ...]  # of the sampler


def sampler(spec: Spec, number: int) -> optuna.samplers.BaseSampler:
    """TPE (Bergstra et al. 2011), CMA-ES (Hansen 2016) or uniform draws, for the round that begins with trial `number`.

    A generation of CMA-ES is a population, pruned runs included with their last value; each bracket of Hyperband is
    searched by itself, in Optuna's smaller generations.
    """
    seed = int(np.random.SeedSequence((*spec.seeds, number)).generate_state(1)[0])
    if spec.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    size = None if spec.pruner == "hyperband" else max(4, spec.population)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return CmaEs(seed=seed, popsize=size, consider_pruned_trials=True, warn_independent_sampling=False)


class CmaEs(optuna.samplers.CmaEsSampler):
    """Keeps its state in the study as Optuna's own does; a state that holds anything but numbers is not read."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        key = self._attr_key_optimizer
        for trial in reversed(completed_trials):
            if parts := {name: text for name, text in trial.system_attrs.items() if name.startswith(key)}:
                try:
                    state = _Numbers(io.BytesIO(bytes.fromhex(self._concat_optimizer_attrs(parts)))).load()
                    if type(state).__name__ != "CMA":
                        raise ValueError(f"it is a {type(state).__name__}")
                    return state
                except Exception as error:  # a pickle may raise any
                    reason = " ".join(str(error).split())[:200]
                    raise RunError(
                        f"what the study keeps of CMA-ES in its trial {trial.number} cannot be read ({reason}); use "
                        "another `study`, or `search=tpe`"
                    ) from error
        return None


class _Numbers(pickle.Unpickler):
    """Loads the state of CMA-ES: a pickle of other classes could run anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PICKLED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def pruner(kind: str, epochs: int) -> BasePruner:
    """The median rule (Golovin et al. 2017) after a tenth of the epochs, Hyperband (Li et al. 2018), or none."""
    if kind == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=epochs // 10)
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def draw(
    study_name: str,
    before: Sequence[FrozenTrial],
    drawn_by: optuna.samplers.BaseSampler,
    pruner: BasePruner,
    space: Space,
    count: int,
) -> list[FrozenTrial]:
    """The next `count` trials of a study that has the trials `before`; RunError if one of these is damaged.

    They are drawn in memory: a process that is killed meanwhile leaves no half of a trial, and draws the same again.
    """
    study = optuna.create_study(study_name=study_name, direction="maximize", sampler=drawn_by, pruner=pruner)
    # Samplers learn from what was told. The others keep their numbers, of which Hyperband makes its brackets.
    untold = create_trial(state=TrialState.FAIL)
    for trial in before:
        try:
            study.add_trial(trial if trial.state in TOLD else untold)
        except (ValueError, TypeError) as error:
            raise RunError(f"trial {trial.number} of the study {study_name} is damaged; use another `study`") from error
    for _ in range(count):
        study.ask(space)
    return study.trials[len(before) :]
