"""The runs of a comparison: how long each is trained, where each is, and which are still to be trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae import durable, objectives
from vae.datasets.dataset import Dataset
from vae.runs import fingerprint, naming
from vae.runs.config import Config, changed_settings, provenance, write_config
from vae.runs.files import RunError, write_json
from vae.runs.folder import CONFIG
from vae.runs.metrics import read_metrics
from vae.runs.standing import standing
from vae.sweeps import folders, planning
from vae.sweeps.sweep_file import SWEEP, read_sweep
from vae.training import record, resuming


class Candidate(NamedTuple):
    """A variant at one point of what is tuned: its Config (seed 0), and every flag it would be trained alone with."""

    variant: int
    point: dict[str, Any]
    config: Config
    flags: dict[str, Any]


class ComparisonPlan(NamedTuple):
    """What is trained: each candidate, with its seconds a step, of a variant with a label and settings of its own."""

    labels: list[str]
    given: list[dict[str, Any]]  # of each variant, as --objectives says
    candidates: list[Candidate]
    paces: list[float]

    @property
    def configs(self) -> list[Config]:
        """The first one of each variant."""
        first = {one.variant: one.config for one in reversed(self.candidates)}
        return [first[number] for number in range(len(self.labels))]

    def folder_name(self, candidate: Candidate, seed: int) -> str:
        values = {**self.given[candidate.variant], **candidate.point}
        return naming.folder_name(values.pop("objective"), values | {"seed": seed})


class ComparedRun(NamedTuple):
    """A run of a comparison, and what tells it from the others."""

    config: Config
    values: dict[str, Any]
    flags: dict[str, Any]  # of experiments.train


Places = list[dict[int, Path]]  # the run folders of each candidate of a plan, by seed


def epochs_within(budget: str, configs: Sequence[Config], num_images: int, paces: Sequence[float]) -> list[int]:
    """Epochs of each run: its own for the one whose epoch costs most, for the others as many as cost the same.

    An epoch costs its steps, its decoded samples (K·M for each image, and the estimator's own) or its seconds, by
    `paces` in seconds a step.
    """

    def cost(config, pace):
        settings = config.settings
        steps = num_images // settings.batch_size
        if budget == "seconds":
            return steps * pace
        samples = objectives.num_drawn(settings)
        return steps * (settings.batch_size * samples if budget == "decoder_samples" else 1)

    costs = [cost(config, pace) for config, pace in zip(configs, paces, strict=True)]
    return [int(config.epochs * max(costs) / one + 1e-9) for config, one in zip(configs, costs, strict=True)]


def place(plan: ComparisonPlan, workdir: Path, dataset: Dataset, num_seeds: int, *, recorded: bool) -> Places:
    """Where each run is, or will be: the folder whose config.json is that of the run, else one named after it.

    Earlier code gave other names, and may have given one to two runs: a folder is known by what is in it. Raises
    RunError as folders.check, and if two runs would share a folder.
    """
    stored = {name: _as_made(config) for name, config in folders.configs(workdir).items()}
    named = {config: name for name, config in stored.items()}
    wanted: dict[str, Config] = {}
    found: Places = []
    for candidate in plan.candidates:
        found.append({})
        for seed in range(num_seeds):
            config = dataclasses.replace(candidate.config, seed=seed)
            name = plan.folder_name(candidate, seed)
            if stored.get(name) != _as_made(config):
                name = named.get(_as_made(config), name)
            # Some file systems do not tell capitals from small letters.
            if clash := [other for other in wanted if other.casefold() == name.casefold()]:
                differing = "; ".join(changed_settings(wanted[clash[0]], config))
                raise RunError(f"two runs would share the folder {name}: {differing}; compare them one by one")
            wanted[name] = config
            found[-1][seed] = workdir / planning.RUNS / name
    folders.check(workdir, wanted, lambda config: dataset, recorded=recorded)
    return found


def _as_made(config: Config) -> Config:
    """Of any length, and with its images anywhere: those of all runs of a comparison are the same."""
    return dataclasses.replace(config, epochs=0, dataset="")


def runs_of(plan: ComparisonPlan, places: Places) -> dict[str, ComparedRun]:
    """Every run of the plan, by the name of its folder."""
    return {
        folder.name: ComparedRun(
            dataclasses.replace(candidate.config, seed=seed),
            {"objective": plan.labels[candidate.variant], **shown(candidate.point), "seed": seed},
            candidate.flags | {"seed": seed},
        )
        for candidate, by_seed in zip(plan.candidates, places, strict=True)
        for seed, folder in by_seed.items()
    }


def shown(point: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a point, each list of them as one text."""
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in point.items()}


class Part(NamedTuple):
    """Runs of a comparison that are trained together, as one sweep."""

    runs: dict[str, ComparedRun]
    begun: bool  # sweep.json names them
    done: bool  # all of them were trained to their end, or diverged


def parts(workdir: Path, runs: Mapping[str, ComparedRun], load: folders.Load) -> list[Part]:
    """The sweeps that `runs` are trained as: the one that `workdir` holds, then runs that were asked for later.

    Raises RunError if sweep.json names a run that is not among `runs`, or a folder holds another run.
    """
    started = list(read_sweep(workdir)["runs"]) if (workdir / SWEEP).exists() else []
    if lost := [name for name in started if name not in runs]:
        raise RunError(
            f"{workdir / SWEEP} names the run {lost[0]}, whose {CONFIG} is lost or is that of another run; put "
            "it back, or choose another `workdir`"
        )
    ended = {}
    for name, one in runs.items():
        folder = workdir / planning.RUNS / name
        resuming.check(folder, one.config, load(one.config))
        ended[name] = _is_done(folder, one.config)
    later = [name for name in runs if name not in started and not ended[name]]
    return [
        Part({name: runs[name] for name in names}, begun, all(ended[name] for name in names))
        for names, begun in ((started, True), (later, False))
        if names
    ]


def _is_done(folder: Path, config: Config) -> bool:
    """Whether a run was trained to its end, or diverged."""
    return (folder / record.FAILURE).exists() or standing(folder, config, read_metrics(folder)).finished


def begin(
    workdir: Path, runs: Mapping[str, ComparedRun], load: folders.Load, devices: Sequence[Any], argv: Sequence[str]
) -> None:
    """Write the config.json of every run, with the command `argv` and the data that `load` gives, and sweep.json."""
    about = {"argv": list(argv), "devices": list(map(str, devices))}
    datasets = {id(dataset): dataset for one in runs.values() if (dataset := load(one.config))}
    data = {key: fingerprint.of(dataset) for key, dataset in datasets.items()}
    for name, one in runs.items():
        folder = workdir / planning.RUNS / name
        durable.make_folder(folder)
        write_config(folder, one.config, flags=one.flags, data=data[id(load(one.config))], **about)
    # Last: what sweep.json names is there.
    write_json(workdir / SWEEP, {"runs": {name: one.values for name, one in runs.items()}} | provenance())
