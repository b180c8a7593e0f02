"""sweep.json: the flags of a sweep, a search or a comparison, and its progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vae import untrusted
from vae.runs.files import RunError, is_count, read_json

SWEEP = "sweep.json"  # of a folder of runs
ROUND = "round"  # of it: the trials of a search that are in training
ROUND_DEFAULTS: dict[str, Any] = {"names": [], "trials": [], "plans": {}}
SWEEP_KINDS = {"runs": dict, "groups": dict, ROUND: dict, "flags": dict, "sweep": list, "parts": list}
PLAN = "plan.json"  # of a comparison


def read_sweep(workdir: Path) -> dict[str, Any]:
    """sweep.json of a folder of runs; RunError as in read_json, and if the name of a run is not a plain file name."""
    path = workdir / SWEEP
    about = read_json(path)
    try:
        _check("runs" in about, "it lacks 'runs'")
        for name, kind in SWEEP_KINDS.items():
            _check(isinstance(about.get(name, kind()), kind), f"its {name!r} is of another type")
        runs, groups, of_round = (about.get(name, {}) for name in ("runs", "groups", ROUND))
        names, trials, plans = (of_round.get(name, default) for name, default in ROUND_DEFAULTS.items())
        for name in [*runs, *names, *plans]:
            untrusted.plain_name(name)
        _check(all(isinstance(values, dict) for values in runs.values()), "one of its 'runs' is no object")
        parts = about.get("parts", [len(runs)])
        _check(all(map(is_count, parts)) and sum(parts) == len(runs), "its 'parts' do not fit its 'runs'")
        _check(len(names) == len(trials) and all(map(is_count, trials)), f"its {ROUND!r} does not fit its trials")
        for plan in [*groups.values(), *plans.values()]:
            whole = is_count(plan.get("done")) and is_count(plan.get("chunk_size", plan.get("num_runs")), least=1)
            _check(whole and isinstance(plan.get("strategy"), str), "it says of a group what cannot be")
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}; put the file back, or choose another `workdir`") from error
    return about


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
