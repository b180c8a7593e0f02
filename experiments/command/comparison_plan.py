"""What the folder of a comparison keeps of what was asked (plan.json), and what a resume must agree with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from experiments.flags import configuration
from experiments.flags.configuration import RunFlags
from experiments.flags.parsing import UsageError

ASKED = ("runs", "objectives", "seeds", "tune", "budget", "evaluation_samples", "evaluation_seed", "num_examples")


def stored_comparison(workdir: Path | None) -> dict[str, Any]:
    """What was stored of the comparison in `workdir`; empty if there is none."""
    from vae.runs.files import read_json
    from vae.runs.folder import CHECKPOINTS, CONFIG
    from vae.sweeps.sweep_file import PLAN, SWEEP

    if workdir is None or not (workdir / PLAN).exists():
        if workdir is not None and (workdir / SWEEP).exists():
            lost = "" if "sweep" in read_json(workdir / SWEEP) else f" (or put {PLAN} back, if they are a comparison's)"
            raise UsageError(
                f"{workdir} holds a sweep; compare its runs with --runs={workdir}, and another --workdir{lost}"
            )
        if workdir is not None and ((workdir / CONFIG).exists() or (workdir / CHECKPOINTS).exists()):
            raise UsageError(f"{workdir} holds a single run; choose another --workdir")
        return {}
    return read_plan(workdir / PLAN)


def read_plan(path: Path) -> dict[str, Any]:
    """plan.json, of which each value is of its kind; raises RunError."""
    from vae.runs.files import RunError, read_json

    plan = read_json(path)
    lists = [plan.get(name, []) for name in ("seconds_per_step", "epochs")]
    kinds = [isinstance(plan.get(name), dict) for name in ("asked", "flags")]
    kinds += [isinstance(plan.get("command", ""), str), all(isinstance(one, list) for one in lists)]
    if not all(kinds) or not all(type(value) in (int, float) and value > 0 for one in lists for value in one):
        raise RunError(
            f"{path} is damaged: it is not the plan of a comparison; put it back, or choose another --workdir"
        )
    return plan | {"asked": configuration.stored_own(path, plan["asked"], ASKED)}


def store(workdir: Path, stored: dict[str, Any], asked: dict[str, Any], base: RunFlags, **about: Any) -> None:
    """Store the flags of the comparison, and the first command that gave them."""
    from vae.runs.files import write_json
    from vae.sweeps.sweep_file import PLAN

    command = " ".join(["python", "-m", "experiments.compare", *map(shlex.quote, sys.argv[1:])])
    about |= {"asked": asked, "flags": base.values, "command": stored.get("command", command)}
    write_json(workdir / PLAN, about)


def check_resumed(workdir: Path | None, stored: dict[str, Any], asked: dict[str, Any], base: RunFlags) -> None:
    """Raises RunError if `workdir` holds another comparison. Only --seeds may differ, if it grows."""
    from vae.runs.files import RunError

    if not stored:
        return
    before = stored["asked"]
    found = [f"--{name} is {before[name]}, not {asked[name]}" for name in ASKED if before[name] != asked[name]]
    if asked["seeds"] > before["seeds"]:
        found = [text for text in found if not text.startswith("--seeds ")]
    flags_before, now = configuration.since_then() | stored["flags"], base.values
    asked_anew = sorted(base.given - {"dataset"})  # where the images are now: they are compared themselves
    found += [f"--{n} is {flags_before.get(n)}, not {now[n]}" for n in asked_anew if flags_before.get(n) != now[n]]
    if found:
        raise RunError(f"{workdir} holds another comparison: {'; '.join(found)}; choose another --workdir")
