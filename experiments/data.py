"""The data sets that have a name: which are here, where the others come from, and what they would take.

    python -m experiments.data --list
    python -m experiments.data --prepare=cifar10 --manual_dir=/data/originals

`--list` looks for files by their names; it reads and fetches nothing. `--prepare` does what training on the data set
does first: it searches the files, fetches those that are missing, checks and reads them, and keeps the arrays.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choice
from vae.datasets.table import NAMES
from vae.places import expanded

if TYPE_CHECKING:
    from vae.datasets.status import Status


def define_flags() -> None:
    flags.DEFINE_bool("list", False, "say of each data set what is here and what is missing")
    choice("prepare", None, NAMES, "get this data set ready, so that training needs no network")
    options.define_places()


def main(_: StopRequest) -> int:
    asked = options.read()
    name = asked.values["prepare"]
    if not name and not asked.values["list"]:
        raise UsageError("nothing to do: pass --list, or --prepare=NAME")
    if name:
        prepare(name, asked.folders)
    if asked.values["list"]:
        from vae.datasets import default_data_dir, status

        given, manual = (expanded(place) if place else None for place in asked.folders[:2])
        if manual and not manual.is_dir():
            raise UsageError(f"--manual_dir={manual} is not a folder")
        for other in NAMES:
            print("\n".join(lines(status.of(other, given or default_data_dir(), manual))))
    return 0


def prepare(name: str, folders: options.DataFolders) -> None:
    """Prints what the data set holds."""
    found = folders.load(name, None, None)
    sizes = ", ".join(f"{split} {len(getattr(found, split).images):,}" for split in ("train", "validation", "test"))
    print(f"{name}: {sizes}, of {'×'.join(map(str, found.train.images.shape[1:]))} {found.train.images.dtype}")
    if found.classes:
        print(f"  {len(found.classes)} classes: {', '.join(map(str, found.classes))}")
    if found.factors:
        print(f"  factors: {', '.join(f'{factor} ({len(values)})' for factor, values in found.factors.items())}")


def lines(found: Status) -> list[str]:
    """What is said of one data set."""
    about = found.about
    told = [f"{found.name}: {about}", f"  publisher: {about.publisher}; licence: {about.licence}"]
    memory = f"{size(about.num_bytes)} of memory"
    if found.computed:
        return [*told, f"  here: it is made when it is used; takes {memory}"]
    if found.prepared:
        return [*told, f"  here: prepared in {found.prepared}; takes {memory}"]
    there = [path for _, path in found.files if path]
    for folder in dict.fromkeys(path.parent for path in there):
        names = ", ".join(path.name for path in there if path.parent == folder)
        told.append(f"  here: {names} in {folder}, not checked yet")
    for file in found.missing:
        others = [*(name for name in file.accepted if name != file.name), *([f"{file.folder}/"] if file.folder else [])]
        forms = "".join(f" or {name}" for name in others)
        told.append(f"  missing: {file.name}{forms} ({size(file.size) if file.size else 'size not known'}), {file.url}")
    if found.needs:
        told.append(f"  missing: {found.needs}, which reads the files: pip install {found.needs}")
    download = sum(file.size or 0 for file in found.missing)
    fetched = f"{size(download)} of download, " if download else ""
    twice = size(2 * about.num_bytes)  # as records and as arrays; and for a time, as they are read and in their order
    told.append(
        f"  to have it: --prepare={found.name}; takes {fetched}up to {twice} of disk, {memory}, {twice} at first"
    )
    return told


def size(num_bytes: int) -> str:
    """In megabytes, two digits or more."""
    megabytes = num_bytes / 1e6
    return f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.2g} MB"


if __name__ == "__main__":
    script.run(define_flags, main)
