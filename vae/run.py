"""The run folder: config.json, metrics.jsonl, checkpoints/, one lock; and what reads it back.

with run.lock(workdir):
    run.write_config(workdir, config)
    …
model, params, settings = run.load_run(workdir)
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from vae import hosts, settings, tensorboard, untrusted
from vae.settings import FORMAT, Hyperparameters, Settings, SettingsError

CONFIG, METRICS, EVALUATION, CHECKPOINTS, FIGURES = (
    "config.json",
    "metrics.jsonl",
    "evaluation.json",  # beside it the values of each image, evaluation.npz
    "checkpoints",
    "figures",
)
SWEEP = "sweep.json"  # of a folder of runs
ROUND = "round"  # of it: the trials of a search that are in training
ROUND_DEFAULTS: dict[str, Any] = {"names": [], "trials": [], "plans": {}}
SWEEP_KINDS = {"runs": dict, "groups": dict, ROUND: dict, "flags": dict, "sweep": list}
PLAN = "plan.json"  # of a comparison
ABOUT = ("flags", "argv", "devices", "versions", "git")  # what config.json tells of a run beside its Config
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


@hosts.shared
class RunError(ValueError):
    """A run folder that cannot be used as asked; one line for the user."""


@dataclasses.dataclass(frozen=True)
class Config:
    """All that a run is a function of, besides its data."""

    dataset: str
    settings: Settings
    hyperparameters: Hyperparameters
    epochs: int
    seed: int = 0
    validation: int | None = None  # images held out of the training set; None: the data set's own rule
    image_size: int | None = None  # of a folder of pictures
    init_from: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "settings": self.settings.to_dict(),
            "hyperparameters": self.hyperparameters._asdict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], file_format: int = FORMAT) -> Config:
        """The inverse of `to_dict`, also through JSON, and of files of older formats; raises SettingsError."""
        fields = settings.read(values, [field.name for field in dataclasses.fields(cls)], file_format)
        own = settings.read(fields.pop("settings"), [field.name for field in dataclasses.fields(Settings)], file_format)
        numbers = settings.read(fields.pop("hyperparameters"), Hyperparameters._fields, file_format)
        if own["schedule"] == "stages" and not len(numbers["stage_steps"]) == len(numbers["stage_factors"]) > 0:
            raise SettingsError("its stage_steps and stage_factors are not one of each for every stage")
        return cls(settings=Settings(**own), hyperparameters=Hyperparameters(**numbers), **fields)


def differences(stored: Config, asked: Config) -> list[str]:
    """Each setting in which `asked` differs from `stored`, but for the number of epochs, which may change."""

    def flat(config):
        values = config.to_dict()
        return {**values.pop("settings"), **values.pop("hyperparameters"), **values} | {"epochs": None}

    old, new = flat(stored), flat(asked)
    return [f"{name} is {old[name]}, not {new[name]}" for name in old if old[name] != new[name]]


def write_json(path: Path, values: Any) -> None:
    """Write JSON in one step: a reader sees the old file or the new one. A number that is not finite becomes null."""
    if not hosts.is_first():
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(finite_or_null(values), indent=1) + "\n")
    os.replace(partial, path)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz file in one step."""
    import numpy as np

    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    os.replace(partial, path)


def finite_or_null(values: Any) -> Any:
    """`values` with NaN and infinity, which JSON has no words for, as None."""
    if isinstance(values, dict):
        return {key: finite_or_null(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite_or_null(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; raises RunError where the file is absent, no file, or no JSON object."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe never ends
            raise RunError(f"{path} is no file; replace it, or choose another folder")
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path.parent} holds no run: {path} cannot be read ({error.strerror})") from error
    try:
        return untrusted.parse_object(content)
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not valid JSON ({error})") from error


def read_sweep(workdir: Path) -> dict[str, Any]:
    """sweep.json of a folder of runs; RunError as read_json, and where a run in it has no plain name."""
    path = workdir / SWEEP
    about = read_json(path)
    try:
        for name, kind in SWEEP_KINDS.items():
            _check(isinstance(about.get(name, kind()), kind), f"its {name!r} is of another type")
        runs, groups, of_round = (about.get(name, {}) for name in ("runs", "groups", ROUND))
        names, trials, plans = (of_round.get(name, default) for name, default in ROUND_DEFAULTS.items())
        for name in [*runs, *names, *plans]:
            untrusted.plain_name(name)
        _check(all(isinstance(values, dict) for values in runs.values()), "one of its 'runs' is no object")
        _check(len(names) == len(trials) and all(map(_is_count, trials)), f"its {ROUND!r} does not fit its trials")
        for plan in [*groups.values(), *plans.values()]:
            whole = _is_count(plan.get("done")) and _is_count(plan.get("chunk_size", plan.get("num_runs")), least=1)
            _check(whole and isinstance(plan.get("strategy"), str), "it says of a group what cannot be")
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}; put the file back, or choose another --workdir") from error
    return about


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


def write_config(workdir: Path, config: Config, **about: Any) -> None:
    """config.json: the run's Config, `about` (argv, devices, …), the versions of the packages and the git revision."""
    write_json(workdir / CONFIG, {"format": FORMAT, **config.to_dict(), **about, **provenance()})


@functools.cache
def provenance() -> dict[str, Any]:
    """The versions of the packages and the git revision."""
    return {"versions": {name: metadata.version(name) for name in PACKAGES}, "git": git_revision()}


def read_config(workdir: Path) -> Config:
    """The Config of the run in `workdir`; raises RunError if there is none, or one that cannot be a run's."""
    path = workdir / CONFIG
    values = read_json(path)
    try:
        file_format = values.pop("format", 1)
        if file_format not in range(1, FORMAT + 1):
            raise SettingsError(f"its format is {file_format!r}, and this code reads 1 to {FORMAT}; use newer code")
        return Config.from_dict({name: v for name, v in values.items() if name not in ABOUT}, file_format)
    except SettingsError as error:
        raise RunError(f"{path} is not the config of a run: {error}") from error


def git_revision() -> str | None:
    """The revision of the code, with + where it was changed since; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Hold the folder, made if need be, for this process; raises RunError at once where another process holds it.

    Of processes that were joined the first one holds it for all.
    """
    with contextlib.ExitStack() as held:

        def acquire() -> None:
            held.enter_context(_lock_of_one(workdir))

        hosts.agreed(acquire)
        yield


@contextlib.contextmanager
def _lock_of_one(workdir: Path) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        opened = (workdir / ".lock").open("a+")
    except OSError as error:
        raise RunError(f"{workdir} cannot be a run folder: {error.strerror}; choose another --workdir") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunError(f"{workdir} is in use by {owner}; wait for it, or choose another --workdir") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def is_locked(workdir: Path) -> bool:
    """Whether a process holds the folder."""
    try:
        with (workdir / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Metrics:
    """metrics.jsonl and TensorBoard: a row is {"step", "epoch", "split", …} with values in nats per example.

    Opening it at `step` forgets the rows after that step, so that a resumed run writes each row once. TensorBoard is
    written only where someone may be watching.
    """

    def __init__(self, workdir: Path, step: int, *, watched: bool = True):
        self._path = workdir / METRICS
        self._tensorboard = None
        if not hosts.is_first():
            return
        rows = [row for row in read_metrics(workdir) if row["step"] <= step]
        partial = self._path.with_name(f".{METRICS}.partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(partial, self._path)
        if watched:
            self._tensorboard = tensorboard.writer(workdir, purge_step=step + 1)

    def write(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        if not hosts.is_first():
            return
        row = {"step": step, "epoch": epoch, "split": split, **finite_or_null(values)}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._tensorboard is not None:
            tensorboard.show(self._tensorboard, step, split, values)

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, up to a last line that a killed process may have left incomplete."""
    path = workdir / METRICS
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(untrusted.parse_object(line))
        except ValueError:
            break
    return rows


def summary(workdir: Path) -> dict[str, Any]:
    """One row of a list of runs: its settings, how far it is, its last held-out bounds and its log-likelihood."""
    config = read_config(workdir)
    values = config.to_dict()
    settings = {**values.pop("settings"), **values.pop("hyperparameters"), **values}
    rows = read_metrics(workdir)
    last = {row["split"]: row for row in rows}
    evaluation = read_json(workdir / EVALUATION) if (workdir / EVALUATION).exists() else {}
    return {
        "run": str(workdir),
        "settings": settings,
        "epoch": rows[-1]["epoch"] if rows else 0.0,
        **{split: last.get(split, {}).get(config.settings.objective) for split in ("validation", "test")},
        "log_likelihood": evaluation.get("log_likelihood"),
        "log_likelihood_se": evaluation.get("log_likelihood_se"),
    }


class LoadedRun(NamedTuple):
    """model, params and settings of a trained run; `params` are the averaged ones where the run averages."""

    model: Any
    params: Any
    settings: Settings


def load_run(workdir: str | Path, checkpoint: str | int = "last") -> LoadedRun:
    """The run in `workdir` at its last or best checkpoint, or at a step; raises RunError or CheckpointError.

    "best" is the checkpoint with the highest validation bound.
    """
    import jax

    from vae import checkpoint as checkpoints
    from vae import model as models
    from vae import objectives, training

    workdir = Path(workdir).expanduser()
    config = read_config(workdir)
    folder = workdir / CHECKPOINTS
    step = choose_checkpoint(workdir, checkpoint)
    model = models.build(config.settings)
    objective = objectives.build(config.settings)
    like = training.abstract_state(model, objective, config.settings, config.hyperparameters)
    state = checkpoints.restore(folder, step, like)
    return LoadedRun(model, jax.device_put(state.evaluated_params), config.settings)


def choose_checkpoint(workdir: Path, checkpoint: str | int = "last") -> int:
    """The step of the "last" or "best" checkpoint of a run, or the given one if it exists; RunError if not."""
    from vae import checkpoint as checkpoints

    folder = workdir / CHECKPOINTS
    saved = checkpoints.steps(folder)
    if not saved:
        raise RunError(f"{workdir} holds no checkpoint yet: train it first")
    if checkpoint == "last":
        return saved[-1]
    if checkpoint == "best":
        best = checkpoints.best_step(folder)
        if best is None:
            raise RunError(f"no checkpoint of {workdir} has a validation score; use the last one")
        return best
    if str(checkpoint).isdecimal() and int(checkpoint) in saved:
        return int(checkpoint)
    raise RunError(f"{workdir} has no checkpoint {checkpoint!r}; use last, best or one of {saved}")
