"""experiments.evaluate of many runs: which they are, their evaluations in turn, and the table per setting."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import notes, setting_table
from experiments.command.progress import ImageBar
from experiments.command.stopping import StopRequest
from experiments.flags import comparisons, options, variants
from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError
from vae.places import expanded

if TYPE_CHECKING:
    from vae.judging.evaluations import RunEvaluation
    from vae.judging.groups import RunGroup
    from vae.runs.config import Config

SHOWN = {"log_likelihood": "log-likelihood", "elbo": "ELBO", "kl": "KL", "active_units": "active units"}
SHARE = "pareto_k_above_threshold"  # shown as a percentage
PSIS = "log_likelihood_psis"  # which evaluations lack that are from before it was kept


def run_folders(text: str | None) -> list[Path] | None:
    """The runs that --workdir names if it may be several: paths and patterns, with commas between them; None if not."""
    from vae.runs.archive import is_packed
    from vae.runs.folder import CONFIG

    if not text or is_packed(expanded(text)) or (expanded(text) / CONFIG).exists():
        return None
    whole = expanded(text).exists()
    places = [text] if whole else text.split(",")
    if len(places) == 1 and not (whole or glob.has_magic(text)):
        return None
    below = (comparisons.run_folders(expanded(place), "workdir") for place in places)
    return list(dict.fromkeys(itertools.chain.from_iterable(below)))


def main(stop: StopRequest, flags: Flags, folders: Sequence[Path]) -> int:
    """Evaluate the runs that are finished, and have no such evaluation yet, and write the table per setting."""
    from experiments.command import devices
    from vae.evaluation.summary import EvaluationSettings
    from vae.judging import evaluations, groups
    from vae.runs.config import read_config
    from vae.sweeps import results
    from vae.sweeps.sweep_file import SWEEP

    asked = flags.values
    num_devices = asked["devices"] if "devices" in flags.given else 0
    available = devices.start(num_devices, asked["data_dir"], one_per_core=True)
    folders = list(dict.fromkeys(map(options.opened, folders)))
    home = _home(folders)
    if (home / SWEEP).exists():
        stop.file = home / SWEEP
    configs = {folder: read_config(folder) for folder in folders}
    finished = _finished(configs)
    if not finished:
        raise UsageError("none of these runs is finished; resume them with the command that trained them")
    chosen = EvaluationSettings(*(asked[name] for name in EvaluationSettings._fields))
    images = comparisons.images_of(
        flags.folders._replace(moved_to=asked["dataset"]), asked["split"], asked["num_examples"]
    )
    print(
        f"evaluating {len(finished)} runs: {len(images(finished[0])[0].images):,} images of the {asked['split']} split "
        f"with {asked['num_samples']:,} samples each; fewer with --num_examples or --num_samples"
    )
    notes.show_best_of(configs.values(), asked["checkpoint"])
    found = evaluate(
        finished,
        partial(evaluations.stored, chosen=chosen, which=asked["checkpoint"]),
        partial(
            evaluations.evaluation_of,
            chosen=chosen,
            images=images,
            devices=available,
            on_progress=ImageBar().update,
            which=asked["checkpoint"],
        ),
    )
    name = evaluations.file_name(asked["split"], asked["num_examples"], len(images(finished[0])[0].images))
    axes, rows = _axes(home, folders), []
    by_images: dict[str, list[RunGroup]] = {}
    for group in _settings(home, configs, axes):
        by_images.setdefault(str(groups.about(group.config)), []).append(group)
    for alike in by_images.values():
        of_group = {folder: found[folder] for group in alike for folder in group.folders.values() if folder in found}
        if of_group:
            groups.refuse_others([(str(folder), one.summary) for folder, one in of_group.items()])
            rows += show(alike, of_group, axes, several=len(by_images) > 1)
    if asked["split"] == "test":
        print("test images choose nothing: to choose a setting, look at validation images (--split=validation)")
    table = setting_table.write(home / f"{Path(name).stem}_settings.csv", rows)
    if (home / SWEEP).exists():
        print(f"results: {results.write(home)}")
    print(f"settings: {table}")
    print(home)
    return 0


def evaluate(
    folders: Sequence[Path],
    stored: Callable[[Path], RunEvaluation | None],
    evaluation_of: Callable[[Path], RunEvaluation],
) -> dict[Path, RunEvaluation]:
    """The evaluation of each run; a line for each, as soon as it is on the disk."""
    found = {}
    for number, folder in enumerate(folders, 1):
        before = stored(folder)
        found[folder] = evaluation_of(folder) if before is None else before
        value = found[folder].summary["log_likelihood"]
        shown = "not finite" if value is None else f"{value:.2f}"
        when = ", evaluated before" if before is not None else ""
        print(f"{number} of {len(folders)}: {_shown(folder)}: log-likelihood {shown}{when}")
    return found


def show(
    groups: Sequence[RunGroup],
    found: Mapping[Path, RunEvaluation],
    axes: Mapping[Path, Mapping[str, Any]],
    *,
    several: bool,
) -> list[dict[str, Any]]:
    """Print the table of settings that compare with each other; the rows of its file."""
    from vae.judging import by_setting

    flat = {folder: _results(one.summary) for folder, one in found.items()}
    names = dict.fromkeys(["log_likelihood", *(name for one in flat.values() for name in one)])
    numbers = {name: {folder: one.get(name) for folder, one in flat.items()} for name in names}
    table = by_setting.table(groups, numbers, {folder: one.log_likelihood for folder, one in found.items()})
    summary = next(iter(found.values())).summary
    of = f" of {groups[0].config.settings.likelihood} models of {groups[0].config.dataset}" if several else ""
    print(
        f"\n{summary['num_examples']} {summary['split']} images{of}, k = {summary['num_samples']}, nats per image, "
        "mean ± standard error over seeds:"
    )
    heads, threshold = SHOWN, summary["pareto_k_threshold"]
    if all(one.summary.get(PSIS) is not None for one in found.values()):
        heads = {"log_likelihood": heads["log_likelihood"], PSIS: "PSIS"} | heads
    if threshold is not None:
        heads = heads | {SHARE: f"% of images with k̂ > {threshold:.2f}"}
    setting_table.print_table(table, heads, scales={SHARE: 100})
    if table.verdict:
        what = "best setting by validation" if summary["split"] == "validation" else "highest"
        print(f"{what} log-likelihood: {setting_table.named(table)}\n{table.verdict}")
    print()
    judged = {name: summary[name] for name in ("split", "num_examples", "num_samples", "seed")}
    of_settings = {group.label: axes.get(next(iter(group.folders.values())), {}) for group in groups}
    return [judged | row for row in by_setting.columns(table, of_settings)]


def _results(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of an evaluation that have a mean over seeds; standard errors over images have none."""
    from vae.evaluation.summary import ABOUT, numbers

    found = {name: value for name, value in numbers(summary).items() if not isinstance(value, list)}
    found = {name: value for name, value in found.items() if name not in ABOUT and not name.endswith("_se")}
    return {name: None if value is None else float(value) for name, value in found.items()}


def _finished(configs: Mapping[Path, Config]) -> list[Path]:
    """The runs that were trained to their end; a line says which diverged, and which are not at their end."""
    from vae.runs.metrics import read_metrics
    from vae.runs.standing import standing
    from vae.training.record import FAILURE

    diverged = [folder for folder in configs if (folder / FAILURE).exists()]
    others = {folder: config for folder, config in configs.items() if folder not in diverged}
    early = [folder for folder, one in others.items() if not standing(folder, one, read_metrics(folder)).finished]
    for words, found in (("left out, diverged", diverged), ("left out, not trained to the end", early)):
        notes.show_runs(words, [str(_shown(folder)) for folder in found], len(configs))
    return [folder for folder in configs if folder not in diverged and folder not in early]


def _axes(home: Path, folders: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """The values of the axes of each run, if all are runs of the sweep in `home`; otherwise none."""
    from vae.sweeps.planning import RUNS
    from vae.sweeps.sweep_file import SWEEP, read_sweep

    values = read_sweep(home)["runs"] if (home / SWEEP).exists() else {}
    of_sweep = all(folder.parent == (home / RUNS).absolute() and folder.name in values for folder in folders)
    return {folder: values[folder.name] for folder in folders} if of_sweep else {}


def _settings(home: Path, configs: Mapping[Path, Config], axes: Mapping[Path, Mapping[str, Any]]) -> list[RunGroup]:
    """The runs by setting, named by the axes of their sweep, or by all in which they differ."""
    from vae.judging.groups import RunGroup

    if axes:
        values = {folder.name: axes[folder] for folder in configs}
        return setting_table.groups_of(home.absolute(), values, {path.name: one for path, one in configs.items()})
    by_setting: dict[Config, dict[int, Path]] = {}
    for folder, config in configs.items():
        by_setting.setdefault(dataclasses.replace(config, seed=0), {})[config.seed] = folder
    labels = variants.labels(list(by_setting))
    return [
        RunGroup(label, config, dict(sorted(of.items())))
        for label, (config, of) in zip(labels, by_setting.items(), strict=True)
    ]


def _home(folders: Sequence[Path]) -> Path:
    """Where the table is written: the folder of the sweep, or the one in which all runs are."""
    from vae.sweeps.planning import RUNS
    from vae.sweeps.sweep_file import SWEEP

    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    home = common.parent if common.name == RUNS and (common.parent / SWEEP).exists() else common
    return _shown(home)


def _shown(path: Path) -> Path:
    """A path as a user would write it: below the current folder, relative to it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
