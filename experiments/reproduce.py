"""Train the cells of a published table by the paper's own protocol, and set our numbers beside the printed ones.

    python -m experiments.reproduce --list                        # all tables, their cells, parameters and steps
    python -m experiments.reproduce --list --table=burda2016      # and what each cell costs on this machine, measured
    python -m experiments.reproduce --table=burda2016 --cells=mnist/1/vae/5,mnist/1/iwae/5 --fraction=1/20
    python -m experiments.reproduce --workdir=reproductions/x     # resumes reproductions/x
    python -m experiments.reproduce --workdir=reproductions/x --seeds=5 --cells=mnist/1/iwae/50    # grows it

The registry of tables is experiments/papers. A fraction scales every stage of the schedule: --fraction=1 is the paper's
protocol, which takes days on a CPU. All cells of a folder are trained at one fraction, which stands in each table. Runs
that differ only in their seeds train as one program. They are evaluated as by experiments.evaluate, with the paper's k;
--num_samples and --num_examples judge by less, and the head of the table says so.

Writes reproduction.json, .md, .tex (a table for a paper) and .html. Ctrl-C or SIGTERM saves and exits with code 75.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import compared_runs, reproductions, script, table_list
from experiments.command.progress import ImageBar
from experiments.command.reproductions import REPRODUCTION, Reproduced, run_name, trained_cell
from experiments.command.stopping import StopRequest
from experiments.flags import comparisons, options
from experiments.flags.options import Flags
from experiments.flags.parsing import choice, number
from experiments.flags.points import loader
from experiments.papers import TABLES

if TYPE_CHECKING:
    from vae.evaluation.summary import EvaluationSettings
    from vae.judging.evaluations import RunEvaluation


def define_flags() -> None:
    flags.DEFINE_bool("list", False, "list the tables and their cells; with --table, measure what its cells cost here")
    choice("table", None, TABLES, "what to reproduce")
    flags.DEFINE_list("cells", [], "cells of the table, as in mnist/1/vae/5,mnist/1/iwae/5 (default: all)")
    flags.DEFINE_string("fraction", "1", "of the paper's protocol, as 1/20: every stage of its schedule is scaled")
    flags.register_validator("fraction", _checked_fraction)
    number("seeds", 3, "runs of each cell, from seed 0", least=1, most=1000, integer=True)
    number("num_samples", None, "k of the evaluation (default: the paper's)", least=1, most=10**7, integer=True)
    number("num_examples", None, "judge by a random subset of this many images", least=2, integer=True)
    flags.DEFINE_string("workdir", None, "the folder; a reproduction in it is resumed (default: in reproductions/)")
    number("devices", 0, "devices that share out the runs and the images; 0: all there are, on a CPU one for each core",
           least=0, most=1024, integer=True)  # fmt: skip
    flags.DEFINE_string("data_dir", None, "where prepared data are kept (default: $VAE_DATA_DIR or ~/.cache/vae)")
    flags.DEFINE_string("manual_dir", None, "a folder that holds the original files of a data set")


def _checked_fraction(text: str) -> bool:
    try:
        reproductions.fraction_of(text)
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error
    return True


def main(stop: StopRequest) -> int:
    flags = options.read()
    if flags.values["list"]:
        return table_list.main(flags)
    workdir = script.given_workdir(flags.values["workdir"])
    stored = reproductions.stored_reproduction(workdir)
    asked = reproductions.what_is_asked(flags, workdir, stored)
    from experiments.command import devices
    from vae.runs.folder import lock
    from vae.sweeps import planning, sweep
    from vae.training import timing

    available = devices.start(flags.values["devices"], flags.values["data_dir"], one_per_core=True)
    load = loader(flags.folders, workdir)
    made = reproductions.plan(asked, flags.folders, load)
    grouped = planning.grouped({name: one.config for name, one in made.runs.items()}, load)
    sweep.check(grouped, available, begun=bool(stored))
    for text in reproductions.trained(asked):
        print(f"trained: {text}")
    workdir = workdir or script.new_workdir(asked["table"], "reproductions")
    with lock(workdir):
        train(workdir, made, asked, load, available, stop, begun=bool(stored))
        paces = dict(zip(made.configs, timing.paces(list(made.configs.values()), load), strict=True))
        return finish(workdir, made, asked, paces, flags, available)


def train(
    workdir: Path, made: Reproduced, asked: dict[str, Any], load, available: Sequence[Any], stop: StopRequest, *,
    begun: bool,
) -> None:  # fmt: skip
    """Train every run that is not done, as a sweep; raises Stopped."""
    from vae.runs.files import read_json, write_json
    from vae.sweeps import folders

    folders.check(workdir, {name: one.config for name, one in made.runs.items()}, load, recorded=begun)
    path = workdir / REPRODUCTION
    command = " ".join(["python", "-m", "experiments.reproduce", *map(shlex.quote, sys.argv[1:])])
    before = read_json(path) if path.exists() else {"command": command}
    write_json(path, before | {"asked": asked})
    stop.file = path
    compared_runs.train(workdir, made.runs, load, available, stop)


def finish(
    workdir: Path, made: Reproduced, asked: dict[str, Any], paces: dict[str, float], flags: Flags,
    available: Sequence[Any],
) -> int:  # fmt: skip
    """Evaluate, and write the table; raises TrainingFailed if no cell is left."""
    from vae import figures
    from vae.evaluation.summary import EvaluationSettings
    from vae.judging import evaluations
    from vae.judging.groups import WHOLE, RunGroup
    from vae.report import reproduction
    from vae.runs.config import provenance
    from vae.runs.files import read_json, write_json
    from vae.sweeps.planning import RUNS
    from vae.training.record import FAILURE, TrainingFailed

    table = TABLES[asked["table"]]
    num_samples = flags.values["num_samples"] or table.num_samples
    chosen = EvaluationSettings(table.split, num_samples, evaluations.SEED, flags.values["num_examples"])
    images = comparisons.images_of(flags.folders, chosen.split, chosen.num_examples)
    evaluate = partial(
        evaluations.evaluation_of, chosen=chosen, images=images, devices=available, on_progress=ImageBar().update
    )
    seeds, groups, left_out = list(range(asked["seeds"])), [], []
    for name, config in made.configs.items():
        folders = {seed: workdir / RUNS / run_name(name, seed) for seed in seeds}
        if failed := [str(seed) for seed, folder in folders.items() if (folder / FAILURE).exists()]:
            left_out.append(f"{name} diverged (seed {', '.join(failed)}); {WHOLE}")
        else:
            groups.append(RunGroup(name, config, folders))
    groups, found, unusable = evaluations.evaluate_groups(groups, seeds, evaluate, report=print)
    left_out += unusable
    if not groups:
        raise TrainingFailed(f"no cell can be shown: {'; '.join(left_out)}")
    by_cell = {group.label: [found[group.folders[seed]] for seed in seeds] for group in groups}
    told = assembled(asked, chosen, made, by_cell, paces)
    about = {"left_out": left_out, "command": read_json(workdir / REPRODUCTION)["command"], **provenance()}
    told |= about
    write_json(workdir / REPRODUCTION, told)
    texts = {"md": reproduction.markdown, "tex": reproduction.tex, "html": reproduction.page}
    for suffix, written in texts.items():
        figures.write(workdir / f"reproduction.{suffix}", written(told).encode())
    for text in left_out:
        print(f"left out: {text}")
    print(f"\n{reproduction.aligned(told)}\n")
    print(f"page: {workdir / 'reproduction.html'}")
    print(workdir)
    return 0


def assembled(
    asked: dict[str, Any],
    chosen: EvaluationSettings,
    made: Reproduced,
    by_cell: dict[str, list[RunEvaluation]],
    paces: dict[str, float],
) -> dict[str, Any]:
    """What reproduction.json holds of the numbers."""
    import math

    import numpy as np

    from vae.evaluation.summary import mean_and_error

    table, cells = TABLES[asked["table"]], []
    for name in asked["cells"]:
        cell, of = table.cells[name], trained_cell(table, name)
        if of not in by_cell:
            continue
        values = [table.quantity.of(one.summary[table.quantity.name]) for one in by_cell[of]]
        ours, error = mean_and_error(np.array(values))
        paper, paper_error = (None, None) if cell.published is None else cell.published[:2]
        errors = [one for one in (error, paper_error) if one is not None]
        steps = round(np.mean([one.summary["checkpoint"] for one in by_cell[of]]))  # they differ after a patience
        cells.append(
            {
                "cell": name,
                "of": of,
                "runs_of": cell.runs_of,
                "paper": paper,
                "paper_error": paper_error,
                "quoted_by": cell.published and cell.published.quoted_by,
                "ours": ours,
                "ours_error": error,
                "ours_by_seed": values,
                "runs": [run_name(of, seed) for seed in range(asked["seeds"])],
                "difference": None if paper is None else ours - paper,
                "difference_error": math.hypot(*errors) if errors else None,
                "steps": steps,
                "paper_steps": cell.num_steps(),
                "seconds_per_step": paces[of],
                "seconds": steps * paces[of],
                "evaluation_seconds": sum(one.summary["seconds"] for one in by_cell[of]) / len(values),
                "dataset": made.configs[of].dataset,
                "differs": list(cell.differs),
            }
        )
    counts = {len(one.log_likelihood) for of_cell in by_cell.values() for one in of_cell}
    evaluation = chosen._asdict() | {
        "count": counts.pop() if len(counts) == 1 else None,
        "paper_num_samples": table.num_samples,
    }
    return {
        "asked": asked,
        "table": asked["table"],
        "paper": table.paper,
        "title": table.title,
        "place": table.place,
        "words": table.quantity.words,
        "fraction": asked["fraction"],
        "trained": reproductions.trained(asked),
        "seeds": list(range(asked["seeds"])),
        "evaluation": evaluation,
        "cells": cells,
        "differs": list(table.differs),
    }


if __name__ == "__main__":
    script.run(define_flags, main)
