"""What of a named data set is on this machine, by the names of its files alone: nothing is read or fetched."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from vae.datasets.dataset import About
from vae.datasets.loading import named, prepared_folder
from vae.datasets.sources import RawFile, folder_of
from vae.datasets.table import COMPUTED


class Status(NamedTuple):
    """Of a data set: where its arrays are, if it is prepared; and of each of its files the path, if one was found."""

    name: str
    about: About
    computed: bool
    prepared: Path | None
    files: tuple[tuple[RawFile, Path | None], ...]

    @property
    def missing(self) -> list[RawFile]:
        """The files that would have to be fetched."""
        return [file for file, path in self.files if path is None and self.prepared is None]

    @property
    def needs(self) -> str:
        """The package without which the files cannot be read here; empty if there is none."""
        wanted = self.about.needs if self.prepared is None else ""
        return wanted if wanted and find_spec(wanted) is None else ""


def of(name: str, data_dir: Path, manual_dir: Path | None) -> Status:
    """The status of one of `NAMES`."""
    module, folder = named(name), prepared_folder(name, data_dir)
    if name in COMPUTED:
        return Status(name, module.ABOUT, True, None, ())
    manual = [] if manual_dir is None else [manual_dir / name, manual_dir]
    system = [Path(module.DATA.system)] if module.DATA.system else []
    places = [data_dir / "downloads" / name, *manual, *system]
    found = tuple((file, _first(places, file) or folder_of(file, name, manual_dir)) for file in module.DATA.files)
    return Status(name, module.ABOUT, False, folder if folder.is_dir() else None, found)


def _first(places: list[Path], file: RawFile) -> Path | None:
    paths = (place / form for place in places for form in file.accepted)
    return next(filter(Path.is_file, paths), None)
