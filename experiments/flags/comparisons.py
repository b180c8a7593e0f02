"""What experiments.compare is asked to compare: runs that exist, or a plan of runs to train."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.flags import options, variants
from experiments.flags.configuration import RunFlags
from experiments.flags.options import DataFolders
from experiments.flags.parsing import UsageError
from experiments.flags.points import Data, data_of, loader

if TYPE_CHECKING:
    from vae.datasets import Dataset, Split
    from vae.evaluation.summary import EvaluationSettings
    from vae.judging.groups import RunGroup
    from vae.judging.tuning import ComparedRuns
    from vae.sweeps.comparing import ComparisonPlan


def run_folders(path: Path, flag: str) -> list[Path]:
    """`path` if it is a run, otherwise the runs below it, as of a sweep; or below all that match it as a pattern.

    A packed run is one if it is named or matches; below a folder none is looked for. Raises UsageError, which names
    `flag`, if there is none.
    """
    from vae.runs.folder import CONFIG

    places = [path]
    if not path.exists() and glob.has_magic(str(path)):
        places = list(map(Path, glob.glob(str(path))))
    found = sorted({folder for place in places for folder in _runs_below(place.absolute())})
    if not found:
        raise UsageError(f"--{flag}={path} holds no run (no {CONFIG}); train one with experiments.train")
    return found


def _runs_below(folder: Path) -> list[Path]:
    from vae.runs.archive import is_packed
    from vae.runs.folder import CONFIG

    return (
        [folder]
        if is_packed(folder) or (folder / CONFIG).exists()
        else [config.parent for config in folder.rglob(CONFIG)]
    )


def trained_before(asked: dict[str, Any], stored: dict[str, Any], folders: DataFolders) -> ComparedRuns:
    """The runs of --runs; all that can be refused is refused before anything is written."""
    from vae.judging import groups
    from vae.judging.tuning import ComparedRuns
    from vae.training import timing

    opened = dict.fromkeys(options.opened(Path(run)) for run in asked["runs"])
    found, left_out = groups.group(list(opened), variants.labels)
    check_number(found, left_out)
    groups.check_comparable(found)
    groups.common_seeds(found)
    images = images_of(folders, evaluation_settings(found, asked).split, asked["num_examples"])
    for folder in (folder for one in found for folder in one.folders.values()):
        check_images(len(images(folder)[0].images), folder)
    paces = stored.get("seconds_per_step") or timing.paces([group.config for group in found], loader(folders))
    return ComparedRuns(found, paces, [], left_out)


def make_plan(
    chosen: Sequence[variants.Variant],
    points: Sequence[dict[str, Any]],
    budget: str,
    base: RunFlags,
    stored: dict[str, Any],
    available,
    folders: DataFolders,
    workdir: Path | None,
) -> tuple[ComparisonPlan, Dataset]:
    """What is to be trained, and its data; raises UsageError, RunError or ObjectiveError if it cannot be."""
    from vae.judging import groups
    from vae.runs.files import RunError
    from vae.sweeps import comparing
    from vae.sweeps.sweep_file import PLAN
    from vae.training import start, timing

    dataset = loader(folders, workdir)(Data(*(base.values[name] for name in Data._fields)))
    check_images(len(dataset.test.images), dataset.name)
    if len(points) > 1 and not len(dataset.validation.images):
        raise UsageError("--tune chooses on validation images, and there are none; leave --validation=0 out")
    found = variants.candidates(chosen, points, base, dataset)
    first = {candidate.variant: candidate.config for candidate in reversed(found)}
    labels = variants.labels([first[number] for number in range(len(chosen))])
    if len(labels) < 2:
        raise UsageError(f"--objectives={chosen[0].text} is one objective alone; a comparison needs two")
    groups.refuse_others([(one.text, groups.about(first[number])) for number, one in enumerate(chosen)])
    for candidate in found:
        start.check(None, candidate.config, dataset, available, begun=bool(stored))
    configs = [candidate.config for candidate in found]
    paces, epochs = stored.get("seconds_per_step"), stored.get("epochs")
    if paces is None:
        paces = timing.paces(configs, lambda config: dataset)
    if any(values is not None and len(values) != len(found) for values in (paces, epochs)):
        raise RunError(f"{PLAN} is damaged: it is of another number of runs; choose another --workdir")
    epochs = epochs or comparing.epochs_within(budget, configs, len(dataset.train.images), paces)
    found = variants.candidates(chosen, points, base, dataset, epochs)
    return comparing.ComparisonPlan(labels, [variant.given for variant in chosen], found, paces), dataset


def check_images(count: int, of: object) -> None:
    """Raises UsageError for fewer test images than two: of one alone nothing is known of the spread over images."""
    if count < 2:
        raise UsageError(
            f"a comparison needs two test images or more, and {of} has {count}; use data with more of them"
        )


def check_number(groups: Sequence[RunGroup], left_out: Sequence[str] = ()) -> None:
    """Raises unless there are two to compare: TrainingFailed if some were left out, otherwise UsageError."""
    if len(groups) >= 2:
        return
    from vae.training.record import TrainingFailed

    found = f"there is only one objective ({groups[0].label})" if groups else "there is no objective"
    reasons = "".join(f"; left out: {text}" for text in left_out)
    raise (TrainingFailed if left_out else UsageError)(f"{found}; a comparison needs two{reasons}")


def evaluation_settings(groups: Sequence[RunGroup], asked: dict[str, Any]) -> EvaluationSettings:
    """How test images are judged: as the flags say, otherwise as the runs were evaluated already."""
    from vae.judging import evaluations

    return evaluations.settings_for(
        groups, asked["evaluation_samples"], asked["evaluation_seed"], asked["num_examples"]
    )


def tuning_settings(asked: dict[str, Any]) -> EvaluationSettings:
    """How validation images are judged, among which a point is chosen."""
    from vae.evaluation.summary import EvaluationSettings
    from vae.judging import evaluations, tuning

    return EvaluationSettings("validation", tuning.NUM_SAMPLES, asked["evaluation_seed"] or evaluations.SEED)


def images_of(folders: DataFolders, split: str, num_examples: int | None = None) -> Callable[[Path], tuple[Split, Any]]:
    """Loads the images that a run is evaluated on, those of runs on the same data once."""
    from vae.runs.config import read_config

    load_data, loaded = loader(folders), {}

    def load(folder):
        config = read_config(folder)
        dataset = options.checked(folder, load_data(config))
        key = *data_of(config), dataset.classes, config.settings.binarization
        if key not in loaded:
            loaded[key] = options.evaluated_split(folder, dataset, split, num_examples)
        return loaded[key]

    return load
