"""Runs before the one yardstick: their evaluations, read or made, and refused where they cannot be compared."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import evaluate
from experiments.flags import options
from experiments.flags.parsing import UsageError
from experiments.flags.variants import flat, labels
from vae import datasets
from vae.api import load_run
from vae.datasets import npz
from vae.evaluation import comparison
from vae.report.words import counted
from vae.runs.checkpoint import CheckpointError, choose
from vae.runs.config import Config, read_config
from vae.runs.files import RunError, finite_or_null, write_arrays, write_json
from vae.runs.folder import EVALUATION
from vae.runs.metrics import read_evaluation, read_metrics
from vae.training.record import FAILURE

FLAGS = options.FLAGS
NUM_SAMPLES, SEED = 5000, 0  # where neither flags nor earlier evaluations say otherwise
TUNING_SAMPLES = 100  # k of the validation images, among which a learning rate is chosen


class Group(NamedTuple):
    """The runs of one objective, by seed; they differ in nothing else."""

    label: str
    config: Config  # of the first seed
    folders: dict[int, Path]


class Yardstick(NamedTuple):
    split: str
    num_samples: int
    seed: int
    num_examples: int | None  # None: all


class Judged(NamedTuple):
    """What an evaluation says of a run: its means, and the log-likelihood of each image [N]."""

    summary: dict[str, Any]
    log_likelihood: np.ndarray


# An objective of which one run is not finite is not compared at all. Without that seed alone, its mean would be over
# the runs that went well, and nobody who trains it can choose those: survivorship. Without that seed of all objectives,
# the same, and one objective would decide what is said of the others, whose comparison stands on all seeds as it is.
WHOLE = "it is out with all its seeds, since a mean over those that went well would flatter it"


class Stopped(Exception):
    """An evaluation that was asked to end early."""


def group(folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """The runs in `folders`, grouped by all but their seeds, and a line for each group with a run that diverged.

    Those are left out (see WHOLE). Raises RunError or UsageError where a run is no use.
    """
    found: dict[Config, dict[int, Path]] = {}
    diverged: dict[Config, list[Path]] = {}
    for folder in folders:
        config = read_config(folder)
        of_all_seeds = dataclasses.replace(config, seed=0)
        rows = read_metrics(folder)
        epoch = rows[-1]["epoch"] if rows else 0.0
        if (folder / FAILURE).exists():
            diverged.setdefault(of_all_seeds, []).append(folder)
        elif epoch < config.epochs:
            raise UsageError(
                f"{folder} is not finished: it is at epoch {epoch:g} of {config.epochs}; go on with experiments.train "
                f"--workdir={folder}, or leave it out"
            )
        by_seed = found.setdefault(of_all_seeds, {})
        if config.seed in by_seed:
            raise UsageError(
                f"{by_seed[config.seed]} and {folder} are the same run: all settings and the seed {config.seed} "
                "agree; leave one of them out"
            )
        by_seed[config.seed] = folder
    named = dict(zip(found, labels(list(found)), strict=True))
    groups = [
        Group(named[config], config, dict(sorted(by_seed.items())))
        for config, by_seed in found.items()
        if config not in diverged
    ]
    return groups, [
        f"{named[config]} diverged ({', '.join(map(str, bad))}); {WHOLE}" for config, bad in diverged.items()
    ]


def check_comparable(groups: Sequence[Group]) -> None:
    """Raises UsageError where two runs cannot be judged alike, by what their configs say."""
    fields = [(folder, about(g.config)) for g in groups for folder in g.folders.values()]
    refuse_others(fields)


def common_seeds(groups: Sequence[Group]) -> list[int]:
    """The seeds of all groups; raises UsageError where there is none."""
    seeds = comparison.common_seeds([list(group.folders) for group in groups])
    if not seeds:
        listed = "; ".join(f"{group.label}: {', '.join(map(str, group.folders))}" for group in groups)
        raise UsageError(f"the objectives have no seed in common, and runs are paired by their seeds ({listed})")
    return seeds


def about(config: Config) -> dict[str, Any]:
    """What of a run's config makes its evaluation comparable."""
    settings = config.settings
    return {
        "dataset": config.dataset,
        "image_size": config.image_size,
        "image_shape": list(settings.image_shape),
        "binarization": "fixed" if settings.binarization == "dynamic" else settings.binarization,
        "likelihood": settings.likelihood,
        "num_classes": settings.num_classes,
    }


def refuse_others(fields: Sequence[tuple[Path, dict[str, Any]]]) -> None:
    """Raises UsageError that names the first run that differs from the first of all, and the difference."""
    first, expected = fields[0]
    for folder, one in fields[1:]:
        if difference := comparison.incomparable(expected, one):
            raise UsageError(f"{first} and {folder} cannot be compared: {difference}")


def yardstick(groups: Sequence[Group], asked: dict[str, Any]) -> Yardstick:
    """The one for all runs: as the flags say, else as those evaluated already were; UsageError where they disagree."""
    num_examples = asked["num_examples"]
    every = [folder for group in groups for folder in group.folders.values()]
    stored = [(folder, found[0]) for folder in every if (found := stored_evaluation(folder, "test", num_examples))]
    values = {"num_samples": NUM_SAMPLES, "seed": SEED}
    if stored:
        refuse_others([(folder, {key: summary[key] for key in values}) for folder, summary in stored])
        folder, summary = stored[0]
        values = {key: summary[key] for key in values}
    for key, flag in (("num_samples", "evaluation_samples"), ("seed", "evaluation_seed")):
        if asked[flag] is not None and stored and asked[flag] != values[key]:
            raise UsageError(
                f"{folder} was evaluated with {key} {values[key]}, not --{flag}={asked[flag]}; leave the flag out, or "
                "evaluate that run again with experiments.evaluate"
            )
        if asked[flag] is not None:
            values[key] = asked[flag]
    return Yardstick("test", values["num_samples"], values["seed"], num_examples)


def stored_evaluation(folder: Path, split: str, num_examples: int | None) -> tuple[dict[str, Any], Path] | None:
    """The evaluation of a run that exists, and its path."""
    if num_examples is None and split == "test":
        path = folder / EVALUATION
    else:
        paths = sorted(folder.glob(f"evaluation_{split}_{num_examples or '*'}.json"))
        path = paths[0] if paths else folder / "none"
    if not path.exists():
        return None
    from vae.evaluation import importance as evaluation

    return evaluation.upgrade(read_evaluation(path)), path


def judged(folder: Path, wanted: Yardstick, images: Callable[[Path], tuple], devices, should_stop) -> Judged:
    """The evaluation of a run at its last checkpoint, made where there is none that keeps the values of each image.

    `images(folder)` gives the images of the split and their positions. Raises Stopped when `should_stop()`.
    """
    checkpoint = choose(folder)
    found = stored_evaluation(folder, wanted.split, wanted.num_examples)
    if found is not None:
        summary, path = found
        arrays = path.with_suffix(".npz")
        same = summary["checkpoint"], summary["num_samples"], summary["seed"]
        values = _of_each_image(arrays) if same == (checkpoint, wanted.num_samples, wanted.seed) else None
        # A process killed between the two files leaves those of different evaluations. What is not finite is null.
        mean = np.nan if values is None else values.mean()
        stored = np.nan if summary["log_likelihood"] is None else summary["log_likelihood"]
        if values is not None and (np.isclose(mean, stored, rtol=1e-12) or not np.isfinite([mean, stored]).any()):
            return Judged(summary, values)
    from tqdm import tqdm

    loaded = load_run(folder)
    data, index = images(folder)
    with tqdm(total=len(data.images), unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_progress(done):
            bar.update(done - bar.n)
            if should_stop():
                raise Stopped

        result, summary = evaluate.judge(
            folder, loaded, data, index, split=wanted.split, checkpoint="last", num_samples=wanted.num_samples,
            seed=wanted.seed, devices=devices, on_progress=on_progress,
        )  # fmt: skip
    path = folder / evaluate.file_name(wanted.split, wanted.num_examples, len(data.images))
    arrays = evaluate.by_image(result)
    write_arrays(path.with_suffix(".npz"), arrays)
    write_json(path, summary)
    return Judged(summary, arrays["log_likelihood"])


def _of_each_image(path: Path) -> np.ndarray | None:
    """The log-likelihood of each image [N]; None if the file is absent or damaged: then the run is evaluated again."""
    try:
        return npz.read(path, {"log_likelihood"}).get("log_likelihood") if path.exists() else None
    except datasets.DataError:
        return None


def judge_all(
    groups: Sequence[Group], seeds: Sequence[int], judge: Callable[[Path], Judged]
) -> tuple[list[Group], dict[Path, Judged], list[str]]:
    """The groups that can be compared on `seeds`, their evaluations, and a line for each group that is left out.

    Out, whole (see WHOLE), is one with a run whose log-likelihood is not finite in some image, or that cannot be
    judged. `judge` may raise Stopped.
    """
    kept, evaluations, left_out = [], {}, []
    for group in groups:
        print(f"evaluating: {group.label}, seed {', '.join(map(str, seeds))}")
        of_group: dict[Path, Judged] = {}
        try:
            for folder in (group.folders[seed] for seed in seeds):
                of_group[folder] = judge(folder)
                refuse_not_finite(folder, of_group[folder])
        except (NotFinite, RunError, CheckpointError) as error:
            left_out.append(f"{group.label}: {error}; {WHOLE}")
            continue
        kept.append(group)
        evaluations |= of_group
    return kept, evaluations, left_out


class NotFinite(ValueError):
    """An evaluation that is not a finite number in every image; one line for the user."""


def refuse_not_finite(folder: Path, one: Judged) -> None:
    """Raises NotFinite."""
    if bad := int((~np.isfinite(one.log_likelihood)).sum()):
        raise NotFinite(
            f"the log-likelihood of {folder} is not finite in {bad} of {len(one.log_likelihood)} "
            f"{one.summary['split']} images"
        )


def images_of(split: str, num_examples: int | None) -> Callable[[Path], tuple[datasets.Split, Any]]:
    """Loads the images that a run is judged by, those of runs on the same data once."""
    loaded: dict[Any, Any] = {}

    def load(folder):
        config = read_config(folder)
        key = config.dataset, config.validation, config.image_size, config.settings.binarization
        if key not in loaded:
            loaded[key] = options.evaluated_split(folder, split, num_examples)
        return loaded[key]

    return load


def common_settings(groups: Sequence[Group]) -> dict[str, Any]:
    """The settings in which all groups agree and that are not what they would be anyway."""
    values = [flat(group.config) for group in groups]
    shown = ("network", "hidden_sizes", "channels", "activation", "latent_dim", "likelihood", "binarization",
             "batch_size", "num_samples", "learning_rate", "schedule", "precision", "epochs", "validation")  # fmt: skip
    return {
        name: ",".join(map(str, values[0][name])) if isinstance(values[0][name], list | tuple) else values[0][name]
        for name in shown
        if len({str(one[name]) for one in values}) == 1 and values[0][name] not in (None, ())
    }


def assemble(
    groups: Sequence[Group], paces: Sequence[float], seeds: Sequence[int], judged: dict[Path, Judged], wanted: Yardstick
) -> dict[str, Any]:
    """What comparison.json holds of the numbers; `groups` are best first."""
    labels = [group.label for group in groups]
    scores = np.stack([[judged[group.folders[seed]].log_likelihood for seed in seeds] for group in groups])
    found = comparison.compare(scores)
    pairs = finite_or_null(comparison.rows(found, labels))
    entries = []
    for position, (group, pace) in enumerate(zip(groups, paces, strict=True)):
        summaries = [judged[group.folders[seed]].summary for seed in seeds]
        config = group.config

        def mean(key, summaries=summaries):
            # None, which is not finite or does not exist, becomes NaN here and null in the file.
            return np.mean(np.array([summary[key] for summary in summaries], float), axis=0).tolist()

        entries.append(
            {
                "label": group.label,
                "runs": [str(group.folders[seed]) for seed in seeds],
                "log_likelihood": float(found.mean[position]),
                "log_likelihood_se": float(found.standard_error[position]),
                "log_likelihood_by_seed": [summary["log_likelihood"] for summary in summaries],
                **{key: mean(key) for key in ("elbo", "reconstruction", "kl", "active_units", "kl_per_dimension")},
                "latent_dim": config.settings.latent_dim,
                "epochs": config.epochs,
                "steps": summaries[0]["checkpoint"],
                "decoder_samples_per_image": config.settings.num_samples * config.settings.num_groups,
                "seconds_per_step": pace,
                "settings": flat(config),
            }
        )
    first = judged[groups[0].folders[seeds[0]]].summary
    return {
        "title": f"{counted([group.config.settings.objective for group in groups])} on "
        f"{Path(groups[0].config.dataset).stem}",
        "conclusion": comparison.conclusion(labels, pairs, len(seeds)),
        "yardstick": about(groups[0].config) | wanted._asdict() | {"num_examples": len(scores[0, 0])}
        | {"images_sha256": first["images_sha256"]},
        "level": comparison.LEVEL,
        "seeds": list(seeds),
        "objectives": finite_or_null(entries),
        "pairs": pairs,
        "settings": common_settings(groups),
    }  # fmt: skip
