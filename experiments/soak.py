"""Is anything lost on this machine? Breaks small runs on purpose, and compares what is resumed with undisturbed runs.

    python -m experiments.soak --minutes=15
    python -m experiments.soak --minutes=5 --kinds=train,flips --seed=1
    sudo .venv/bin/python -m experiments.soak --kinds=full_disk,power_cut      # they mount small disks

Right is: after the interruption and the same command again, the arrays of the last checkpoint, the rows of metrics,
results.csv, tables per setting, the trials and the comparison are those of an undisturbed run in every bit, except what
the clock says. After damage they are that too, or one line says what is damaged and the exit code is 1. Moments are
uniform over the time of the undisturbed run; some of them then wait for a write. Everything runs on the CPU.

Prints a table and writes soak.json. What went wrong stays in --workdir, and the exit code is 2.
"""

from __future__ import annotations

import datetime
import os
import platform
import random
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, number
from experiments.soaking import damage, disks, kills, long_run
from experiments.soaking.damage import damaged, stopped, trained
from experiments.soaking.kills import COMPARE, SEARCH, SWEEP, killed
from experiments.soaking.processes import Processes
from experiments.soaking.results import NotRight
from experiments.soaking.trials import TRAIN, Trials


class Kind(NamedTuple):
    """What is broken, the share of the time that it gets, and the function that tries it."""

    what: str
    share: float
    try_it: Callable[[Trials], None]


RUN_READERS = (damage.LONGER, damage.EVALUATE, damage.LIST)
KINDS = {
    "long": Kind("up to 2,000 epochs in one process: flat memory, no files left open", 12, long_run.flat_memory),
    "train": Kind("kill -9 of experiments.train", 11, killed(TRAIN)),
    "sweep": Kind("kill -9 of experiments.sweep", 8, killed(SWEEP)),
    "grow": Kind("kill -9 of a sweep that grows", 8, killed(kills.GROWN, before=kills.SETTINGS)),
    "evaluate": Kind("kill -9 of an evaluation of a sweep", 6, killed(kills.EVALUATED, before=kills.GROWN)),
    "patience": Kind("kill -9 of experiments.train --patience", 6, killed(kills.TRAIN_WAITING)),
    "sweep_patience": Kind("kill -9 of experiments.sweep --patience", 6, killed(kills.SWEEP_WAITING)),
    "search": Kind("kill -9 of experiments.sweep --search", 8, killed(SEARCH)),
    "compare": Kind("kill -9 of experiments.compare", 11, killed(COMPARE)),
    "shared": Kind("kill -9 of one of two workers on one search", 9, kills.one_of_two_workers),
    "joined": Kind("kill -9 of one of two processes of --distributed", 7, kills.one_of_two_joined),
    "flips": Kind("a damaged file of a run", 13, damaged(trained, RUN_READERS)),
    "sweep_flips": Kind("a damaged file of a sweep", 6, damaged(stopped(SWEEP, "epoch 2/"), (SWEEP, damage.LIST))),
    "search_flips": Kind("a damaged file of a search", 6, damaged(stopped(SEARCH, "epoch 2/"), (SEARCH, damage.LIST))),
    "compare_flips": Kind(
        "a damaged file of a comparison", 8, damaged(stopped(COMPARE, "evaluating: iwae"), (COMPARE, damage.LIST))
    ),
    "full_disk": Kind("a full disk", 4, disks.full_disk),
    "power_cut": Kind("a power cut during training", 8, disks.power_cut(TRAIN)),
    "sweep_power_cut": Kind("a power cut during a sweep", 6, disks.power_cut(SWEEP)),
    "search_power_cut": Kind("a power cut during a search", 6, disks.power_cut(SEARCH)),
    "compare_power_cut": Kind("a power cut during a comparison", 6, disks.power_cut(COMPARE)),
    "vanished": Kind("a folder deleted or moved during training", 4, disks.vanished_folder(TRAIN)),
    "sweep_vanished": Kind("a folder deleted or moved during a sweep", 3, disks.vanished_folder(SWEEP)),
    "search_vanished": Kind("a folder deleted or moved during a search", 3, disks.vanished_folder(SEARCH)),
    "compare_vanished": Kind("a folder deleted or moved during a comparison", 4, disks.vanished_folder(COMPARE)),
}
HEAD = ("kind", "tried", "within a write", "right", "what went wrong")


def define_flags() -> None:
    flags.DEFINE_list("kinds", list(KINDS), f"what is tried: {', '.join(KINDS)}")
    number("minutes", 15, "of time, in all; each kind is tried once at least", least=0)
    number("processes", 1, "kinds at a time", least=1, most=64, integer=True)
    number("seed", 0, "of moments and places", least=0, most=2**31 - 1, integer=True)
    flags.DEFINE_string(
        "workdir", None, "where runs are broken, and soak.json is written (default: a new one in runs/)"
    )


def main(_: StopRequest) -> int:
    asked = options.read().values
    if unknown := [name for name in asked["kinds"] if name not in KINDS]:
        raise UsageError(f"--kinds={unknown[0]}: no such kind; one of {', '.join(KINDS)}")
    os.environ["JAX_PLATFORMS"] = "cpu"
    from vae import durable
    from vae.runs.config import provenance
    from vae.runs.files import write_json

    workdir = script.given_workdir(asked["workdir"]) or script.new_workdir("soak")
    if workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"{workdir} is not empty; choose another --workdir")
    began = datetime.datetime.now()
    durable.make_folder(home := workdir.absolute() / "trials")
    command = " ".join(["python -m experiments.soak", *map(shlex.quote, sys.argv[1:])])
    about = {"command": command, "seed": asked["seed"], "began": f"{began:%Y-%m-%d %H:%M}", **provenance()}
    about |= {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    print(f"seed {asked['seed']}; {about['system']}, {about['cores']} cores")
    with ThreadPoolExecutor(asked["processes"]) as pool, Processes(home) as processes:
        whole = sum(KINDS[name].share for name in asked["kinds"])
        every = []
        for name in asked["kinds"]:
            seconds = 60 * asked["minutes"] * asked["processes"] * KINDS[name].share / whole
            chosen = random.Random(f"{asked['seed']} {name}")
            every.append(Trials(name, home / name, processes, chosen, seconds))
        list(pool.map(tried, every))
    about["minutes"] = (datetime.datetime.now() - began).total_seconds() / 60
    write_json(workdir / "soak.json", about | {"kinds": [result(one) for one in every]})
    print(
        "\n".join(["", *table(every), "", *notes(every), f"in {about['minutes']:.1f} minutes: {workdir / 'soak.json'}"])
    )
    if any(one.wrong for one in every):
        return script.FAILED
    shutil.rmtree(home)
    print(workdir)
    return script.DONE


def tried(trials: Trials) -> None:
    """Try a kind; what goes wrong before its first interruption is counted too."""
    try:
        KINDS[trials.name].try_it(trials)
    except NotRight as error:
        trials.tried += 1
        trials.wrong.append(f"undisturbed: {error}")
    except Exception:  # the other kinds go on
        trials.wrong.append(f"the soak itself failed: {traceback.format_exc()}")
    print(f"{trials.name}: {trials.right} of {trials.tried} right")


def table(every: Iterable[Trials]) -> list[str]:
    """The lines of a table in Markdown, which is also easy to read as it is."""
    rows: list[tuple[str, ...]] = [HEAD]
    for one in every:
        fault = " ".join(one.wrong[0].replace("|", "/").split())[:120] if one.wrong else ""
        more = f" (and {len(one.wrong) - 1} more)" if len(one.wrong) > 1 else ""
        rows.append((KINDS[one.name].what, str(one.tried), str(one.within), str(one.right), fault + more))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rows.insert(1, tuple("-" * width for width in widths))
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]


def notes(every: Iterable[Trials]) -> list[str]:
    """What else is to be said of the kinds."""
    return [f"{KINDS[one.name].what}: {note}" for one in every for note in one.notes]


def result(one: Trials) -> dict[str, Any]:
    """Of a kind, for soak.json."""
    names = ("name", "tried", "within", "right", "wrong", "notes")
    return {"what": KINDS[one.name].what} | {name: getattr(one, name) for name in names}


if __name__ == "__main__":
    script.run(define_flags, main)
