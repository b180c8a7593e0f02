"""config.json: all that determines a run besides its data, and the versions that made it."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vae import settings
from vae.runs.files import RunError, RunWarning, read_json, write_json
from vae.runs.folder import CONFIG
from vae.settings import FORMAT, Hyperparameters, Settings, SettingsError

# What config.json holds about a run in addition to its Config.
ABOUT = ("data", "flags", "argv", "devices", "versions", "git", "history")
WHO = ("argv", "versions", "git")  # of them: who began it, or resumed it
ENDS = ("epochs", "patience")  # of a Config: when training ends; the same run may be trained for longer
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


@dataclasses.dataclass(frozen=True)
class Config:
    """All that determines a run, besides its data."""

    dataset: str
    settings: Settings
    hyperparameters: Hyperparameters
    epochs: int
    patience: int = 0  # epochs without a better validation bound after which training ends; 0: never
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

    def flat(self) -> dict[str, Any]:
        """Every value by its name, those of the settings and the hyperparameters among them."""
        values = self.to_dict()
        return {**values.pop("settings"), **values.pop("hyperparameters"), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any], file_format: int = FORMAT) -> Config:
        """The inverse of `to_dict`, also for values from JSON and from files of older formats; raises SettingsError."""
        fields = settings.read(values, [field.name for field in dataclasses.fields(cls)], file_format)
        own = settings.read(fields.pop("settings"), [field.name for field in dataclasses.fields(Settings)], file_format)
        numbers = settings.read(fields.pop("hyperparameters"), Hyperparameters._fields, file_format)
        if own["schedule"] == "stages" and not len(numbers["stage_steps"]) == len(numbers["stage_factors"]) > 0:
            raise SettingsError("its stage_steps and stage_factors are not one of each for every stage")
        return cls(settings=Settings(**own), hyperparameters=Hyperparameters(**numbers), **fields)


def changed_settings(stored: Config, asked: Config) -> list[str]:
    """Each setting in which `asked` differs from `stored`, except those that say when training ends."""
    old, new = (config.flat() | dict.fromkeys(ENDS) for config in (stored, asked))
    return [f"{name} is {old[name]}, not {new[name]}" for name in old if old[name] != new[name]]


def write_config(workdir: Path, config: Config, **about: Any) -> None:
    """config.json: the run's Config, `about` (argv, devices, …), the versions of the packages and the git revision.

    If the run is there already, what says who began it stays, and who resumes it comes to its `history`.
    """
    path = workdir / CONFIG
    stored = read_json(path) if path.exists() else {}
    write_json(path, {"format": FORMAT, **config.to_dict(), **with_history(stored, about | provenance())})


def move(workdir: Path, dataset: str) -> None:
    """Say in config.json that the images of the run in `workdir` are at `dataset` now."""
    values = read_json(workdir / CONFIG)
    flags = {"flags": values["flags"] | {"dataset": dataset}} if isinstance(values.get("flags"), dict) else {}
    write_json(workdir / CONFIG, values | flags | {"dataset": dataset})


def with_history(stored: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`now`, but with the `stored` argv, versions and revision of who began; those of `now` end the `history`."""
    began = {name: stored[name] for name in WHO if name in stored}
    if not began:
        return now
    resumes, history = {name: now[name] for name in WHO if name in now}, _history(stored)
    if json.dumps(resumes) != json.dumps((history or [began])[-1]):
        history = [*history, resumes]
    return now | began | ({"history": history} if history else {})


def _history(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = stored.get("history")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def doubt_bits(path: Path) -> None:
    """A RunWarning if config.json or sweep.json says that other versions of jax trained last: bits may differ."""
    stored, now = read_json(path), provenance()["versions"]
    before = (_history(stored) or [stored])[-1].get("versions")
    if not isinstance(before, dict):
        return
    names = [name for name in ("jax", "jaxlib") if before.get(name, now[name]) != now[name]]
    if names:
        was, is_now = (", ".join(f"{name} {versions[name]}" for name in names) for versions in (before, now))
        text = f"{path.parent} was trained under {was}, and resumes under {is_now}: bits may differ"
        warnings.warn(text, RunWarning, 2)


@functools.cache
def provenance() -> dict[str, Any]:
    """The versions of the packages and the git revision."""
    return {"versions": {name: metadata.version(name) for name in PACKAGES}, "git": git_revision()}


def read_config(workdir: Path) -> Config:
    """The Config of the run in `workdir`; raises RunError if there is none, or if it is not valid."""
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
    """The revision of the code, with + if it was changed since; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
