"""The evaluations of run folders: read or made, alike for all runs, and refused if they are not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae.api import load_run
from vae.datasets import npz
from vae.datasets.dataset import DataError, Split
from vae.evaluation import importance, summary
from vae.evaluation.summary import EvaluationSettings
from vae.judging.groups import WHOLE, ComparisonError, RunGroup, refuse_others
from vae.runs.checkpoint import CheckpointError, choose
from vae.runs.files import RunError, write_arrays, write_json
from vae.runs.folder import EVALUATION
from vae.runs.metrics import read_evaluation

NUM_SAMPLES, SEED = 5000, 0  # if neither the user nor earlier evaluations say otherwise


class RunEvaluation(NamedTuple):
    """What an evaluation says of a run: its means, and the log-likelihood of each image [N]."""

    summary: dict[str, Any]
    log_likelihood: np.ndarray


class NotFiniteError(ValueError):
    """An evaluation that is not a finite number in every image; one line for the user."""


def file_name(split: str, num_examples: int | None, num_evaluated: int) -> str:
    """evaluation.json is of the whole test split alone."""
    return EVALUATION if num_examples is None and split == "test" else f"evaluation_{split}_{num_evaluated}.json"


def write(path: Path, result: importance.Evaluation, values: dict[str, Any]) -> None:
    """Write evaluation.json, and the values of each image beside it."""
    write_arrays(path.with_suffix(".npz"), summary.by_image(result))
    write_json(path, values)


def stored_evaluation(folder: Path, split: str, num_examples: int | None) -> tuple[dict[str, Any], Path] | None:
    """The evaluation that a run folder holds, and its path; None if there is none."""
    if num_examples is None and split == "test":
        path = folder / EVALUATION
    else:
        paths = sorted(folder.glob(f"evaluation_{split}_{num_examples or '*'}.json"))
        path = paths[0] if paths else folder / "none"
    return (summary.upgrade(read_evaluation(path)), path) if path.exists() else None


def settings_for(
    groups: Sequence[RunGroup], num_samples: int | None, seed: int | None, num_examples: int | None
) -> EvaluationSettings:
    """Those for all runs on test images: as given, otherwise as the runs were evaluated already.

    Raises ComparisonError if the runs were evaluated otherwise than each other, or than is given.
    """
    every = [folder for group in groups for folder in group.folders.values()]
    stored = [(folder, found[0]) for folder in every if (found := stored_evaluation(folder, "test", num_examples))]
    values = {"num_samples": NUM_SAMPLES, "seed": SEED}
    if stored:
        refuse_others([(str(folder), {key: one[key] for key in values}) for folder, one in stored])
        folder, one = stored[0]
        values = {key: one[key] for key in values}
    for key, flag, given in (("num_samples", "evaluation_samples", num_samples), ("seed", "evaluation_seed", seed)):
        if given is None:
            continue
        if stored and given != values[key]:
            raise ComparisonError(
                f"{folder} was evaluated with {key} {values[key]}, not --{flag}={given}; leave the flag out, or "
                "evaluate that run again with experiments.evaluate"
            )
        values[key] = given
    return EvaluationSettings("test", values["num_samples"], values["seed"], num_examples)


def stored(folder: Path, chosen: EvaluationSettings, which: str | int | None = None) -> RunEvaluation | None:
    """The evaluation of a run that its folder keeps, with the values of each image; None if it is of other settings.

    which: the checkpoint, "last", "best", a step, or None, as vae.runs.checkpoint.choose.
    """
    checkpoint = choose(folder, which)
    found = stored_evaluation(folder, chosen.split, chosen.num_examples)
    if found is not None:
        told_of, path = found
        same = told_of["checkpoint"], told_of["num_samples"], told_of["seed"]
        wanted = checkpoint, chosen.num_samples, chosen.seed
        # One that lacks what a comparison reads of it is damaged, or from before it was kept.
        whole = isinstance(told_of.get("images_sha256"), str) and "kl_per_dimension" in told_of
        values = _of_each_image(path.with_suffix(".npz"), told_of["num_examples"]) if whole and same == wanted else None
        # A process killed between the two files leaves those of different evaluations. What is not finite is null.
        mean = np.nan if values is None else values.mean()
        told = np.nan if told_of["log_likelihood"] is None else told_of["log_likelihood"]
        if values is not None and (np.isclose(mean, told, rtol=1e-12) or not np.isfinite([mean, told]).any()):
            return RunEvaluation(told_of, values)
    return None


def evaluation_of(
    folder: Path,
    chosen: EvaluationSettings,
    images: Callable[[Path], tuple[Split, np.ndarray]],
    devices: Sequence[Any],
    on_progress: Callable[[int, int], None],
    which: str | int | None = None,
) -> RunEvaluation:
    """The evaluation of a run at a checkpoint, made unless there is one (see `stored`).

    `images(folder)` gives the images of the split and their positions; `on_progress(done, all)` counts them.
    """
    if (kept := stored(folder, chosen, which)) is not None:
        return kept
    run = load_run(folder, which)
    data, index = images(folder)
    result, values = summary.judge(
        run.params,
        data,
        index,
        chosen,
        model=run.model,
        settings=run.settings,
        checkpoint=run.step,
        devices=devices,
        on_progress=lambda done: on_progress(done, len(data.images)),
    )
    write(folder / file_name(chosen.split, chosen.num_examples, len(data.images)), result, values)
    return RunEvaluation(values, summary.by_image(result)["log_likelihood"])


def _of_each_image(path: Path, num_examples: int) -> np.ndarray | None:
    """The log-likelihood of each image [N]; None if the file is absent or damaged: then the run is evaluated again."""
    try:
        values = npz.read(path, {"log_likelihood"}).get("log_likelihood") if path.exists() else None
    except DataError:
        return None
    fits = values is not None and values.dtype.kind == "f" and values.shape == (num_examples,)
    return values if fits else None


def evaluate_groups(
    groups: Sequence[RunGroup],
    seeds: Sequence[int],
    evaluate: Callable[[Path], RunEvaluation],
    report: Callable[[str], None] = lambda line: None,
) -> tuple[list[RunGroup], dict[Path, RunEvaluation], list[str]]:
    """The groups that can be compared on `seeds`, their evaluations, and a line for each group that is left out.

    A group is left out whole (see WHOLE) if one of its runs cannot be evaluated, or has a log-likelihood that is not
    finite in some image. `report` gets a line for each group before it is evaluated.
    """
    kept, evaluations, left_out = [], {}, []
    for group in groups:
        report(f"evaluating: {group.label}, seed {', '.join(map(str, seeds))}")
        of_group: dict[Path, RunEvaluation] = {}
        try:
            for folder in (group.folders[seed] for seed in seeds):
                of_group[folder] = evaluate(folder)
                refuse_not_finite(folder, of_group[folder])
        except (NotFiniteError, RunError, CheckpointError) as error:
            left_out.append(f"{group.label}: {error}; {WHOLE}")
            continue
        kept.append(group)
        evaluations |= of_group
    return kept, evaluations, left_out


def refuse_not_finite(folder: Path, one: RunEvaluation) -> None:
    """Raises NotFiniteError."""
    if bad := int((~np.isfinite(one.log_likelihood)).sum()):
        raise NotFiniteError(
            f"the log-likelihood of {folder} is not finite in {bad} of {len(one.log_likelihood)} "
            f"{one.summary['split']} images"
        )
