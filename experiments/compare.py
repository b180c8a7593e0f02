"""Which objective is better, by how much, and is the difference real?

    python -m experiments.compare --objectives=elbo,iwae,ciwae,renyi --seeds=5 --num_samples=5 --epochs=20
    python -m experiments.compare --objectives="elbo iwae:num_samples=50 iwae:num_samples=50:estimator=dreg" \\
        --tune=learning_rate=3e-4,1e-3,3e-3 --budget=seconds
    python -m experiments.compare --runs=runs/a,runs/b,sweeps/c    # runs that exist, grouped by all but their seeds
    python -m experiments.compare --workdir=comparisons/x          # resumes comparisons/x

Every run is evaluated as by experiments.evaluate; evaluations that exist are used. Writes report.html, which opens in
any browser and needs no other file, and comparison.json, .md, .tex (a table for a paper) and .csv (the numbers of each
seed). Four objectives with three seeds on the digits took 101 s on two CPU cores; on MNIST the evaluation alone takes
minutes for each run (--num_examples=1000: a tenth). Ctrl-C or SIGTERM saves and exits with code 75.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import compared_runs, comparison_plan, notes, script
from experiments.command.progress import ImageBar
from experiments.command.stopping import StopRequest
from experiments.flags import comparisons, configuration, options, variants
from experiments.flags.configuration import RunFlags
from experiments.flags.options import DataFolders, Flags
from experiments.flags.parsing import UsageError, choice, number
from vae.places import expanded

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.judging.tuning import ComparedRuns
    from vae.sweeps.comparing import ComparisonPlan

BUDGETS = {
    "steps": "equal numbers of steps",
    "seconds": "equal training time, by the seconds of a step alone on this machine",
    "decoder_samples": "equal numbers of decoded samples",
}
TRAINING_ONLY = ("seeds", "tune", "budget")


def define_flags() -> None:
    options.define_config()
    flags.DEFINE_list("runs", [], "folders of trained runs, of sweeps or with other runs below, or patterns of them, "
                      "as in 'sweeps/x/runs/*'")  # fmt: skip
    flags.DEFINE_list(
        "objectives", [], "what to train: names, each with its own flags, separated by spaces or commas, as in "
        "'elbo iwae:num_samples=50:estimator=dreg'",
    )  # fmt: skip
    number(
        "seeds",
        3,
        "runs of each objective, from seed 0; 1 or 2 are described, not tested",
        least=1,
        most=1000,
        integer=True,
    )
    flags.DEFINE_multi_string("tune", [], "learning_rate=3e-4,1e-3: chosen for each objective on validation images")
    choice("budget", "steps", BUDGETS, "what is made equal; --epochs is for the objective whose epoch costs most")
    number("evaluation_samples", None, "k of the log-likelihood (default: as in evaluations that exist, else 5000)",
           least=1, most=10**7, integer=True)  # fmt: skip
    number("evaluation_seed", None, "of its samples (default: as in evaluations that exist, else 0)",
           least=0, most=2**31 - 1, integer=True)  # fmt: skip
    number("num_examples", None, "judge by a random subset of this many test images", least=2, integer=True)
    flags.DEFINE_string("workdir", None, "the comparison's folder; one in it is resumed (default: in comparisons/)")
    number("devices", 0, "devices that share out the runs and the images; 0: all there are, on a CPU one for each core",
           least=0, most=1024, integer=True)  # fmt: skip
    flags.DEFINE_bool("figures", True, "draw learning curves, samples and reconstructions of the runs")


def main(stop: StopRequest) -> int:
    flags = options.read()
    workdir = script.given_workdir(flags.values["workdir"])
    stored = comparison_plan.stored_comparison(workdir)
    asked = what_is_asked(flags, stored)
    base = configuration.settle(flags, stored.get("flags", {}))
    check_flags(asked, flags, base)
    comparison_plan.check_resumed(workdir, stored, asked, base)
    chosen, points = variants.parse_objectives(asked["objectives"]), variants.parse_tune(asked["tune"])
    from experiments.command import devices
    from vae.judging.evaluations import evaluation_of
    from vae.runs.folder import lock
    from vae.sweeps.sweep_file import PLAN

    available = devices.start(flags.values["devices"], flags.values["data_dir"], one_per_core=True)
    kept = partial(comparison_plan.store, stored=stored, asked=asked, base=base)
    folders = flags.folders
    if asked["runs"]:
        folders = folders._replace(moved_to=base.values["dataset"] if "dataset" in base.given else None)
        begin = partial(keep, compared=comparisons.trained_before(asked, stored, folders), kept=kept)
    else:
        places = folders, workdir
        plan, dataset = comparisons.make_plan(chosen, points, asked["budget"], base, stored, available, *places)
        notes.show((one.config for one in plan.candidates), base.values["binarization"])
        notes.show_same(plan.labels, plan.configs)
        begin = partial(
            train,
            plan=plan,
            dataset=dataset,
            kept=kept,
            begun=bool(stored),
            asked=asked,
            folders=folders,
            devices=available,
            stop=stop,
        )
    workdir = workdir or script.new_workdir("comparison", "comparisons")
    evaluate = partial(evaluation_of, devices=available, on_progress=ImageBar().update)
    with lock(workdir):
        stop.file = workdir / PLAN
        return finish(workdir, begin(workdir, evaluate), asked, evaluate, folders, draw=flags.values["figures"])


def keep(workdir: Path, evaluate, compared: ComparedRuns, kept: Callable[..., None]) -> ComparedRuns:
    """The runs of --runs, as they are; what is asked is stored."""
    del evaluate
    kept(workdir, seconds_per_step=compared.paces)
    return compared


def train(
    workdir: Path,
    evaluate,
    *,
    plan: ComparisonPlan,
    dataset: Dataset,
    kept: Callable[..., None],
    begun: bool,
    asked: dict[str, Any],
    folders: DataFolders,
    devices: Sequence[Any],
    stop: StopRequest,
) -> ComparedRuns:
    """Train every run that is not done, as a sweep, and choose among tuned points; raises Stopped."""
    from vae.judging import tuning
    from vae.sweeps import comparing
    from vae.sweeps.folders import move_data

    places = comparing.place(plan, workdir, dataset, asked["seeds"], recorded=begun)
    kept(workdir, seconds_per_step=plan.paces, epochs=[one.config.epochs for one in plan.candidates])
    runs = comparing.runs_of(plan, places)
    move_data(workdir, {name: one.config.dataset for name, one in runs.items()})
    compared_runs.train(workdir, runs, lambda config: dataset, devices, stop)
    wanted, images = comparisons.tuning_settings(asked), comparisons.images_of(folders, "validation")
    compared = tuning.choose(plan, places, lambda folder: evaluate(folder, wanted, images), report=print)
    comparisons.check_number(compared.groups, compared.left_out)
    return compared


def what_is_asked(flags: Flags, stored: dict[str, Any]) -> dict[str, Any]:
    """The values of this script's own flags: from the command line, else the stored ones."""
    asked = flags.among(comparison_plan.ASKED, stored.get("asked", {}))
    if "runs" in flags.given:
        named = [expanded(text) for text in flags.values["runs"]]
        asked["runs"] = [str(folder) for path in named for folder in comparisons.run_folders(path, "runs")]
    return asked


def check_flags(asked: dict[str, Any], flags: Flags, base: RunFlags) -> None:
    """Raises UsageError for flags that do not go together."""
    if not asked["runs"] and not asked["objectives"]:
        raise UsageError("nothing to compare; write --objectives=elbo,iwae to train, or --runs=FOLDER,FOLDER")
    if asked["runs"] and asked["objectives"]:
        raise UsageError(
            "--runs and --objectives do not go together: runs that exist are compared, or new ones trained"
        )
    if asked["runs"]:
        of_training = base.given - {"dataset", "data_dir", "manual_dir"}
        idle = [name for name in TRAINING_ONLY if name in flags.given] + sorted(of_training)
        idle += ["preset"] if "preset" in flags.given else []
        if idle:
            raise UsageError(f"--{idle[0]} has no effect with --runs: nothing is trained; leave it out")
        return
    for name, instead in (("objective", "objectives"), ("seed", "seeds")):
        if name in base.given:
            raise UsageError(f"--{name} has no effect here; use --{instead}")


def finish(
    workdir: Path, compared: ComparedRuns, asked: dict[str, Any], evaluate, folders: DataFolders, *, draw: bool
) -> int:
    """Evaluate, compare, draw and write."""
    from experiments.pictures import comparison_pictures
    from vae import figures, report
    from vae.judging import evaluations, ranking, tuning
    from vae.judging.groups import common_seeds, refuse_others
    from vae.runs.config import provenance
    from vae.runs.files import read_json, write_json
    from vae.sweeps.sweep_file import PLAN

    notes.show_best_of(group.config for group in compared.groups)
    wanted = comparisons.evaluation_settings(compared.groups, asked)
    seeds, left_out = common_seeds(compared.groups), list(compared.left_out)
    for group in compared.groups:
        if unused := [str(seed) for seed in group.folders if seed not in seeds]:
            left_out.append(f"seed {', '.join(unused)} of {group.label}, which others lack")
    images = comparisons.images_of(folders, wanted.split, wanted.num_examples)
    groups, found, unusable = evaluations.evaluate_groups(
        compared.groups, seeds, lambda folder: evaluate(folder, wanted, images), report=print
    )
    left_out += unusable
    comparisons.check_number(groups, left_out)
    summaries = {folder: one.summary for folder, one in found.items()}
    refuse_others([(str(folder), one) for folder, one in summaries.items()])
    groups = ranking.ranked(groups, seeds, found)
    pace_of = dict(zip([group.label for group in compared.groups], compared.paces, strict=True))
    told = ranking.assemble(groups, [pace_of[group.label] for group in groups], seeds, found, wanted)
    budget = "as the runs were trained" if asked["runs"] else BUDGETS[asked["budget"]]
    if not asked["runs"] and any(group.config.patience for group in groups):
        budget += ", at most: --patience ended runs early"
    told |= {"tuning": compared.tried, "budget": budget, "left_out": left_out}
    told["tuning_samples"] = tuning.NUM_SAMPLES
    told |= {"command": read_json(workdir / PLAN)["command"], **provenance()}
    for text in left_out:
        print(f"left out: {text}")
    write_json(workdir / "comparison.json", told)
    pictures = comparison_pictures.draw(groups, told, summaries, images) if draw else {}
    comparison_pictures.save(workdir, pictures)
    texts = {"md": report.markdown(told, list(pictures)), "tex": report.tex(told), "csv": report.by_seed(told)}
    for suffix, text in texts.items():
        figures.write(workdir / f"comparison.{suffix}", text.encode())
    colors = [figures.color_of(rank) for rank in range(len(groups))]
    shown = {name: files["png"] for name, files in pictures.items()}
    figures.write(workdir / "report.html", report.page(told, shown, colors).encode())
    print("\n" + report.aligned(told) + "\n")
    print("\n".join(told["conclusion"]))
    print(f"report: {workdir / 'report.html'}")
    drawings = ", with pictures as PDF and SVG in figures/ beside it" if pictures else ""
    print(f"for a paper: {workdir / 'comparison.tex'}{drawings}")
    print(workdir)
    return 0


if __name__ == "__main__":
    script.run(define_flags, main)
