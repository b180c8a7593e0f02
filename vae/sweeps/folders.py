"""The run folders of a sweep, a search or a comparison: each must be the run that its config.json says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vae.datasets.dataset import Dataset
from vae.runs.config import ENDS, Config, changed_settings, move, read_config
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS, CONFIG, METRICS
from vae.sweeps.planning import RUNS
from vae.sweeps.sweep_file import SWEEP
from vae.training import resuming
from vae.training.record import FAILURE

Load = Callable[[Config], Dataset]


def configs(workdir: Path) -> dict[str, Config]:
    """The Config of every run folder below `workdir`, by the folder's name; `check` handles a lost config.json."""
    return {name: read_config(path) for name, path in _folders(workdir) if (path / CONFIG).exists()}


def was_trained(folder: Path) -> bool:
    """Whether training has begun in the folder."""
    return any((folder / name).exists() for name in (CHECKPOINTS, METRICS, FAILURE))


def differences(folder: Path, wanted: Config, load: Load) -> list[str]:
    """Each setting in which the run in `folder` differs from the one that is `wanted`.

    Its images may be elsewhere, if they are the same that `load` finds: RunError if not. Those of the same place were
    checked when they were loaded.
    """
    stored = read_config(folder)
    same_cut = (stored.validation, stored.image_size) == (wanted.validation, wanted.image_size)
    if stored.dataset != wanted.dataset and same_cut:
        stored = resuming.at_place(folder, stored, wanted, load(wanted))
    return changed_settings(stored, wanted)


def move_data(workdir: Path, places: Mapping[str, str]) -> None:
    """From now on each run in `places` finds its images there; the caller has checked that they are the same."""
    stored = configs(workdir)
    for name in places.keys() & stored.keys():
        if stored[name].dataset != places[name]:
            move(workdir / RUNS / name, places[name])


def check(
    workdir: Path, wanted: Mapping[str, Config], load: Load, *, recorded: bool, may_be_longer: bool = False
) -> None:
    """Raises RunError if a run folder below `workdir` is not the run that is `wanted` under its name.

    load: loads the images of a wanted run.
    recorded: sweep.json or plan.json exists and names the runs; other folders are ignored. If it was lost, nothing says
        which folders would be overwritten or ignored. Then every folder must be wanted.
    may_be_longer: a run may have been trained for more epochs since.
    """
    _check_links(workdir)
    stored = configs(workdir)
    why = "" if recorded else f" (what says what the runs in {workdir / RUNS} are is lost)"
    for name, path in _folders(workdir):
        if name in wanted and name in stored:
            differing = differences(path, wanted[name], load)
            for end in () if may_be_longer else ENDS:
                before, now = (getattr(one, end) for one in (stored[name], wanted[name]))
                if before != now:
                    differing.append(f"{end} is {before}, not {now}")
            if differing:
                raise RunError(f"{path} holds another run: {'; '.join(differing)}; choose another `workdir`{why}")
        elif name in wanted and was_trained(path):
            raise RunError(
                f"{path} holds a trained run but no {CONFIG}, which says what it is; put it back, or choose "
                "another `workdir`"
            )
        elif name not in wanted and not recorded and (name in stored or was_trained(path)):
            raise RunError(
                f"{path} holds a run that is not asked for here; choose another `workdir`, or ask for what was asked "
                f"before{why}"
            )


def check_listed(workdir: Path, listed: Mapping[str, object]) -> None:
    """Raises RunError if a run was trained below `workdir` that is not `listed` in its sweep.json.

    For a search: its trials cannot be proposed again. So a lost sweep.json cannot be rebuilt from the folders.
    """
    _check_links(workdir)
    for name, path in _folders(workdir):
        if name not in listed and was_trained(path):
            raise RunError(
                f"{path} holds a run that {workdir / SWEEP} does not name; put back the {SWEEP} that does, or "
                "choose another `workdir`"
            )


def _check_links(workdir: Path) -> None:
    """Raises RunError if a run below `workdir` is a link: a stranger's may lead to any run, which is written to."""
    for _, path in _folders(workdir):
        if path.is_symlink():
            raise RunError(f"{path} is a link, and training would write where it leads; put the folder itself there")


def _folders(workdir: Path) -> list[tuple[str, Path]]:
    runs = workdir / RUNS
    return [(path.name, path) for path in sorted(runs.iterdir()) if path.is_dir()] if runs.is_dir() else []
