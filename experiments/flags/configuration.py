"""From flags to a run's Config: presets, the stored flags of a run that is resumed, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.flags.options import AXES, FLAGS, TRAINING_FLAGS, Flags
from experiments.flags.parsing import UsageError, flag_value
from vae import configuration
from vae.places import expanded
from vae.presets import PRESETS
from vae.settings import ADDED, FIELDS, OWN

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config


# What a run that resumes may be given: without any other flag, and without a folder, a name is mistyped.
OF_A_RESUME = frozenset(
    (
        "workdir",
        "epochs",
        "patience",
        "devices",
        "distributed",
        "figures",
        "keep_last",
        "keep_best",
        "save_every",
        "profile",
        "data_dir",
        "manual_dir",
    )
)


class RunFlags(NamedTuple):
    """The value of every training flag, as config.json keeps them, and those that were asked for by themselves."""

    values: dict[str, Any]
    given: frozenset[str]

    def at(self, point: Mapping[str, Any]) -> RunFlags:
        """The same with the values of `point`."""
        return RunFlags(absolute({**self.values, **point}), self.given | point.keys())

    def config(self, dataset: Dataset) -> Config:
        """The run's Config on the data that the flags name; raises ConfigurationError if they do not go together."""
        return configuration.resolve({name: self.values[name] for name in AXES}, dataset, self.given)

    def check(self) -> None:
        """Raises ConfigurationError or UsageError for a given flag without effect, or for what does not go together."""
        values = configuration.complete({name: self.values[name] for name in AXES})
        configuration.check(values, self.given)
        configuration.check_patience(values, self.values.get("keep_best", 1))
        if values["validation"] == 0 and "keep_best" in self.given and self.values["keep_best"]:
            raise UsageError(
                "--keep_best has no effect with --validation=0: only validation images choose a checkpoint"
            )


def resolve(flags: Flags, workdir: Path | None) -> RunFlags:
    """The command line's flags, --preset's, and those of the run that `workdir` holds.

    Raises UsageError or ConfigurationError for a flag that would have no effect.
    """
    stored = stored_flags(workdir)
    if workdir is not None and not stored and not workdir.exists() and flags.given <= OF_A_RESUME:
        raise UsageError(
            f"--workdir={workdir} holds no run to resume; give the folder of a run, or say what to train there, as in "
            "--preset=tutorial"
        )
    settled = settle(flags, stored)
    settled.check()
    epochs = settled.values["epochs"]
    if stored and epochs != stored.get("epochs") and (schedule := configuration.ends_with_training(settled.values)):
        raise UsageError(
            f"{schedule} of this run ends at epoch {stored.get('epochs')}, so --epochs={epochs} cannot "
            f"be reached by resuming it; start a new run with --init_from={workdir}"
        )
    return settled


def settle(flags: Flags, stored: Mapping[str, Any]) -> RunFlags:
    """Each training flag: the command line's value, else --preset's, else the `stored` one, else the default."""
    given = flags.given.intersection(TRAINING_FLAGS)
    values = absolute({name: flags.values[name] for name in TRAINING_FLAGS})
    preset = PRESETS.get(flags.values["preset"], {})
    chosen = {name: as_flag(value) for name, value in preset.items() if name not in given}
    if preset:
        shown = " ".join(
            f"--{name}={','.join(value) if isinstance(value, list) else value}" for name, value in chosen.items()
        )
        print(f"preset {flags.values['preset']}: {shown}")
    earlier = since_then() | dict(stored) if stored else {}
    kept = {name: value for name, value in earlier.items() if name in values and name not in given | preset.keys()}
    return RunFlags(values | {name: stored_value(name, value) for name, value in kept.items()} | chosen, given)


def as_flag(value: Any) -> Any:
    """A value as its flag has it: absl's lists are of texts."""
    return list(map(str, value)) if isinstance(value, tuple) else value


def since_then() -> dict[str, Any]:
    """The flags that came after the first run folders, each with what it stands for in a folder that lacks it."""
    fields = {**FIELDS, **OWN}
    return {fields[name].option or name: as_flag(value) for added in ADDED.values() for name, value in added.items()}


def stored_value(name: str, value: Any) -> Any:
    """A flag's value as a file gave it, after the flag's own parser and validators; raises RunError."""
    from vae.runs.files import RunError

    if value is None and FLAGS[name].default is None:
        return None
    try:
        return flag_value(name, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    except UsageError as error:
        raise RunError(
            f"the flag {name} that was stored is {str(value)[:60]!r}: {error}; use another --workdir"
        ) from error


def stored_points(path: Path, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The values of the axes of each run as the file `path` gave them, checked as a command's; raises RunError."""
    from vae.runs.files import RunError

    if unknown := [name for values in runs.values() for name in values if name not in AXES]:
        raise RunError(f"{path} is damaged: {unknown[0][:60]!r} is no axis of a run; put the file back")
    return {run: {name: stored_value(name, value) for name, value in values.items()} for run, values in runs.items()}


def stored_own(path: Path, stored: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values of a script's own flags as the file `path` gave them, checked as a command's; raises RunError."""
    from vae.runs.files import RunError

    found = {}
    for name in names:
        if name not in stored:
            raise RunError(f"{path} is damaged: it lacks {name!r}; put the file back, or choose another --workdir")
        value = stored[name]
        if not isinstance(FLAGS[name].default, list):
            found[name] = stored_value(name, value)
        elif isinstance(value, list) and all(isinstance(text, str) for text in value):
            found[name] = value
        else:
            raise RunError(
                f"{path} is damaged: its {name!r} is no list of texts; put the file back, or choose another --workdir"
            )
    return found


def absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with absolute paths, so that a run can be resumed from any folder."""
    paths = {name: values[name] for name in ("data_dir", "manual_dir", "init_from") if values.get(name)}
    made = {name: str(expanded(path).absolute()) for name, path in paths.items()}
    return {**values, **made, "dataset": configuration.absolute(values["dataset"], made.get("data_dir"))}


def stored_flags(workdir: Path | None) -> dict[str, Any]:
    """The flags that the run in `workdir` was started with; empty if there is none.

    Raises RunError if its config.json is damaged, UsageError if it was lost.
    """
    from vae.runs.config import read_config
    from vae.runs.files import RunError, read_json
    from vae.runs.folder import CHECKPOINTS, CONFIG
    from vae.sweeps.sweep_file import SWEEP

    if workdir is None:
        return {}
    if (workdir / SWEEP).exists():
        raise UsageError(f"{workdir} holds a sweep, which experiments.sweep trains; choose another --workdir")
    if not (workdir / CONFIG).exists():
        if (workdir / CHECKPOINTS).exists():
            raise UsageError(
                f"{workdir} holds checkpoints but no {CONFIG}, which says what they are of; put it back, or choose "
                "another --workdir"
            )
        return {}
    read_config(workdir)
    flags = read_json(workdir / CONFIG).get("flags")
    if not isinstance(flags, dict | None):
        raise RunError(f"{workdir / CONFIG} is damaged: its 'flags' are no object; put it back")
    return flags or {}
