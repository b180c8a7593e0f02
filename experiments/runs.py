"""List the runs under a folder: the settings in which they differ, their progress and their scores. Pack a run.

    python -m experiments.runs            # those under runs/
    python -m experiments.runs --folder=/data/sweep --sort=log_likelihood
    python -m experiments.runs --pack=runs/x --checkpoint=best --output=x.pack   # the run as one file
    python -m experiments.runs --unpack=x.pack --output=runs/y                   # a run folder again

Scores are nats per image: the last validation bound (with --patience the best one), and evaluation.json's
log-likelihood if there is one; if it is of an earlier checkpoint than would be evaluated now, its step stands beside
it. Sorted by a score, runs that do not compare (vae/sweeps/ranking.py) are sorted apart, and runs of several bounds by
their ELBO.

A packed run is one file: config.json, one checkpoint with the whole state of training, the rows of metrics, the
evaluations of that checkpoint, and a checksum of everything. Other scripts and `vae.load_run` take it in place
of a run folder. A run that is unpacked is resumed as the run itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choice
from vae.places import expanded
from vae.runs import naming

BOUNDS = ("validation", "test")
SCORES = ("epoch", *BOUNDS, "log_likelihood")


def define_flags() -> None:
    flags.DEFINE_string("folder", "runs", "where to look, with all its subfolders; or a packed run")
    choice("sort", "run", ("run", *SCORES), "column to sort by; scores from high to low")
    flags.DEFINE_bool("json", False, "print one JSON object per line, with every setting, instead of a table")
    flags.DEFINE_string("pack", None, "write this run folder as one file")
    flags.DEFINE_string("checkpoint", None, "pack: " + options.CHECKPOINT_HELP)
    flags.DEFINE_string("unpack", None, "make a run folder of this packed run")
    flags.DEFINE_string(
        "output", None, "pack: the file (default: RUN.pack); unpack: the folder (default: NAME.unpacked)"
    )


LISTING, PACKING = ("folder", "sort", "json"), ("pack", "unpack")
READ_BY = {"checkpoint": ("pack",), "output": PACKING, **dict.fromkeys(LISTING, ())}  # which flag of PACKING each needs


def main(_: StopRequest) -> int:
    asked = options.read()
    check_flags(asked)
    if asked.values["pack"]:
        return pack(asked.values)
    if asked.values["unpack"]:
        return unpack(asked.values)
    return listed(asked.values)


def check_flags(asked: options.Flags) -> None:
    """Raises UsageError for a flag without effect."""
    chosen = [name for name in PACKING if asked.values[name]]
    if len(chosen) > 1:
        raise UsageError("--pack and --unpack are two commands; give one of them")
    for name in asked.given.intersection(READ_BY):
        if not set(chosen) & set(READ_BY[name]) and (chosen or READ_BY[name]):
            with_what = f"with --{chosen[0]}" if chosen else f"without --{' or --'.join(READ_BY[name])}"
            raise UsageError(f"--{name} has no effect {with_what}; leave it out")


def pack(asked: dict[str, Any]) -> int:
    """Write the run folder --pack as one file."""
    from vae.runs.archive import SUFFIX
    from vae.training import packing

    workdir = expanded(asked["pack"])
    path = expanded(asked["output"]) if asked["output"] else workdir.with_name(workdir.name + SUFFIX)
    sha256, files = packing.pack(workdir, path, asked["checkpoint"])
    print(f"packed: checkpoint, {', '.join(files)}; {path.stat().st_size:,} bytes, sha256 {sha256}")
    print(path)
    return 0


def unpack(asked: dict[str, Any]) -> int:
    """Make a run folder of the packed run --unpack."""
    from experiments.command import devices
    from vae.runs.archive import SUFFIX, is_packed
    from vae.training import packing

    path = expanded(asked["unpack"])
    if not is_packed(path):
        raise UsageError(f"--unpack={path} is no packed run (a file NAME{SUFFIX}); make one with --pack=RUN")
    devices.start(1, None)
    print(packing.unpack(path, expanded(asked["output"]) if asked["output"] else None))
    return 0


def listed(asked: dict[str, Any]) -> int:
    """Print the runs under --folder."""
    from vae.runs import archive
    from vae.runs.files import RunError
    from vae.runs.folder import CONFIG
    from vae.runs.metrics import summary

    folder = expanded(asked["folder"])
    if not folder.is_dir() and not archive.is_packed(folder):
        raise UsageError(f"--folder={folder} is not a folder; give one that holds run folders")
    found = []
    for run in [folder] if archive.is_packed(folder) else [path.parent for path in sorted(folder.rglob(CONFIG))]:
        try:
            found.append(summary(run))
        except RunError as error:
            print(script.shown(f"left out: {error}"), file=sys.stderr)
    if not found:
        print(f"no runs under {folder}", file=sys.stderr)
        return 0
    if asked["sort"] != "run":
        found = sorted_by(asked["sort"], found)
    if asked["json"]:
        for row in found:
            print(json.dumps(row))
        return 0
    flat = []
    for row in found:
        settings = dict(row["settings"])
        settings["num_validation"] = settings.pop("validation")  # beside the score of that name
        settings = {name: None if value is None else naming.text(value) for name, value in settings.items()}
        scores = {name: row[name] for name in shown_scores(found)}
        if is_old(row):
            scores["log_likelihood"] = f"{_cell(row['log_likelihood'])} (step {row['log_likelihood_step']})"
        flat.append({"run": row["run"], **settings, **scores})
    names = list(dict.fromkeys(name for row in flat for name in row))
    # Only the settings in which the runs differ.
    always = {"run", "dataset", "objective", *SCORES}
    shown = [name for name in names if name in always or len({str(row.get(name)) for row in flat}) > 1]
    cells = [shown] + [[_cell(row.get(name)) for name in shown] for row in flat]
    widths = [max(len(row[column]) for row in cells) for column in range(len(shown))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if old := [row["run"] for row in found if is_old(row)]:
        print(
            f"(step …): of an earlier checkpoint than would be evaluated now; evaluate again: {', '.join(old[:5])}"
            + (", …" if len(old) > 5 else ""),
            file=sys.stderr,
        )
    return 0


def is_old(row: dict[str, Any]) -> bool:
    """Whether the run was trained further since its log-likelihood was computed."""
    return row["log_likelihood_step"] is not None and row["log_likelihood_step"] < row["step"]


def sorted_by(score: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows from high to low, unknown scores last; those that do not compare with the first ones after them all."""
    from vae.runs.config import read_config
    from vae.sweeps import ranking

    by_run = {row["run"]: row for row in rows}
    configs = {name: read_config(Path(name)) for name in by_run}
    if score != "validation":  # test images are the same however many of the others were held out
        configs = {name: dataclasses.replace(config, validation=None) for name, config in configs.items()}
    groups = ranking.rankings(configs) if score != "epoch" else []
    if len(groups) > 1:
        print(f"runs of {len(groups)} kinds do not compare ({'; '.join(g.title for g in groups)})", file=sys.stderr)
    found = []
    for one in groups:
        column = f"{score}_elbo" if score in BOUNDS and one.metric == "elbo" else score
        if column != score:
            print(f"{ranking.reason(one.changing)}: sorted by the ELBO", file=sys.stderr)
        found += _descending(column, [by_run[name] for name in one.names])
    return found if groups else _descending(score, rows)


def _descending(column: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -math.inf if row[column] is None else row[column], reverse=True)


def shown_scores(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of scores: the ELBO beside the bound if the runs are of several objectives."""
    several = len({row["settings"]["objective"] for row in rows}) > 1
    elbos = [f"{split}_elbo" for split in BOUNDS] if several else []
    return [*SCORES[:-1], *elbos, SCORES[-1]]


def _cell(value) -> str:
    """A score, rounded; settings are texts, of which different ones look different."""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    script.run(define_flags, main)
