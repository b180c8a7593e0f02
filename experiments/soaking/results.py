"""What two runs, sweeps, searches or comparisons must agree in, to the last bit: all that the clock does not say."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import threading
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

ORDER = "rows"  # the name of which rows there are
NO_RESULTS = ("seconds", "seconds_per_step", "git", "crc32")  # what the clock says; code may be committed meanwhile
_ONE_AT_A_TIME = threading.Lock()  # orbax

Outcome = dict[str, Any]


class NotRight(RuntimeError):
    """What a trial shows to be wrong; one line."""


@functools.cache
def _unfinished_name() -> re.Pattern[str]:
    """The name of a file that vae/durable.py has not given its own yet, or of such a checkpoint."""
    from vae.runs.checkpoint import DELETED, PARTIAL

    return re.compile(rf"\..+\.[0-9a-f]{{32}}|({re.escape(PARTIAL)}|{re.escape(DELETED)}).*")


def unfinished(folder: Path) -> list[Path]:
    """The files and checkpoints below `folder` that are being written or deleted, or were when a process ended."""
    found, folders = [], [folder]
    while folders:
        try:
            entries = list(folders.pop().iterdir())
        except OSError:  # deleted meanwhile
            continue
        for path in entries:
            if _unfinished_name().fullmatch(path.name):
                found.append(path)
            elif path.is_dir() and not path.name.isdecimal():  # not into a checkpoint
                folders.append(path)
    return found


def outcome_of(folder: Path) -> Outcome:
    """All results below `folder` by their names, without what the clock says."""
    from vae.runs.folder import CONFIG
    from vae.sweeps.results import RESULTS

    found: Outcome = {}
    for path in sorted(folder.rglob(CONFIG)):
        name = str(path.parent.relative_to(folder))
        found |= {f"{name}: {what}": value for what, value in of_run(path.parent).items()}
    found |= comparison_of(folder)
    for path in sorted([*folder.glob(RESULTS), *folder.glob("*settings.csv")]):
        found[path.name] = path.read_text()
    for path in sorted(folder.glob("*.journal")):
        found["trials"] = [(trial.params, trial.value, trial.state.name) for trial in trials_of(path)]
    return found


def comparison_of(folder: Path) -> Outcome:
    """What experiments.compare concluded."""
    return {path.name: _results(json.loads(path.read_bytes())) for path in folder.glob("comparison.json")}


def of_run(folder: Path) -> Outcome:
    """Of a run: its last checkpoint, a digest of each of its arrays, its rows of metrics and its evaluations.

    Of a run with patience its best checkpoint too.

    Raises NotRight if something in it cannot be read.
    """
    import jax
    import numpy as np

    from vae.runs.config import read_config
    from vae.runs.metrics import read_metrics
    from vae.training.start import saved_state

    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage: the script has told it
            rows = [_results(row) for row in read_metrics(folder)]
            which = ["last", "best"] if read_config(folder).patience else ["last"]
            failed = (folder / "failure.json").exists()
            state = None if failed else {name: saved_state(folder, name)[1] for name in which}
    except (ValueError, OSError) as error:
        raise NotRight(f"what is left cannot be read: {error}") from error
    found: Outcome = {ORDER: [f"{row['step']} {row['split']}" for row in rows]}
    found |= {f"row {name}": row for name, row in zip(found[ORDER], rows, strict=True)}
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found |= {f"state{jax.tree_util.keystr(path)}": _digest(np.asarray(leaf)) for path, leaf in leaves}
    return found | evaluations_of(folder)


def evaluations_of(folder: Path) -> Outcome:
    """Of a run: its evaluations, a digest of their values of each image, and how it failed."""
    import numpy as np

    found: Outcome = {}
    for path in sorted([*folder.glob("evaluation*"), *folder.glob("failure.json")]):
        try:
            if path.suffix == ".json":
                found[path.name] = _results(json.loads(path.read_bytes()))
            else:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                    found |= {f"{path.name}: {name}": _digest(arrays[name]) for name in arrays}
        except (ValueError, OSError, LookupError, zipfile.BadZipFile, zlib.error) as error:
            found[path.name] = f"cannot be read: {error}"
    return found


def trials_of(journal: Path) -> list[Any]:
    """The trials of the only study in a journal."""
    from vae.sweeps import storage

    opened = storage.open_storage(str(journal))
    (study,) = opened.get_all_studies()
    return opened.get_all_trials(opened.get_study_id_from_name(study.study_name))


def differences(found: Outcome, expected: Outcome) -> list[str]:
    """A line for each name in which two outcomes differ."""
    return [
        f"{name} is {str(found.get(name, 'absent'))[:200]}, not {str(expected.get(name, 'absent'))[:200]}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name, "absent") != expected.get(name, "absent")
    ]


def _digest(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"


def _results(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _results(item) for name, item in value.items() if name not in NO_RESULTS}
    return [_results(item) for item in value] if isinstance(value, list) else value
